"""How far a reconstruction is from its recording. Both [N] float32 at one rate, aligned; the longer one is cut.

N samples    F bins    T frames    M mel bands
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from slm.evaluate.extra import need

FLOOR = 1e-5


def codec_measures(reference: np.ndarray, rebuilt: np.ndarray, rate: int) -> dict[str, float]:
    """Every measure below by name; STOI and PESQ only where pystoi and pesq are installed (PESQ hears 16 kHz only)."""
    n = min(len(reference), len(rebuilt))
    a, b = torch.from_numpy(reference[:n]), torch.from_numpy(rebuilt[:n])
    found = {"log-mel L1": log_mel_l1(a, b, rate), "multi-STFT": multi_stft(a, b), "SI-SNR dB": si_snr(a, b)}
    if installed("pystoi"):
        found["STOI"] = stoi(reference[:n], rebuilt[:n], rate)
    if installed("pesq") and rate == 16_000:
        found["PESQ"] = pesq(reference[:n], rebuilt[:n])
    return {name: value for name, value in found.items() if value is not None}


def log_mel_l1(a: torch.Tensor, b: torch.Tensor, rate: int, bands: int = 80) -> float:
    """Mean |ln mel(a) - ln mel(b)| over [M,T]: 64 ms windows, 16 ms steps."""
    from torchaudio.functional import melscale_fbanks

    size = int(0.064 * rate)
    bank = melscale_fbanks(size // 2 + 1, 0, rate / 2, bands, rate, norm="slaney", mel_scale="slaney")  # [F,M]
    mel_a, mel_b = ((bank.T @ _magnitude(x, size, size // 4)).clamp_min(FLOOR).log() for x in (a, b))    # [M,T]
    return float((mel_a - mel_b).abs().mean())


def multi_stft(a: torch.Tensor, b: torch.Tensor, sizes: Sequence[int] = (512, 1024, 2048)) -> float:
    """Spectral convergence plus mean |ln STFT| difference, averaged over window sizes (Yamamoto et al., 2020)."""
    total = 0.0
    for size in sizes:
        x, y = (_magnitude(s, size, size // 4) for s in (a, b))  # [F,T]
        convergence = (x - y).norm() / x.norm().clamp_min(FLOOR)
        total += float(convergence + (x.clamp_min(FLOOR).log() - y.clamp_min(FLOOR).log()).abs().mean())
    return total / len(sizes)


def si_snr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Energy of b along a over the energy of the rest, in dB, means removed: the same for any loudness of b (Le Roux et al., 2019).

    Between -100 (silence, say) and 100 (identical up to loudness).
    """
    a, b = a - a.mean(), b - b.mean()
    along = (a @ b) / (a @ a).clamp_min(1e-12) * a
    rest = b - along
    ratio = (along @ along) / (rest @ rest + 1e-10 * (b @ b)).clamp_min(1e-30)
    return float(10 * torch.log10(ratio.clamp_min(1e-10)))


def stoi(a: np.ndarray, b: np.ndarray, rate: int) -> float | None:
    """Short-time objective intelligibility, 0 to 1 (Taal et al., 2011); None below .4 s of sound. Raises SlmError without pystoi."""
    package = need("pystoi", "STOI")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # how it says that there is too little to judge
        try:
            return float(package.stoi(a, b, rate))
        except RuntimeWarning:
            return None


def pesq(a: np.ndarray, b: np.ndarray) -> float | None:
    """Wide-band PESQ at 16 kHz, 1 to 4.64 (ITU-T P.862.2); None where it hears no utterance. Raises SlmError without pesq."""
    package = need("pesq", "PESQ")
    if not a.any() or not b.any():  # it divides by the loudness of both
        return None
    found = float(package.pesq(16_000, a, b, "wb", on_error=package.PesqError.RETURN_VALUES))
    return found if found > 0 else None  # its error codes are negative


def installed(module: str) -> bool:
    """Whether an optional judge is there, without importing it."""
    from importlib.util import find_spec

    return find_spec(module) is not None


def _magnitude(x: torch.Tensor, size: int, hop: int) -> torch.Tensor:
    window = torch.hann_window(size)
    return torch.stft(x, size, hop, window=window, pad_mode="constant", return_complex=True).abs()
