"""What a study measures of a voice that is changed: units of one recording, said in the voice of another.

Q levels   T frames   U units   P prompt frames   n recordings
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.data.spoken import told
from slm.study.figures import Figure, mean
from slm.study.heldout import Item
from slm.study.spoken import nats, others, unit_errors

PROMPT, LONGEST = 150, 250  # frames of the prompt, and of what is said after it
RATE = 50  # frames a second
Clip = dict[str, Tensor]


def measure(folder: Path, items: list[Item], seed: int, voices: int = 40) -> dict[str, Figure]:
    """A run with the stage codes says the units of one held-out recording in the voice of another's, of another speaker -> figures.

    Cosines of voices are between what was made and recordings that went through the same levels of the codec, so that only the voice
    differs; the target is heard behind its prompt. Needs the speaker encoder of slm[evaluate].
    """
    from slm.model import load

    model = load(folder)
    stage, tokenizers = model.stages["codes"], model.tokenizers
    with torch.inference_mode():
        clips = [{name: tokenizers[name].encode(item.audio[None])[0] for name in ("units", "acoustic")} for item in items]
    long = [i for i, clip in enumerate(clips) if clip["acoustic"].shape[1] >= PROMPT + RATE][:voices]  # a second behind the prompt at least
    clips, speakers = [cut(clips[i], stage) for i in long], [items[i].speaker for i in long]
    target = others(speakers)
    seeds = [seed * 1000 + i for i in range(len(clips))]
    return likelihoods(stage, clips, target) | compared(lambda to: converted(stage, clips, to, seeds), clips, target, tokenizers)


def cut(clip: Clip, stage: Any) -> Clip:
    """At most PROMPT + LONGEST frames of a clip: units [U], the levels that the stage says [Q,T]."""
    units, codes = clip["units"][0], clip["acoustic"][slice(*stage.parts[-1].levels)]
    frames = min(len(units), codes.shape[1], PROMPT + LONGEST)
    return {"units": units[:frames], "acoustic": codes[:, :frames]}


@torch.inference_mode()
def converted(stage: Any, sources: list[Clip], targets: list[Clip], seeds: list[int]) -> list[Tensor]:
    """What the sources say behind their prompts, in the voices of the targets' prompts -> codes [Q,T] of it."""
    return [codes[:, PROMPT:] for codes in stage.run(behind(sources, targets), seeds)["acoustic"]]


def behind(sources: list[Clip], targets: list[Clip]) -> dict[str, list[Tensor]]:
    """What a stage is given: the sources' units behind the targets' prompts."""
    units = [torch.cat([to["units"][:PROMPT], of["units"][PROMPT:]]) for of, to in zip(sources, targets)]
    return {"units": units, "acoustic_begins": [to["acoustic"][:, :PROMPT] for to in targets]}


def likelihoods(stage: Any, clips: list[Clip], target: list[int]) -> dict[str, Figure]:
    """Nats a code, beside the recording's own units and beside another's."""
    frames = [min(len(clips[i]["units"]), len(clips[k]["units"])) for i, k in enumerate(target)]
    own = [{name: codes[..., :n] for name, codes in clip.items()} for clip, n in zip(clips, frames)]
    mixed = [row | {"units": clips[k]["units"][:n]} for row, k, n in zip(own, target, frames)]
    return {"nats": nats(stage, own, "acoustic"), "nats, another's units": nats(stage, mixed, "acoustic")}


@torch.inference_mode()
def compared(
    say: Callable[[list[Clip]], list[Tensor]], clips: list[Clip], target: list[int], tokenizers: dict[str, Any]
) -> dict[str, Figure]:
    """Whose voice is it, and whose units are said?

    say: whose prompts the clips are to be said behind -> codes [Q,T] of each. "Behind its own prompt" is what the model makes of a clip
    that is not changed, so that the prompt alone differs.
    """
    from slm.evaluate.speaker import SpeakerEncoder, similarity

    codec, encoder = tokenizers["acoustic"], SpeakerEncoder()
    after = [clip["acoustic"][:, PROMPT:] for clip in clips]
    rows = (say([clips[k] for k in target]), say(clips), after)
    sounds, same, plain = ([codec.decode(codes[None])[0, 0] for codes in of] for of in rows)
    said, kept, known = ([encoder.embed(sound.numpy()) for sound in of] for of in (sounds, same, plain))
    again = [told(tokenizers["units"].encode(sound[None, None])[0], True) for sound in sounds]
    units = [told(clip["units"][None, PROMPT:], True) for clip in clips]
    return {
        "voice: to the target": mean([similarity(said[i], known[k]) for i, k in enumerate(target)]),
        "voice: to the target, behind its own prompt": mean([similarity(kept[i], known[k]) for i, k in enumerate(target)]),
        "voice: to the source": mean([similarity(voice, own) for voice, own in zip(said, known)]),
        "voice: source to target": mean([similarity(known[i], known[k]) for i, k in enumerate(target)]),
        "content: source's units": unit_errors(list(zip(units, again))),
        "content: another's units": unit_errors([(units[k], again[i]) for i, k in enumerate(target)]),
    }
