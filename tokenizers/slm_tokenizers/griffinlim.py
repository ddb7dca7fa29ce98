"""Log-mel back to audio without a model: Griffin and Lim, 1984, "Signal Estimation from Modified Short-Time Fourier Transform".

The baseline that any vocoder must beat. Deterministic: phases start at zero, and a row never depends on the rows beside it.

B batch, N samples, M mel bands, T frames, F frequency bins.
"""

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.nn.mel import LogMel, filterbank


@torch.no_grad()
def griffin_lim(mel: Tensor, config: LogMel.Config, steps: int = 32) -> Tensor:
    """Log-mel [B,M,T] as LogMel(config) makes it -> audio [B,1,T*hop]. SlmError on another number of bands, or a centred mel."""
    if mel.dim() != 3 or mel.shape[1] != config.n_mels:
        raise SlmError(f"mels have the shape {list(mel.shape)} but [B, {config.n_mels}, T] is needed")
    if config.center:
        raise SlmError("this mel has a frame more than hops (center=True); use one with center=False, whose frames are whole")
    # Row by row: a batch rounds otherwise, and the iteration makes much of it.
    return torch.cat([one(row, config, steps) for row in mel.split(1)])


def one(mel: Tensor, config: LogMel.Config, steps: int) -> Tensor:
    """[1,M,T] -> [1,1,T*hop]"""
    from torchaudio.functional import griffinlim

    # Frames repeated at both ends, so that the ends are as loud as the rest, and short signals long enough for the window.
    side = config.n_fft // config.hop + 1
    extended = torch.nn.functional.pad(mel.float(), (side, side), mode="replicate")
    window = torch.hann_window(config.win, device=mel.device)
    sound = griffinlim(
        magnitude(extended, config), window, config.n_fft, config.hop, config.win, power=1.0, n_iter=steps, momentum=0.99,
        length=None, rand_init=False,
    )  # fmt: skip
    # griffinlim centres frame t at t*hop, such a mel at t*hop + hop/2.
    first = side * config.hop - config.hop // 2
    return sound[:, None, first : first + mel.shape[-1] * config.hop]


def magnitude(mel: Tensor, config: LogMel.Config) -> Tensor:
    """Log-mel [B,M,T] -> the least magnitudes [B,F,T] with about these mels: the pseudo-inverse, never negative."""
    linear = mel.exp() if config.log == "ln" else torch.pow(10.0, mel)
    inverse = torch.linalg.pinv(filterbank(config)).to(mel.device)
    spectrum = (inverse @ linear).clamp(min=0)
    return spectrum if config.power == 1 else spectrum.sqrt()
