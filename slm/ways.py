"""How the stages of a system say one piece of text: a few ways, and most published systems are one of them.

    P prompt frames   T frames   Q levels   U units   E latent width   N samples

    way      stages              hears of a voice             systems
    Guided   semantic, acoustic  three seconds                the default voice (slm/guided.py)
    GoesOn   ar, nar             a recording, and its text    VALL-E, RALL-E, HAM-TTS
    Best     ar, rerank          three seconds                Tortoise
    Units    units, codes        three seconds                Make-A-Voice; changes voices too (slm/change.py)
    Tagged   lm, of tasks        a recording, and its text    UniAudio; changes voices and takes noise away too
    Alone    lm                  three seconds                MusicGen
    InTurns  lm                  three seconds                text and speech in turns (slm/flow.py)
    Told     lm                  a description in words       Parler-TTS
    Asked    any, of tasks       what its vocoder of units    the model that hears and speaks, SpeechGPT
                                 asks for, or nothing

A way's `hear(audio, rate, name, text)` makes a Prompt of a voice, its `say(text, prompt, seed)` makes audio [N], none if the model ended at
once, and tells why it ended. A model that says one level alone sounds from that level.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.flow import InTurns
from slm.guided import Guided
from slm.model import ALIGNER, VOCODER, Model
from slm.prompt import Prompt, aligned, clip, heard_at, latents, loud_part
from slm.stage.interleaved import Interleaved
from slm.stage.lm import LM
from slm.stage.tasks import Tasks
from slm.stream.sample import settings
from slm_tokenizers.semantic.runs import collapse

LONGEST = 12.0  # seconds of a voice that a model goes on from
READINGS = 8  # of a text, of which the best is kept

HEARS_NONE = "this model hears no voice: tell it with --description how to sound, such as 'slowly, in a low voice'"

Said = tuple[Tensor, str]


class Way(Protocol):
    voiced: bool  # whether it wants to hear a voice
    settings: dict[str, Any]  # how it decodes, for reports

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt: ...

    def say(self, text: str, prompt: Prompt, seed: int) -> Said: ...


def way(model: Model) -> Way:
    """How this model speaks. SlmError if it cannot: not all of its stages are trained, or they make no speech of text."""
    there = set(model.stages)
    chains = {Guided: ("semantic", "acoustic"), GoesOn: ("ar", "nar"), Best: ("ar", "rerank"), Units: ("units", "codes")}
    for kind, stages in chains.items():
        if there >= set(stages):
            return kind(model)
        if there and there < set(stages):
            raise SlmError(f"{model.folder} cannot speak yet: its {' and '.join(sorted(set(stages) - there))} stage is not trained")
    if any(isinstance(stage, Tasks) and "say" in stage.names for stage in model.stages.values()):
        return Asked(model)
    lm = model.stages.get("lm")
    if isinstance(lm, Tasks) and {"tts", "vc", "se"} <= set(lm.names):
        return Tagged(model)
    if isinstance(lm, Interleaved):
        return InTurns(model)
    if isinstance(lm, LM) and [part.name for part in lm.parts] == ["text", "acoustic"]:
        return (Told if lm.description else Alone)(model)
    raise SlmError(f"{model.folder} does not speak a text: its stages are {', '.join(sorted(there)) or 'none'}")


class GoesOn:
    """A voice goes on: its text stands before the text to be said, its first level before what is said; then the finer levels.

    What else the first stage says of each phone, pitch and duration, is heard of the voice too, by the model's aligner.
    """

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text = model.tokenizers[model.recipe.speaks], model.tokenizers["text"]
        self.ar, self.nar = model.stages["ar"], model.stages["nar"]
        self.prosody = [part.name for part in self.ar.parts if part.name not in ("text", "acoustic")]
        if unknown := set(self.prosody) - {"pitch", "duration"}:
            raise SlmError(f"{model.folder} goes on from the {' and '.join(sorted(unknown))} of a voice, which no prompt has")
        self.aligner, self.bins = model.tokenizers.get(ALIGNER), model.tokenizers.get("pitch")
        if self.prosody and self.aligner is None:
            raise SlmError(
                f"{model.folder} goes on from the {' and '.join(self.prosody)} of each phone of a voice, and has no {ALIGNER}/ to hear "
                "them with: `slm align data/train` makes data/aligner, copy it there"
            )
        self.settings = {"sampling": settings(self.ar.config.sampling)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        if not text.strip():
            raise SlmError(f"this model goes on as {name} began: say with --voice-text what is said there")
        if audio.shape[-1] > LONGEST * rate:
            raise SlmError(f"{name} lasts {audio.shape[-1] / rate:.1f} s; this model goes on from at most {LONGEST:g} s, three are enough")
        part = loud_part(heard_at(self.codec.rate, audio, rate), self.codec.rate, self.codec.hop, name, LONGEST)
        if self.prosody:
            return aligned(self.codec, self.aligner, self.bins, part, text)
        return Prompt(self.codec.encode(part[None])[0], text=text)

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        if not set(self.prosody) <= set(prompt.prosody):
            raise SlmError(f"the prompt was heard by another model: it has no {' and no '.join(self.prosody)}")
        before = self.text.encode(prompt.text) if prompt.phones is None else prompt.phones
        own, frames = self.text.encode(text), prompt.codes.shape[1]
        begins = {f"{name}_begins": [prompt.prosody[name]] for name in self.prosody} | {"acoustic_begins": [prompt.codes[:1]]}
        batch = self.ar.run({"text": [torch.cat([before, own])]} | begins, [seed])
        first = batch["acoustic"][0][:, frames:]
        if not first.shape[1]:
            return torch.zeros(0), batch["stop"][0]
        done = self.nar.run({"text": batch["text"], "prompt_codes": [prompt.codes], "given": [first]}, [seed])
        return self.codec.decode(done["acoustic"][0][None])[0, 0], batch["stop"][0]


class Best:
    """The text said several times by the first stage, and the reading that fits it best by the second."""

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text = model.tokenizers[model.recipe.speaks], model.tokenizers["text"]
        self.ar, self.ranker = model.stages["ar"], model.stages["rerank"]
        self.settings = {"sampling": settings(self.ar.config.sampling), "readings": READINGS}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        return Prompt(clip(self.codec, audio, rate, name), text=text)

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        from slm.stage.best import best

        batch = {"text": [self.text.encode(text)], "prompt": [latents(self.codec, prompt)]}
        done = best(self.ar, self.ranker, batch, [seed], READINGS)
        return sound(self.codec, done[self.ranker.config.codes][0]), done["stop"][0]


class Units:
    """What is said as units, then how it sounds: the levels go on as the voice began, over its units and those to be said."""

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text, self.units = model.tokenizers[model.recipe.speaks], model.tokenizers["text"], model.tokenizers["units"]
        self.first, self.second = model.stages["units"], model.stages["codes"]
        self.part = self.second.parts[-1]
        self.settings = {"sampling": settings(self.first.config.sampling) | settings(self.second.config.sampling)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        return with_units(self.codec, self.units, audio, rate, name, text)

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        done = self.first.run({"text": [self.text.encode(text)]}, [seed])
        units = done["units"][0].flatten()
        return self.sound(units, prompt, seed) if len(units) else torch.zeros(0), done["stop"][0]

    def change(self, audio: Tensor, rate: int, prompt: Prompt | None, seed: int) -> Said:
        if prompt is None:
            raise SlmError("this model changes voices alone: say with --voice whose it is to be")
        return self.sound(units_of(self.units, audio, rate), prompt, seed), "end"

    def sound(self, units: Tensor, prompt: Prompt, seed: int) -> Tensor:
        """units [U] -> audio [N] in the voice of the prompt, as many frames"""
        name = self.part.name
        begins = prompt.codes[slice(*self.part.levels)]
        batch = self.second.run({"units": [torch.cat([prompt.units, units])], f"{name}_begins": [begins]}, [seed])
        return sound(self.codec, batch[name][0][:, begins.shape[1] :])


class Tagged:
    """One model that a tag tells what is wanted: a text, units or noisy codes are given, and levels of a codec said of them."""

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text, self.units = model.tokenizers[model.recipe.speaks], model.tokenizers["text"], model.tokenizers["units"]
        self.tasks = model.stages["lm"]
        self.levels = slice(*self.tasks.parts("tts")[-1].levels)
        self.settings = {"sampling": settings(self.tasks.config.sampling)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        return with_units(self.codec, self.units, audio, rate, name, text)

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        if not prompt.text.strip():
            raise SlmError("this model goes on as a voice began: say with --voice-text what is said there")
        ids = torch.cat([self.text.encode(prompt.text), self.text.encode(text)])
        return self.run("tts", {"text": [ids]}, prompt, seed)

    def change(self, audio: Tensor, rate: int, prompt: Prompt | None, seed: int) -> Said:
        if prompt is None:
            codes = self.codec.encode(heard_at(self.codec.rate, audio, rate)[None])[0]
            return self.run("se", {"noisy": [codes[self.levels]]}, None, seed)
        units = units_of(self.units, audio, rate)
        return self.run("vc", {"units": [torch.cat([prompt.units, units])]}, prompt, seed)

    def run(self, task: str, batch: dict, prompt: Prompt | None, seed: int) -> Said:
        begins = None if prompt is None else prompt.codes[self.levels]
        done = self.tasks.run(batch | ({} if begins is None else {"acoustic_begins": [begins]}), [seed], task)
        return sound(self.codec, done["acoustic"][0][:, 0 if begins is None else begins.shape[1] :]), done["stop"][0]


class Alone:
    """One language model of the text and all the levels it says, the voice as one vector."""

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text, self.lm = model.tokenizers[model.recipe.speaks], model.tokenizers["text"], model.stages["lm"]
        self.settings = {"sampling": settings(self.lm.config.sampling)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        return Prompt(clip(self.codec, audio, rate, name), text=text)

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        done = self.lm.run({"text": [self.text.encode(text)], "prompt": [latents(self.codec, prompt)]}, [seed])
        return sound(self.codec, done["acoustic"][0]), done["stop"][0]


class Told:
    """One language model that says the text as a description in words asks."""

    voiced = False

    def __init__(self, model: Model) -> None:
        self.codec, self.text, self.lm = model.tokenizers[model.recipe.speaks], model.tokenizers["text"], model.stages["lm"]
        self.name = self.lm.config.description.text
        self.letters = model.tokenizers[self.name]
        self.settings = {"sampling": settings(self.lm.config.sampling)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        raise SlmError(HEARS_NONE)

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        if not prompt.description.strip():
            raise SlmError(HEARS_NONE)
        done = self.lm.run({"text": [self.text.encode(text)], self.name: [self.letters.encode(prompt.description)]}, [seed])
        return sound(self.codec, done["acoustic"][0]), done["stop"][0]


class Asked:
    """The task `say` of a model of several: its text, then its units, which a vocoder sounds in the voice that it is given.

    Codes of a codec, SpeechGPT-Gen's, sound by themselves where there is no vocoder; they keep their repetitions.
    """

    def __init__(self, model: Model) -> None:
        if "semantic" not in model.tokenizers:
            raise SlmError(f"{model.folder} says units of no tokenizer called 'semantic', so nothing can sound them: train it again")
        self.text, self.units = model.tokenizers["text"], model.tokenizers["semantic"]
        alone = hasattr(self.units, "decode") and not (model.folder / VOCODER).is_dir()
        self.vocoder = None if alone else vocoder_of(model)
        self.tasks = next(stage for stage in model.stages.values() if isinstance(stage, Tasks) and "say" in stage.names)
        self.voiced = self.vocoder is not None and self.vocoder.ear is not None
        self.settings = {"sampling": settings(self.tasks.lm.config.sampling)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        if not self.voiced:
            raise SlmError("this model speaks in voices of its own; leave out --voice")
        part = loud_part(heard_at(self.vocoder.rate, audio, rate), self.vocoder.rate, self.vocoder.hop, name)
        with torch.no_grad():
            return Prompt(voice=self.vocoder.listen(part[None])[0])

    def say(self, text: str, prompt: Prompt, seed: int) -> Said:
        given, said = self.tasks.parts("say")[-2:]
        done = self.tasks.run({given.name: [self.text.encode(text)]}, [seed], "say")
        return self.sound(done[said.name][0], prompt), done["stop"][0]

    def heard(self, audio: Tensor, rate: int) -> Tensor:
        """audio [C,N] -> units [U] as the model hears them: none twice in a row, if a vocoder is to tell how long they last"""
        units = units_of(self.units, audio, rate)
        return units if self.vocoder is None else collapse(units)[0]

    def sound(self, units: Tensor, prompt: Prompt) -> Tensor:
        """units [U] -> audio [N], none of none"""
        if self.vocoder is None or not len(units):
            return sound(self.units, units)
        return self.vocoder.sound(units, prompt.voice, collapsed=True)[0]


@torch.no_grad()
def units_of(tokenizer: Any, audio: Tensor, rate: int) -> Tensor:
    """audio [C,N] -> units [U], one a frame"""
    return tokenizer.encode(heard_at(tokenizer.rate, audio, rate)[None])[0, 0]


def with_units(codec: Any, units: Any, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
    """The codes of the part with the most speech and its units, as many of them."""
    part = loud_part(heard_at(codec.rate, audio, rate), codec.rate, codec.hop, name)
    codes, heard = codec.encode(part[None])[0], units_of(units, part, codec.rate)
    frames = min(codes.shape[1], len(heard))
    return Prompt(codes[:, :frames], heard[:frames], text)


def vocoder_of(model: Model) -> Any:
    """What makes sound of the model's units. SlmError if it is not there, or cannot with units alone."""
    from slm_vocoders import load

    folder = model.folder / VOCODER
    if not (folder / "config.json").is_file():
        raise SlmError(f"{model.folder} says units and has no {VOCODER}/ to sound them: put there what recipes/vocoder/units.py trains")
    vocoder, card = load(folder), model.tokenizers["semantic"].card
    fits = getattr(vocoder, "durations", None) is not None and vocoder.pitch is None and vocoder.config.codes.card == card
    if not fits or vocoder.rate != model.tokenizers[model.recipe.speaks].rate:
        raise SlmError(f"{folder} must be a vocoder of {card} units that knows their durations and needs no pitch, which no model tells")
    return vocoder


def sound(codec: Any, codes: Tensor) -> Tensor:
    """codes [T] or [Q,T], of the first levels alone perhaps -> audio [N], none of none."""
    return codec.decode(codes.view(-1, codes.shape[-1])[None])[0, 0] if codes.shape[-1] else torch.zeros(0)
