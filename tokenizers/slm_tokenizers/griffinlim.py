"""Log-mel back to audio without a model: Griffin and Lim, 1984, "Signal Estimation from Modified Short-Time Fourier Transform".

The baseline that any vocoder must beat, and of a true mel hard to beat. With the momentum of Perraudin et al., 2013. Deterministic: phases
start at zero, and a row never depends on the rows beside it.

B batch, N samples, M mel bands, T frames, F frequency bins, K samples that are known.
"""

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.nn.mel import LogMel, filterbank

MOMENTUM = 0.99


@torch.no_grad()
def griffin_lim(mel: Tensor, config: LogMel.Config, steps: int = 32, known: Tensor | None = None) -> Tensor:
    """Log-mel [B,M,T] as LogMel(config) makes it -> audio [B,1,T*hop]. SlmError on another number of bands, or a centred mel.

    known: audio [B,1,K], K <= T*hop, that it begins with: the phases of the rest go on from there (Beauregard et al., 2005).
    """
    if mel.dim() != 3 or mel.shape[1] != config.n_mels:
        raise SlmError(f"mels have the shape {list(mel.shape)} but [B, {config.n_mels}, T] is needed")
    if config.center:
        raise SlmError("this mel has a frame more than hops (center=True); use one with center=False, whose frames are whole")
    # Row by row: a batch rounds otherwise, and the iteration makes much of it.
    begins = [None] * len(mel) if known is None else known[:, 0]
    return torch.cat([one(row, config, steps, begin) for row, begin in zip(mel.split(1), begins)])


def one(mel: Tensor, config: LogMel.Config, steps: int, known: Tensor | None = None) -> Tensor:
    """[1,M,T], known [K] -> [1,1,T*hop]"""
    # Frames repeated at both ends, so that the ends are as loud as the rest, and short signals long enough for the window.
    side = config.n_fft // config.hop + 1
    wanted = magnitude(torch.nn.functional.pad(mel.float(), (side, side), mode="replicate"), config)[0]  # [F,T]
    window = torch.hann_window(config.win, device=mel.device)
    weights = overlapped(window.square()[:, None].expand(-1, wanted.shape[1]), config)
    # a mel's frame t is centred at t*hop + hop/2, here at t*hop
    first = side * config.hop - config.hop // 2
    spectrum, last = wanted.to(torch.complex64), None
    for _ in range(steps):
        sound = inverse(spectrum, config, window, weights)
        if known is not None:
            sound[first : first + len(known)] = known
        heard = torch.stft(sound, config.n_fft, config.hop, config.win, window, return_complex=True)
        moved = heard if last is None else heard + MOMENTUM * (heard - last)
        spectrum, last = wanted * torch.sgn(moved), heard
    sound = inverse(spectrum, config, window, weights)
    if known is not None and len(known):
        end, fade = first + len(known), min(config.hop, len(known))
        missed = (known - sound[first:end])[-fade:].flip(0)  # mirrored behind the border, so that there is no step
        sound[first:end] = known
        behind = sound[end : end + fade]
        behind += missed[: len(behind)] * torch.linspace(1, 0, fade, device=mel.device)[: len(behind)]
    return sound[None, None, first : first + mel.shape[-1] * config.hop]


def inverse(spectrum: Tensor, config: LogMel.Config, window: Tensor, weights: Tensor) -> Tensor:
    """Complex [F,T] -> audio [(T-1)*hop], as torch.istft, which works out the overlapping windows' `weights` each time."""
    side = (config.n_fft - config.win) // 2
    frames = torch.fft.irfft(spectrum, config.n_fft, dim=0)[side : side + config.win] * window[:, None]
    return overlapped(frames, config) / weights


def overlapped(frames: Tensor, config: LogMel.Config) -> Tensor:
    """Frames [win,T], a hop apart -> their sum [(T-1)*hop], from the middle of the first to that of the last."""
    size = (frames.shape[1] - 1) * config.hop
    whole = torch.nn.functional.fold(frames[None], (1, size + config.win), (1, config.win), stride=(1, config.hop))
    return whole[0, 0, 0, config.win // 2 :][:size]


def magnitude(mel: Tensor, config: LogMel.Config) -> Tensor:
    """Log-mel [B,M,T] -> the least magnitudes [B,F,T] with about these mels: the pseudo-inverse, never negative."""
    linear = mel.exp() if config.log == "ln" else torch.pow(10.0, mel)
    inverse = torch.linalg.pinv(filterbank(config)).to(mel.device)
    spectrum = (inverse @ linear).clamp(min=0)
    return spectrum if config.power == 1 else spectrum.sqrt()
