"""What a study measures of a first stage that says sentences which are hard to keep one's place in.

Q levels   P prompt frames   T frames   L phones   n sentences
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm import ways
from slm.codes import load_tokenizer
from slm.data.continued import Continued, Row, within
from slm.data.replacing import write_json
from slm.errors import SlmError
from slm.evaluate.wer import Errors, count_errors
from slm.study.figures import Figure, mean, ratio
from slm.study.heldout import Item

PROMPT = 150  # frames of a voice
SHORTEST = 8000  # samples that tell a voice


def measure(
    folder: Path, items: list[Item], seed: int, voices: Continued, sentences: tuple[str, ...], codec: str | None = None
) -> dict[str, Figure]:
    """A run's first stage says each sentence in the voice of one of the items -> word errors by kind, endless ones, lengths, voices.

    codec: the folder of one that makes sound of the first level alone; None: the model's own. `skipped` are words that a recogniser
    missed and `repeated` such as it heard too many, over all words; `endless` is the share of sentences cut off at the cap or because
    they went round in circles; `length` is frames over those that the voice would need at its own pace; another's text is the sentence
    before. FOLDER/hard.json tells of each sentence what was heard. Needs slm[evaluate]. SlmError without an aligned recording of an item.
    """
    from slm.evaluate.speaker import SpeakerEncoder
    from slm.evaluate.transcribe import Recogniser
    from slm.model import load

    model = load(folder)
    speaks = sounding(model.tokenizers["acoustic"], codec)
    prompts = held(voices, model.tokenizers, {item.id for item in items})
    said = say(model.stages["ar"], model.tokenizers["text"], prompts, sentences, seed)
    recogniser, rows, others = Recogniser("base"), [], []
    sounds = [sound(speaks, one["codes"]) for one in said]
    for i, (sentence, one) in enumerate(zip(sentences, said)):
        heard = recogniser.transcribe(sounds[i])
        errors = count_errors(sentence, heard)
        kinds = {"skipped": errors.deletions, "repeated": errors.insertions, "other": errors.substitutions, "words": errors.words}
        rows.append({"sentence": sentence, "heard": heard, "stop": one["stop"], "frames": one["codes"].shape[1], "due": one["due"]} | kinds)
        others.append(count_errors(sentences[i - 1], heard))
    write_json(folder / "hard.json", rows)
    found = figures(rows) | {"word errors, another's text": capped(others)}
    return found | voices_of(sounds, [sound(speaks, row["acoustic"][:1]) for row in prompts], SpeakerEncoder())


def capped(errors: list[Errors]) -> Figure:
    """Word errors, an item each; none counts for more than all of its words."""
    return ratio(np.array([min(e.total, e.words) for e in errors], float), np.array([e.words for e in errors]))


def voices_of(sounds: list[np.ndarray], prompts: list[np.ndarray], encoder: Any) -> dict[str, Figure]:
    """How like its own prompt what was said sounds, and how like the next one; an item a sentence of half a second at least."""
    from slm.evaluate.speaker import similarity

    known = [encoder.embed(prompt) for prompt in prompts]
    said = [(i, encoder.embed(audio)) for i, audio in enumerate(sounds) if len(audio) >= SHORTEST]
    own, other = ([similarity(voice, known[(i + step) % len(known)]) for i, voice in said] for step in (0, 1))
    return {"voice: to the prompt": mean(np.array(own or [0.0])), "voice: to another's": mean(np.array(other or [0.0]))}


def sounding(own: Any, codec: str | None) -> Any:
    """The codec that is heard. SlmError if its first level is not the model's."""
    if codec is None:
        return own
    other = load_tokenizer(codec)
    if not torch.equal(other.codebooks.embed[0], own.codebooks.embed[0]):
        raise SlmError(f"{codec} has other codes than the model; its first level must be that of the model's codec")
    return other


def figures(rows: list[dict]) -> dict[str, Figure]:
    """What was counted of each sentence -> figures, an item a sentence. No kind of error counts for more than all of its words.

    For a recogniser that hears noise may write one word hundreds of times.
    """
    names = ("skipped", "repeated", "other", "words", "frames", "due")
    count = {name: np.array([row[name] for row in rows], float) for name in names}
    count["word errors"] = count["skipped"] + count["repeated"] + count["other"]
    kinds = ("word errors", "skipped", "repeated")
    found = {name: ratio(np.minimum(count[name], count["words"]), count["words"]) for name in kinds}
    found["endless"] = mean(np.array([row["stop"] in ("length", "loop") for row in rows], float))
    return found | {"length": ratio(count["frames"], count["due"])}


def held(voices: Continued, tokenizers: dict[str, Any], ids: set[str]) -> list[Row]:
    """One recording of each speaker, the one that is nearest to PROMPT frames, as phones, durations, pitches and codes."""
    from slm.data.prosody import PitchBins

    speakers = voices.build({"pitch": PitchBins.Config().build()} | tokenizers)
    found = []
    for own in speakers.others.values():
        known = [utterance for utterance in own if utterance.id in ids]
        if known:
            nearest = min(known, key=lambda utterance: abs(utterance.codes.shape[1] - PROMPT))
            found.append(within(speakers.told(nearest), 0, PROMPT))
    if not found:
        raise SlmError("none of the held-out recordings is aligned, so there is no voice to go on from; run slm align")
    return found


def say(stage: Any, text: Any, prompts: list[Row], sentences: tuple[str, ...], seed: int) -> list[dict[str, Any]]:
    """Each sentence goes on where a prompt ends, the prompts by turns -> its codes [1,T], its stop reason, and the frames it was due."""
    phones = [text.encode(sentence) for sentence in sentences]
    rows = [prompts[i % len(prompts)] for i in range(len(sentences))]
    batch: dict[str, list[Tensor]] = {"text": [torch.cat([row["text"], own]) for row, own in zip(rows, phones)]}
    for part in stage.parts[1:]:
        batch[f"{part.name}_begins"] = [row[part.name] if row[part.name].ndim == 1 else row[part.name][:1] for row in rows]
    with torch.inference_mode():
        done = stage.run(batch, [seed * 1000 + i for i in range(len(sentences))])
    said = []
    for row, own, codes, stop in zip(rows, phones, done["acoustic"], done["stop"]):
        prompt = row["acoustic"].shape[1]
        said.append({"codes": codes[:, prompt:], "stop": stop, "due": len(own) * prompt / len(row["text"])})
    return said


def sound(codec: Any, codes: Tensor) -> np.ndarray:
    """codes [1,T] of the first level -> audio [N]; none for none"""
    with torch.inference_mode():
        return ways.sound(codec, codes).numpy()
