"""What a study measures of a vocoder of units: words, durations, whose voice, how high, and how far from the recording.

n recordings   Q levels   T frames of 20 ms   S units without repetitions   N samples at 16 kHz
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.errors import SlmError
from slm.study.figures import Figure, mean, ratio
from slm.study.hard import capped
from slm.study.heldout import HOP, Item, following
from slm.study.spoken import others
from slm.study.tortoise import evenly

SHORTEST, LONGEST = 2.0, 8.0  # seconds of a recording; longer ones cost the recogniser more than they tell
HIGHER = 1.2  # times the recording's own pitch
LEAST = 10  # frames with a pitch in both, below which a correlation is taken as none


@dataclass
class Row:
    """A recording as a vocoder is told it, as far as audio, codes and pitch all reach."""

    speaker: str
    text: str
    audio: Tensor  # [1,N]
    codes: Tensor  # [Q,T]
    hertz: Tensor  # [T], 0 where there is no voice


def measure(folder: Path, items: list[Item], seed: int, units: dict[int, Any], count: int = 40) -> dict[str, Figure]:
    """The vocoder of a run makes `count` held-out recordings again -> figures, an item a recording; of pitch, voice and durations only
    where it was taught them.

    units: the tokenizer, as a recipe names it, of a vocoder by how many units that knows. Needs slm[evaluate].
    """
    from slm.evaluate.speaker import SpeakerEncoder
    from slm.evaluate.transcribe import Recogniser
    from slm.recipe import Recipe
    from slm.train.run import tokenizers
    from slm_vocoders import load

    vocoder = load(folder / "vocoder")
    tokenizer = tokenizers(Recipe({"units": units[vocoder.config.codes.card]}))["units"]
    fit = [item for item in items if item.text and SHORTEST <= item.audio.shape[-1] / tokenizer.rate <= LONGEST]
    rows = [read(item, tokenizer, vocoder.config.codes.n_q) for item in evenly(fit, count)]
    made = again(vocoder, rows)
    found = distances(rows, made, tokenizer) | words(rows, made, Recogniser("base").transcribe)
    if vocoder.durations is not None:
        found |= lasted(vocoder, rows)
    if vocoder.speaker is not None:
        found |= voices(vocoder, rows, SpeakerEncoder().embed)
    return found | heights(vocoder, rows, made)


@torch.inference_mode()
def read(item: Item, tokenizer: Any, levels: int) -> Row:
    codes, hertz = tokenizer.encode(item.audio[None])[0, :levels], tracked(item.audio)
    frames = min(item.audio.shape[-1] // HOP, codes.shape[1], len(hertz))
    return Row(item.speaker, item.text, item.audio[:, : frames * HOP], codes[:, :frames], hertz[:frames])


def tracked(audio: Tensor) -> Tensor:
    """audio [1,N] -> Hz [T], as the training data's pitch is tracked"""
    from slm.data.audio import resample
    from slm.data.prosody import Tracker

    return Tracker().encode(resample(audio, 16000, Tracker.rate)[None])[0, 0] / 10


def say(vocoder: Any, row: Row, voice: Row, hertz: Tensor | None = None) -> Tensor:
    """A row's units in the voice of another -> audio [1,N]; at its own height, or `hertz` [T]."""
    asked = (row.hertz if hertz is None else hertz) if vocoder.pitch is not None else None
    return vocoder.sound(row.codes, voice.audio if vocoder.speaker is not None else None, asked)


def again(vocoder: Any, rows: list[Row]) -> list[Tensor]:
    """Every row in its own voice, heard in another recording of the speaker where there is one."""
    own = [following(len(rows), i, lambda j, row=row: rows[j].speaker == row.speaker) for i, row in enumerate(rows)]
    return [say(vocoder, row, rows[k]) for row, k in zip(rows, own)]


@torch.inference_mode()
def distances(rows: list[Row], made: list[Tensor], tokenizer: Any) -> dict[str, Figure]:
    """Log-mel L1 to the recording: of the vocoder, and of the codec's own decoder on the same levels, if units are a codec's."""
    from slm.evaluate.codec import log_mel_l1

    sounds = {"mel distance": made}
    if hasattr(tokenizer, "decode"):
        sounds["mel distance, codec"] = [tokenizer.decode(row.codes[None])[0] for row in rows]
    return {
        name: mean(np.array([log_mel_l1(row.audio[0], one[0], tokenizer.rate) for row, one in zip(rows, audio)]))
        for name, audio in sounds.items()
    }


def words(rows: list[Row], made: list[Tensor], transcribe: Callable[[np.ndarray], str]) -> dict[str, Figure]:
    """Word errors of what the units became, beside another's words and the recording itself. None counts for more than all of its words."""
    from slm.evaluate.wer import count_errors

    heard = [transcribe(sound[0].numpy()) for sound in made]
    plain = [transcribe(row.audio[0].numpy()) for row in rows]
    texts = [row.text for row in rows]
    turned = [texts[k] for k in others([row.speaker for row in rows])]

    def errors(said: list[str], known: list[str]) -> Figure:
        return capped([count_errors(text, one) for text, one in zip(known, said)])

    return {
        "word errors": errors(heard, texts),
        "word errors, another's words": errors(heard, turned),
        "word errors, recording": errors(plain, texts),
    }


