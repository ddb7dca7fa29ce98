"""What distances and judges make of a recording that went through a coder, and the mean of it over many.

Everything is heard at 16 kHz, whatever the coder works at, so that codecs of several rates can be compared: mel, STFT and STOI of
two rates are not the same measure. What a codec does above 8 kHz is not judged here.

N samples   V width of a voice
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from slm.data import audio as sound
from slm.evaluate.codec import codec_measures
from slm.evaluate.coders import Coder
from slm.evaluate.normalise import normalise
from slm.evaluate.pairs import JUDGED, as_judged
from slm.evaluate.report import Score, mean_score, ratio_score

if TYPE_CHECKING:
    from slm.evaluate.judge import Judges

MEANS = ("log-mel L1", "multi-STFT", "STOI", "PESQ", "SI-SNR dB", "similarity", "MOS")
RATIOS = {"WER %": ("errors", "words", 100.0), "kbit/s": ("bits", "seconds", 1e-3)}


def rebuild(coder: Coder, audio: Tensor, rate: int) -> tuple[np.ndarray, dict[str, float]]:
    """audio [1,N] at `rate` Hz -> what the coder makes of it, [N] at 16 kHz, and its distances from it, bits and seconds."""
    coded = coder.code(sound.resample(audio, rate, coder.rate))
    rebuilt = as_judged(coded.audio, coder.rate)
    distances = codec_measures(as_judged(audio, rate), rebuilt, JUDGED)
    return rebuilt, {"bits": coded.bits, "seconds": audio.shape[-1] / rate, **distances}


def opinion(judges: Judges, audio: np.ndarray, text: str | None, voice: np.ndarray | None) -> dict[str, float]:
    """audio [N] at 16 kHz -> errors and words where it has a text, similarity to `voice` [V] where there is one, and MOS."""
    from slm.evaluate.wer import count_errors

    found = {"MOS": judges.mos.predict(audio)}
    if voice is not None:
        found["similarity"] = float(judges.encoder.embed(audio) @ voice)
    if text and normalise(text):
        errors = count_errors(text, judges.recogniser.transcribe(audio))
        found |= {"errors": errors.total, "words": errors.words}
    return found


def scores(each: Sequence[dict], seed: int = 0) -> dict[str, Score]:
    """The figures of many recordings -> their means, and the ratios of their sums, each over those recordings that have it."""
    found = {}
    for name in MEANS:
        if values := [figures[name] for figures in each if name in figures]:
            found[name] = mean_score(name, values, seed)
    for name, (top, bottom, unit) in RATIOS.items():
        if there := [figures for figures in each if figures.get(bottom)]:
            found[name] = ratio_score(name, [unit * f[top] for f in there], [f[bottom] for f in there], seed)
    return found
