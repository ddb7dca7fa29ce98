"""Whose voice is it? Cosine between utterance embeddings of an encoder that no system here was trained with.

The encoder is Resemblyzer's GE2E network (Wan et al., 2018). Real recordings of one speaker lie near .8 to .9, of two near .5.
N samples at 16 kHz, D embedding
"""

from collections.abc import Sequence

import numpy as np

from slm.evaluate.extra import need


class SpeakerEncoder:
    """Raises SlmError when Resemblyzer is not installed."""

    def __init__(self, device: str = "cpu"):
        self.package = need("resemblyzer", "the speaker encoder")
        self.model = self.package.VoiceEncoder(device, verbose=False)

    def embed(self, audio: np.ndarray) -> np.ndarray:
        """audio [N] -> [D] of length 1; zeros for digital silence, which is nobody's voice."""
        audio = np.clip(audio, -1, 1)
        if not audio.any():
            return np.zeros(256, np.float32)
        voiced = self.package.preprocess_wav(audio)
        return self.model.embed_utterance(voiced if len(voiced) else audio)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two embeddings [D] of length 1 (or 0: then 0)."""
    return float(a @ b)


def own_and_other(voice: np.ndarray, own: np.ndarray, others: Sequence[np.ndarray]) -> tuple[float, float | None]:
    """Similarity of an utterance to its own prompt, and the mean one to the prompts of other speakers (None without any)."""
    far = [similarity(voice, other) for other in others]
    return similarity(voice, own), float(np.mean(far)) if far else None


def floors(voices: Sequence[np.ndarray], speakers: Sequence[str]) -> tuple[float, float]:
    """Mean similarity over all pairs of utterances of one speaker, and over all pairs of two. Either is NaN when there is no such pair."""
    stack = np.stack(voices)                                     # [n,D]
    cosine, names = stack @ stack.T, np.array(speakers)
    upper = np.triu(np.ones_like(cosine, bool), 1)
    same = names[:, None] == names
    return tuple(float(cosine[kind & upper].mean()) if (kind & upper).any() else float("nan") for kind in (same, ~same))
