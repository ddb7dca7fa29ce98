"""The default voice's way to say a piece: durations first, then the first level frame by frame, then all levels, in stretches.

    T frames   Q levels   E latent width   N samples

How long everything lasts is known before the first frame is said, so nothing can be skipped, repeated or endless, and where stretches end
is known too. One sounds as soon as its frames have first levels, and a few more: the finer levels of a stretch hear AHEAD frames that come
later and BEHIND that came before, which changes them by 4 % of what they are, and those of the first stretch BRIEF frames of the prompt
instead of three seconds, which is 5 %. The samples are the same, streamed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from slm.model import Model
from slm.prompt import Prompt, clip, latents
from slm.sounding import Sounding
from slm.stage.say import Progress, as_codes
from slm.stream.sample import settings

LEAD, TAIL = 8, 14  # frames of silence kept at a piece's ends
STRETCHES = (25, 90, 240)  # frames of the first, the second, each further stretch: soon to be heard, ready before the last is over, cheap
LEAST = 20  # frames of the last one: what is hardly longer than the first is said whole, and again if nothing is to be heard of it
AHEAD, BEHIND = 6, 20
BRIEF = 60  # frames of the prompt beside which the first stretch's finer levels are said, which is what a listener waits for


class Guided:
    """Stages: semantic (durations, first level), acoustic (all levels)."""

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text, self.speaks = model.tokenizers[model.recipe.speaks], model.tokenizers["text"], model.recipe.speaks
        self.semantic, self.acoustic = model.stages["semantic"], model.stages["acoustic"]
        self.settings = {"sampling": settings(self.semantic.config.sampling), "pace": self.semantic.config.pace}
        self.settings |= self.acoustic.settings | {"stretches": list(STRETCHES), "ahead": AHEAD, "behind": BEHIND, "brief": BRIEF}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        return Prompt(clip(self.codec, audio, rate, name), text=text)

    def say(self, text: str, prompt: Prompt, seed: int) -> tuple[Tensor, str]:
        said = list(self.flow(text, prompt, seed))
        return torch.cat([audio for audio, _ in said]), said[-1][1] or "end"

    def flow(self, text: str, prompt: Prompt, seed: int) -> Iterator[tuple[Tensor, str | None]]:
        """-> audio [N] of each stretch; with the last, why it ended."""
        batch: dict[str, Any] = {"text": [self.text.encode(text)], "prompt": [latents(self.codec, prompt)]}
        sounding, edges = None, []
        for now in self.semantic.saying(batch, [seed]):
            if now.part.name != "semantic":
                continue
            frames, said = now.rows[0].frames, len(now.rows[0].said[0])
            if sounding is None:
                lead, tail = (int(batch["duration"][0][i]) for i in (0, -1))
                start, stop = max(0, lead - LEAD), frames - max(0, tail - TAIL)
                edges = stretches(start, stop) if hasattr(self.codec, "receptive_field") else [start, stop]
                sounding, beside = Sounding(self.codec), prompt.codes if len(edges) == 2 else brief(prompt.codes)
            while len(edges) > 1 and said >= min(frames, edges[1] + AHEAD):
                start, stop = edges[0], edges[1]
                edges = edges[1:]
                low, high = max(0, start - BEHIND), min(frames, stop + AHEAD)
                fine, beside = self._fine(batch, now, low, high, beside, seed), prompt.codes
                yield sounding.sound(fine[:, start - low :], stop - start), "end" if len(edges) == 1 else None
            if len(edges) == 1:
                return

    def _fine(self, batch: dict, now: Progress, low: int, high: int, prompt: Tensor, seed: int) -> Tensor:
        """Frames low .. high of what was said, beside the prompt [Q,P] -> their latents [E,T], all levels."""
        first = as_codes(self.semantic, now.part, [now.rows[0].said[0][low:high]])
        given = {name: batch[name] for name in ("text", "duration")} | {"given": [first], "prompt_codes": [prompt]}
        if now.chances[0]:
            given["given_chances"] = [torch.stack(now.chances[0][low:high])]
        done = self.acoustic.run(given, [seed + low], at=low)
        return done["latent"][0].T if "latent" in done else self.codec.codebooks.decode(done[self.speaks][0][None])[0]


def brief(prompt: Tensor) -> Tensor:
    """prompt [Q,P] -> the BRIEF frames in its middle, or all it has"""
    return prompt[:, max(0, prompt.shape[1] - BRIEF) // 2 :][:, :BRIEF]


def stretches(start: int, stop: int) -> list[int]:
    """Where the stretches of frames start .. stop begin, and where the last ends; none leaves less than half of its size, or LEAST."""
    edges, sizes = [start], list(STRETCHES)
    while edges[-1] < stop:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        end = edges[-1] + size
        edges.append(stop if stop - end < max(LEAST, size // 2) else end)
    return edges
