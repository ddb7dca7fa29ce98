"""When each phone of a recording is said, by a small network that is kept: audio and its text in, phones and their frames out.

    N samples   T = ceil(N / hop) frames   M features a frame (two mel frames)   C classes (phones without stress, pause first)   L phones

`slm align` learns one on the corpora that it aligns (slm/data/aligning.py) and finds for a recording of them what it wrote in their
phones.jsonl. A recording heard later is aligned in the same way: the classes' scores, less half their log prior, and the best path
through them (align.py). It knows nothing of who speaks; a text that is not what is said gets times all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.mono import check_audio
from slm_tokenizers.semantic.features import Frames, check
from slm_tokenizers.text.align import CLASSES, FrameClassifier, Phone, align, states
from slm_tokenizers.text.phonemes import IDS, Phonemes

RATE, HOP = 16000, 320


class Aligner(nn.Module):
    """`align(audio, text)` says when each phone is said, `encode(audio)` what each frame sounds like without a text.

    Its only layer, number 0, is what it tells phones from: a source of Units (recipes/represent/phonetic.py).
    """

    rate, hop, n_q, card, depth = RATE, HOP, 1, len(CLASSES), 0
    prior: Tensor  # [C] logs of the classes' shares, of double precision as they were counted

    @dataclass
    class Config:
        bands: int = 60
        width: int = 256

        def build(self) -> "Aligner":
            return Aligner(self)

    def __init__(self, config: "Aligner.Config") -> None:
        super().__init__()
        for name in ("bands", "width"):
            if getattr(config, name) < 1:
                raise SlmError(f"Aligner: {name} = {getattr(config, name)} must be at least 1")
        self.config, self.dim = config, config.width
        self.classifier = FrameClassifier(2 * config.bands, config.width).eval()
        self.register_buffer("prior", torch.zeros(self.card, dtype=torch.double))

    def phones(self, features: Tensor, words: list[tuple[str, list[str]]]) -> list[Phone]:
        """features [T,M] as of `features`, words as of Phonemes -> the phones with their frames, which sum to T."""
        return align(self.classifier, features, words, self.prior.numpy())

    def align(self, audio: Tensor, text: str) -> tuple[Tensor, Tensor]:
        """audio [1,N] at 16 kHz, what is said there -> ids [L] of Phonemes, and frames [L] that sum to T.

        Pauses are where they are heard and not where the text has its marks. SlmError: no audio of one channel, a text with nothing to
        speak, or audio with no more frames than the text has phones.
        """
        check_audio(audio[None])
        words, (heard, _) = Phonemes().words(text), features(audio[0], self.config.bands)
        if not fits(words, len(heard)):
            spoken, seconds = int((~states(words)[1]).sum()), audio.shape[-1] / RATE
            raise SlmError(f"{seconds:.2f} s of audio cannot hold the {spoken} phones of {text[:40]!r}; is that what is said there?")
        found = self.phones(heard, words)
        return torch.tensor([IDS[phone.symbol] for phone in found]), torch.tensor([phone.frames for phone in found])

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] at 16 kHz -> the likeliest class of each frame [B,1,T] long"""
        check_audio(audio)
        return torch.stack([self.classifier(features(row[0], self.config.bands)[0].float()[None]).argmax(-1) for row in audio])

    @torch.no_grad()
    def layer(self, audio: Tensor, lengths: Tensor, index: int = 0) -> Frames:
        """audio [B,1,N], lengths [B] -> [B,T,width], T = ceil(N / hop). SlmError for another layer."""
        if index != 0:
            raise SlmError(f"layer {index} is asked for but an aligner has layer 0 only")
        check(audio, lengths, 1)
        heard = [features(row[0, :n], self.config.bands)[0].float() for row, n in zip(audio, lengths.tolist())]
        rows = [self.classifier.hidden(frames[None])[0] for frames in heard]
        return Frames(nn.utils.rnn.pad_sequence(rows, batch_first=True), -(-lengths // HOP))


def fits(words: list[tuple[str, list[str]]], frames: int) -> bool:
    """Whether there are more frames than phones that must be said."""
    return int((~states(words)[1]).sum()) < frames


def features(samples: Tensor, bands: int = 60) -> tuple[Tensor, Tensor]:
    """samples [N] at 16 kHz -> mean-free log-mel [T,M] of half precision, and which frames are not silent [T]."""
    frames = -(-len(samples) // HOP)
    mel = torch.log(_mel(bands)(F.pad(samples, (0, frames * HOP - len(samples))))[:, : 2 * frames] + 1e-3)
    energy = mel.mean(0).reshape(frames, 2).mean(1)
    loud = energy > torch.quantile(energy, 0.98) - 3.2
    return (mel - mel.mean(1, keepdim=True)).t().reshape(frames, -1).half(), loud


@cache
def _mel(bands: int) -> Any:
    import torchaudio

    return torchaudio.transforms.MelSpectrogram(RATE, n_fft=640, hop_length=HOP // 2, n_mels=bands, power=1.0)
