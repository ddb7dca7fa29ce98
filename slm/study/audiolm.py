"""What a study measures of AudioLM's three stages: likelihoods beside their floors, and how a voice goes on.

Q levels   T frames   U units   n items
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.spoken import Spoken, crop, told
from slm.errors import SlmError
from slm.study.figures import Figure, mean
from slm.study.heldout import Item
from slm.study.spoken import Bigram, counted, nats, others, share

PROMPT, LONGER = 3.0, 3.0  # seconds heard, and said
SHORTEST = 0.5
RATE = 50  # units and frames of codes a second
STORY = 2.0  # seconds that a recording lasts at least of which a half goes on
PAIRS = 300


def measure(folder: Path, items: list[Item], seed: int, data: dict[str, Spoken], voices: int = 40) -> dict[str, Figure]:
    """folder: a run with the stages semantic, coarse and fine. data: of each stage, whose training rows are what floors count.

    Words and sentences are measured where flite is installed. Needs the speaker encoder of slm[evaluate].
    """
    from slm.model import load

    model = load(folder)
    tokenizers, stages = model.tokenizers, model.stages
    with torch.inference_mode():
        clips = [{name: tokenizers[name].encode(item.audio[None])[0] for name in ("units", "acoustic")} for item in items]
    found = likelihoods(stages, tokenizers, clips, data)
    found |= knowledge(stages["semantic"], tokenizers["units"], clips, items, seed)
    return found | continuations(stages, tokenizers, clips, items, seed, voices)


def likelihoods(stages: dict, tokenizers: dict, clips: list[dict[str, Tensor]], data: dict[str, Spoken]) -> dict[str, Figure]:
    """Nats an id of each stage, of counted pairs, and of the coarse stage when it is told another recording's units."""
    found = {}
    for stage, part in (("semantic", "units"), ("coarse", "coarse"), ("fine", "fine")):
        config, lm = data[stage], stages[stage]
        rates = {name: float(RATE) for name in config.streams}
        rows = [crop(config, clip, rates, 0.0, min(config.seconds, clip["acoustic"].shape[1] / RATE)) for clip in clips]
        rows = [{p.name: row[p.name] for p in lm.parts} for row in rows]
        found[f"{stage}: nats"] = nats(lm, rows, part)
        heard = config.build(tokenizers)
        seen = [row for step in range(400) for row in heard.at(step)[part]]
        levels = 1 if part == "units" else len(rows[0][part])
        found[f"{stage}: nats, bigram"] = counted(Bigram(seen, lm.streams[part].card, levels), [row[part] for row in rows])
        if stage == "coarse":
            mixed = [row | {"units": as_many(rows[(i + 7) % len(rows)]["units"], len(row["units"]))} for i, row in enumerate(rows)]
            found["coarse: nats, other units"] = nats(lm, mixed, part)
    return found


def as_many(units: Tensor, count: int) -> Tensor:
    """units [U] -> [count], from the beginning again where they are fewer"""
    return units[torch.arange(count) % len(units)]


def knowledge(lm: Any, units: Any, clips: list[dict[str, Tensor]], items: list[Item], seed: int) -> dict[str, Figure]:
    """How often the right one of a pair is the likelier."""
    from slm.data import flite
    from slm.evaluate import spoken_lm

    def surprise(row: Tensor) -> float:
        return nats(lm, [{"units": row}], "units").value

    def heard(what: list[str] | str) -> Tensor:
        said = flite.say(what) if isinstance(what, str) else flite.say_phones(["sil", *what, "sil"])
        return units.encode(said.audio[None])[0, 0]

    rows = [clip["units"][0] for clip in clips]
    pairs = {"stories": spoken_lm.stories(rows, [item.speaker for item in items], seed, least=round(STORY * RATE))}
    if flite.present():
        known = sorted({word for item in items for word in item.text.lower().split()})
        with torch.inference_mode():
            for name, made in (("words", spoken_lm.words(known, PAIRS, seed)), ("sentences", spoken_lm.sentences(200, seed))):
                pairs[name] = [(heard(pair.right), heard(pair.wrong)) for pair in made]
    found = {}
    for name, told_pairs in pairs.items():
        right = spoken_lm.told_apart(told_pairs, surprise)
        found |= {name: mean(right), f"{name}, by chance": mean(np.full(len(right), 0.5))}
    return found


def continuations(stages: dict, tokenizers: dict, clips: list, items: list[Item], seed: int, voices: int) -> dict[str, Figure]:
    """Of recordings that last long enough: is what follows in the prompt's voice, and does it say the units that it was to say?

    A continuation of less than SHORTEST seconds has no voice; `goes on` is the share of the others, on which the rest is measured.
    Units are compared without their repetitions; edits are counted over the longer of both rows, so that none weighs more than 1.
    """
    from slm.evaluate.speaker import SpeakerEncoder, similarity

    frames = round(PROMPT * RATE)
    chosen = [i for i, clip in enumerate(clips) if clip["acoustic"].shape[1] >= frames + RATE][:voices]
    said = go_on(stages, [clips[i] for i in chosen], seed)
    long = [codes.shape[1] - frames >= SHORTEST * RATE for _, codes in said]
    if not any(long):
        raise SlmError(f"of {len(said)} prompts none was gone on from for {SHORTEST} s; the stages have learned too little")
    chosen, said = [i for i, enough in zip(chosen, long) if enough], [one for one, enough in zip(said, long) if enough]
    codec, encoder = tokenizers["acoustic"], SpeakerEncoder()
    with torch.inference_mode():
        sounds = [codec.decode(codes[None, :, frames:])[0, 0] for _, codes in said]
        prompts = [encoder.embed(codec.decode(clips[i]["acoustic"][None, : said[0][1].shape[0], :frames])[0, 0].numpy()) for i in chosen]
        again = [told(tokenizers["units"].encode(sound[None, None])[0], True) for sound in sounds]
    wanted = [told(units[None], True) for units, _ in said]
    made = [encoder.embed(sound.numpy()) for sound in sounds]
    other = others([items[i].speaker for i in chosen])
    return {
        "goes on": mean(np.array(long, float)),
        "voice: own prompt": mean([similarity(made[j], prompts[j]) for j in range(len(chosen))]),
        "voice: another's prompt": mean([similarity(made[j], prompts[k]) for j, k in enumerate(other)]),
        "content: own units": mean(np.array([share(units, heard) for units, heard in zip(wanted, again)])),
        "content: another's units": mean(np.array([share(wanted[k], again[j]) for j, k in enumerate(other)])),
    }


def go_on(stages: dict, clips: list[dict[str, Tensor]], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Prompts -> the units [U] that were said after them, and codes [Q,T] of prompt and continuation."""
    frames, seeds = round(PROMPT * RATE), [seed * 1000 + i for i in range(len(clips))]
    batch = stages["semantic"].run({"units_begins": [clip["units"][0, :frames] for clip in clips]}, seeds)
    whole = [units[: frames + round(LONGER * RATE)] for units in batch["units"]]
    coarse, fine = (stages[name].parts[-1].levels for name in ("coarse", "fine"))
    heard = [clip["acoustic"][:, :frames] for clip in clips]
    batch = stages["coarse"].run({"units": whole, "coarse_begins": [codes[slice(*coarse)] for codes in heard]}, seeds)
    batch = stages["fine"].run({"coarse": batch["coarse"], "fine_begins": [codes[slice(*fine)] for codes in heard]}, seeds)
    return [(units[frames:], torch.cat([low, high])) for units, low, high in zip(whole, batch["coarse"], batch["fine"])]