@torch.inference_mode()
def lasted(vocoder: Any, rows: list[Row]) -> dict[str, Figure]:
    """How far the duration of each unit is from what was said, in frames and as it is learned: squared, in ln(frames + 1).

    Beside both the best that one number for all units can do: their mean, which keeps how long the whole takes, in whole frames; their
    median, which is the nearest but may rush; and in logarithms the mean of those. All three are those of the held-out units themselves.
    """
    from slm_tokenizers.semantic.runs import collapse

    told = [collapse(row.codes[0]) for row in rows]
    runs = [own for _, own in told]
    logs = [(own + 1.0).log() for own in runs]
    every, counts = torch.cat(runs), np.array([len(own) for own in runs], float)
    frames = {
        "durations: error": [vocoder.lasting(units) for units, _ in told],
        "durations: error, their mean": [every.double().mean().round()] * len(rows),
        "durations: error, their median": [every.median()] * len(rows),
    }
    learned = {
        "durations: squared": [vocoder.durations(units[None])[0] for units, _ in told],
        "durations: squared, their mean": [torch.cat(logs).mean()] * len(rows),
    }
    gaps = {name: [(one - own).abs().sum() for one, own in zip(said, runs)] for name, said in frames.items()}
    gaps |= {name: [(one - own).square().sum() for one, own in zip(said, logs)] for name, said in learned.items()}
    return {name: ratio(np.array([float(gap) for gap in rows]), counts) for name, rows in gaps.items()}


def voices(vocoder: Any, rows: list[Row], embed: Callable[[np.ndarray], np.ndarray]) -> dict[str, Figure]:
    """Cosines to a voice that is given to another's units, at the height of that voice: of what is said, beside two controls.

    These are what is said of the same units, at the same height, in the voice of a third; and the recording that the units are of.
    SlmError for fewer than three speakers.
    """
    from slm.evaluate.speaker import similarity

    speakers = [row.speaker for row in rows]
    if len(set(speakers)) < 3:
        raise SlmError(f"a voice is measured beside two others, and the {len(rows)} recordings are of {len(set(speakers))} speakers")
    known = [embed(row.audio[0].numpy()) for row in rows]
    given = others(speakers)
    third = [following(len(rows), k, lambda j, own=(speakers[i], speakers[k]): speakers[j] not in own) for i, k in enumerate(given)]
    height = [row_at(rows[i].hertz, rows[k].hertz) for i, k in enumerate(given)]
    said, turned = ([embed(say(vocoder, rows[i], rows[k], height[i])[0].numpy()) for i, k in enumerate(voice)] for voice in (given, third))
    return {
        "voice: to the given": mean(np.array([similarity(one, known[k]) for one, k in zip(said, given)])),
        "voice: had it been a third's": mean(np.array([similarity(one, known[k]) for one, k in zip(turned, given)])),
        "voice: the source's": mean(np.array([similarity(known[i], known[k]) for i, k in enumerate(given)])),
    }


def row_at(hertz: Tensor, like: Tensor) -> Tensor:
    """A contour [T], moved so that its mean height is that of another [T']."""
    if not ((hertz > 0).any() and (like > 0).any()):
        return hertz
    return hertz * (like[like > 0].log().mean() - hertz[hertz > 0].log().mean()).exp()


def heights(vocoder: Any, rows: list[Row], made: list[Tensor]) -> dict[str, Figure]:
    """How the pitch of what was made goes with the recording's; where pitch can be asked for, also when asked for a higher one.

    Errors are medians of |ln ratio| over the frames that have a pitch in both, since a tracker may be an octave off.
    """
    found = {"pitch: correlation": mean(np.array([correlation(tracked(one), row.hertz) for one, row in zip(made, rows)]))}
    if vocoder.pitch is None:
        return found
    asked = [row.hertz * HIGHER for row in rows]
    high = [tracked(say(vocoder, row, row, hertz)) for row, hertz in zip(rows, asked)]
    found["pitch: correlation, asked higher"] = mean(np.array([correlation(one, hertz) for one, hertz in zip(high, asked)]))
    found["pitch: error, asked higher"] = mean(np.array([gap(one, hertz) for one, hertz in zip(high, asked)]))
    found["pitch: error, had it stayed"] = mean(np.array([gap(one, row.hertz) for one, row in zip(high, rows)]))
    return found


def both(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Hz [T] twice (a frame more or less) -> their logarithms where both have a pitch"""
    frames = min(len(a), len(b))
    a, b = a[:frames].double(), b[:frames].double()
    voiced = (a > 0) & (b > 0)
    return a[voiced].log().numpy(), b[voiced].log().numpy()


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of log pitch; 0 where fewer than LEAST frames have one in both, or one of them never moves."""
    x, y = both(a, b)
    if len(x) < LEAST or x.std() < 1e-6 or y.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def gap(a: Tensor, b: Tensor) -> float:
    """Median of |ln a - ln b| where both have a pitch; an octave where they never do."""
    x, y = both(a, b)
    return float(np.median(np.abs(x - y))) if len(x) else float(np.log(2))
