"""Speech as one picture: its waveform, and under it, on the same seconds, its spectrogram.

    N samples   C columns of the picture   F frequency bins
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDEST = 1600  # columns: more than the pixels that a page gives the picture
WINDOW = 0.025  # seconds heard by one column of the spectrogram
FLOOR = -80.0  # dB below the loudest point, where the spectrogram ends
INK = "#4f46e5"


def envelope(audio: Tensor) -> tuple[Tensor, Tensor]:
    """audio [N] -> the lowest and the highest sample of each of its C <= WIDEST columns, so that no peak is lost however long it is."""
    size = -(-len(audio) // WIDEST)
    missing = -len(audio) % size
    columns = torch.cat([audio, audio[-1:].expand(missing)]).view(-1, size)
    return columns.amin(1), columns.amax(1)


def spectrogram(audio: Tensor, rate: int) -> Tensor:
    """audio [N] -> [F,C] in dB below its loudest point, within FLOOR and 0; the rows run from 0 Hz to rate / 2."""
    size = 2 ** round(WINDOW * rate).bit_length()
    hop = max(size // 8, -(-len(audio) // WIDEST))
    window = torch.hann_window(round(WINDOW * rate))
    waves = torch.stft(audio.float(), size, hop, len(window), window, pad_mode="constant", return_complex=True)
    power = waves.abs().square()
    return (10 * torch.log10(power / power.max().clamp(min=1e-20) + 1e-20)).clamp(min=FLOOR)


def draw(audio: Tensor, rate: int) -> Figure:
    """audio [N] at `rate` Hz -> a matplotlib figure, made without pyplot because pages are served from threads."""
    from matplotlib.figure import Figure

    audio = audio.detach().float().cpu()
    seconds = len(audio) / rate
    figure = Figure(figsize=(7.2, 4.8), dpi=160, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    wave, spectrum = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    low, high = envelope(audio)
    wave.fill_between(torch.linspace(0, seconds, len(low)).numpy(), low.numpy(), high.numpy(), color=INK, linewidth=0.6)
    reach = max(0.1, 1.1 * float(audio.abs().max()))
    wave.set(ylabel="amplitude", ylim=(-reach, reach))
    wave.grid(alpha=0.25)
    image = spectrum.imshow(
        spectrogram(audio, rate).numpy(), origin="lower", aspect="auto", cmap="magma", vmin=FLOOR, vmax=0, extent=(0, seconds, 0, rate / 2)
    )
    spectrum.set(xlabel="time (s)", ylabel="frequency (Hz)", xlim=(0, seconds))
    figure.colorbar(image, ax=spectrum, label="level (dB)", pad=0.01)
    return figure


def save(path: str | Path, audio: Tensor, rate: int) -> None:
    """The picture of audio [N] as a PNG file."""
    draw(audio, rate).savefig(path, format="png")
