"""Read, resample and write one audio file.

Audio is a float32 tensor [C,N] (C channels, N samples, full scale is ±1) and travels with its rate in Hz. What `read` returns is mono,
[1,N]. Files go through soundfile (wav, flac, ogg, opus, mp3); resampling is always a call of its own.
"""

from math import gcd
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from slm.data.replacing import replacing
from slm.errors import SlmError

SYNTHETIC = "synthetic"  # the word by which a written file says that a machine spoke
MADE = f"{SYNTHETIC}: speech made by a machine"
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
FULL = 32767  # of 16 bits
WHOLE = 0.9  # share of the promised samples a file must hold: mp3 headers only estimate them
LARGEST_FILTER = 20_000_000  # taps of a polyphase filter: two rates with hardly a common divisor would need gigabytes


def read(
    path: str | Path, shortest: float = 0.1, channel: int | None = None, start: float = 0, seconds: float | None = None
) -> tuple[Tensor, int]:
    """One file -> (audio [1,N] float32, rate in Hz). Channels are averaged unless `channel` picks one; `start`, `seconds`: a part of it.

    SlmError if the file is missing, not audio, empty, shorter than `shortest` seconds, or holds NaN or infinite samples.
    """
    samples, rate = _samples(Path(path), start, seconds)  # [N,C]
    if len(samples) == 0:
        raise SlmError(f"{path} holds no audio samples.")
    if not np.isfinite(samples).all():
        raise SlmError(f"{path} holds samples that are NaN or infinite.")
    if len(samples) < shortest * rate:
        raise SlmError(f"{path} lasts {len(samples) / rate:.3f} s, but at least {shortest:g} s are needed.")
    if channel is not None and channel >= samples.shape[1]:
        raise SlmError(f"{path} has {samples.shape[1]} channels, so there is no channel {channel}.")
    audio = torch.from_numpy(np.ascontiguousarray(samples.T))  # [C,N]
    return (to_mono(audio) if channel is None else audio[channel : channel + 1]), rate


def _samples(path: Path, start: float, seconds: float | None) -> tuple[np.ndarray, int]:
    if path.is_dir():
        raise SlmError(f"{path} is a folder, not an audio file.")
    if not path.exists():
        raise SlmError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise SlmError(f"{path} is empty.")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if start:
                file.seek(min(round(start * rate), file.frames))
            wanted = file.frames - file.tell() if seconds is None else min(round(seconds * rate), file.frames - file.tell())
            samples = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError, OSError, MemoryError):  # TypeError: a headerless file such as .raw
        raise SlmError(f"{path} cannot be read as audio (wav, flac, ogg, opus or mp3).") from None
    if len(samples) < WHOLE * wanted:  # decoders stop quietly where an ogg or mp3 file was cut off
        raise SlmError(f"{path} is damaged: it ends after {len(samples) / rate:.2f} s of {wanted / rate:.2f} s.")
    return samples, rate


def to_mono(audio: Tensor) -> Tensor:
    """[..., C,N] -> [..., 1,N], the mean of the channels."""
    return audio if audio.shape[-2] == 1 else audio.mean(dim=-2, keepdim=True)


def narrow(audio: Tensor) -> np.ndarray:
    """Samples of any shape -> 16-bit ones to keep in memory, clipped; divided by FULL they are samples again."""
    return (audio.clamp(-1, 1) * FULL).round().to(torch.int16).numpy()


def resample(audio: Tensor, rate: int, to: int) -> Tensor:
    """[..., N] at `rate` Hz -> [..., ceil(N * to / rate)] at `to` Hz; the same tensor if the rates are equal."""
    if rate <= 0 or to <= 0:
        raise SlmError(f"Sample rates must be positive, not {rate} Hz and {to} Hz.")
    if rate == to:
        return audio
    from torchaudio.functional import resample as windowed_sinc

    common = gcd(rate, to)
    if (rate // common) * (to // common) > LARGEST_FILTER:
        raise SlmError(f"Audio at {rate} Hz cannot be resampled to {to} Hz: the two rates have almost no common divisor.")
    return windowed_sinc(audio, rate, to)


def level(audio: Tensor) -> float:
    """Root mean square in dB below full scale: speech is near -20, digital silence is -inf."""
    return float(20 * torch.log10(audio.double().square().mean().sqrt()))


def write(path: str | Path, audio: Tensor, rate: int, comment: str = "") -> None:
    """Write mono audio ([N], [1,N] or [1,1,N]) as 16-bit wav or flac, or as ogg. All of the file appears, or none of it.

    `comment` goes to the file's metadata: pass SYNTHETIC, or a sentence with that word, for generated speech.
    SlmError if the suffix is unknown, the folder is missing, or the audio is empty, not mono or not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise SlmError(f"{path} must end in {', '.join(FORMATS)} to be written as audio.")
    if not path.parent.is_dir():
        raise SlmError(f"There is no folder {path.parent} to write {path.name} into.")
    samples = audio.detach().float().cpu().squeeze()
    if samples.dim() != 1 or len(samples) == 0:
        raise SlmError(f"{path} cannot be written: audio must be mono with at least two samples, not of shape {list(audio.shape)}.")
    if not bool(samples.isfinite().all()):
        raise SlmError(f"{path} cannot be written: the audio holds NaN or infinite samples.")
    container, encoding = FORMATS[path.suffix.lower()]
    with replacing(path) as temporary:
        with soundfile.SoundFile(temporary, "w", rate, 1, encoding, format=container) as file:
            if comment:
                file.comment = comment  # metadata goes before the samples, or libsndfile drops it
            file.software = "slm"
            file.write(samples.numpy())  # 16-bit formats clip


def comment(path: str | Path) -> str:
    """The comment in a file's metadata, empty if there is none."""
    try:
        with soundfile.SoundFile(path) as file:
            return file.comment
    except (soundfile.SoundFileError, TypeError, OSError):
        raise SlmError(f"{path} cannot be read as audio (wav, flac, ogg, opus or mp3).") from None
