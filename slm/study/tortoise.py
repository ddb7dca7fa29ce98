"""What a study measures of a model that says a text several times and keeps what fits it best: word errors beside a random reading's.

n sentences   R readings of each   Q levels   T frames   P prompt frames
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.replacing import write_json
from slm.data.utterances import Utterance, Utterances
from slm.errors import SlmError
from slm.stage.best import ended, fits, readings
from slm.study.figures import Figure, mean, ratio
from slm.study.hard import capped, sound, sounding
from slm.study.heldout import Item

READINGS = 8
LONGEST = 200  # frames of the recording of a sentence; longer ones cost the recogniser more than they tell
AMONG = 16  # texts of which the ranker is to find the one that belongs to the codes


def measure(
    folder: Path, items: list[Item], seed: int, data: Aligned | MadeUpUtterances, codec: str | None = None, count: int = 40
) -> dict[str, Figure]:
    """A run with the stages ar and rerank says `count` sentences of held-out recordings in their voices, eight times each -> figures.

    codec: the folder of one that makes sound of the first level alone; None: the model's own.

    Word errors, an item a sentence: of the first reading, of a random one that has an end (the mean over these), of the one that the
    ranker takes, of the one with the fewest errors, and of the first beside another sentence's words. FOLDER/readings.json tells what was
    heard in each. SlmError if none of the items is aligned.
    """
    from slm.evaluate.transcribe import Recogniser
    from slm.model import load

    model = load(folder)
    ar, ranker, speaks = model.stages["ar"], model.stages["rerank"], sounding(model.tokenizers["acoustic"], codec)
    spoken = data.build(model.tokenizers)
    known = {item.id: item.text for item in items}
    rows = [u for u in spoken.batches.items if u.id in known and known[u.id]]
    if not rows:
        raise SlmError("none of the held-out recordings is aligned, so there is nothing to say; run slm align")
    asked = evenly([u for u in rows if u.codes.shape[1] <= LONGEST] or rows, count)
    batch = {"text": [u.text for u in asked], "prompt": [prompt(spoken, u) for u in asked]}
    with torch.inference_mode():
        said = readings(ar, batch, [seed * 1000 + i for i in range(len(asked))], READINGS)
        fit = fits(ranker, said)
    recogniser = Recogniser("base")
    heard = [[recogniser.transcribe(sound(speaks, one["semantic"][b][None])) for one in said] for b in range(len(asked))]
    sentences = [known[u.id] for u in asked]
    tell(folder / "readings.json", sentences, heard, fit)
    found = word_errors(sentences, heard, fit, ended(ranker, said))
    return found | found_texts(ranker, spoken, rows)


def evenly(rows: list[Utterance], count: int) -> list[Utterance]:
    """At most `count` of the rows, from the first to the last."""
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def prompt(spoken: Utterances, item: Utterance) -> Tensor:
    """The voice of an utterance as latents [P,E]: the beginning of another one of its speaker, where there is one."""
    other = next((o for o in spoken.others[item.speaker] if o is not item), item)
    return spoken.latents(other.codes[:, : spoken.prompt[1]])


def word_errors(sentences: list[str], heard: list[list[str]], fit: Tensor, kept: Tensor) -> dict[str, Figure]:
    """What was heard in R readings of n sentences, how well each fits [n,R], and whether it has an end [n,R] -> word errors by who chose.

    No reading counts for more errors than it has words. Where none has an end, everyone is left with the first.
    """
    from slm.evaluate.wer import count_errors

    errors = [[count_errors(sentence, text) for text in texts] for sentence, texts in zip(sentences, heard)]
    words = np.array([row[0].words for row in errors], float)
    wrong = np.array([[min(e.total, e.words) for e in row] for row in errors], float)
    able = kept.numpy().copy()
    able[:, 0] |= ~able.any(1)
    turned = [count_errors(sentences[i - 1], texts[0]) for i, texts in enumerate(heard)]
    share = able / able.sum(1, keepdims=True)
    return {
        "word errors, first": ratio(wrong[:, 0], words),
        "word errors, a random one": ratio((wrong * share).sum(1), words),
        "word errors, best by fit": ratio(wrong[np.arange(len(wrong)), fit.argmax(1).numpy()], words),
        "word errors, best of all": ratio(np.where(able, wrong, np.inf).min(1), words),
        "word errors, another's text": capped(turned),
        "discarded": mean(1 - kept.numpy().mean(1)),
    }


@torch.inference_mode()
def found_texts(ranker: Any, spoken: Utterances, rows: list[Utterance]) -> dict[str, Figure]:
    """How often a recording's own text fits its codes best among those of the recordings beside it in length, and how often by chance."""
    rows = sorted(rows, key=lambda u: u.codes.shape[1])[: max(2, len(rows) // AMONG * AMONG)]
    right, chance = [], []
    for i in range(0, len(rows), AMONG):
        own = rows[i : i + AMONG]
        texts, codes = ranker.vectors({"text": [u.text for u in own], "semantic": [u.codes[:1] for u in own]})
        right += ((codes @ texts.T).argmax(1) == torch.arange(len(own))).float().tolist()
        chance += [1 / len(own)] * len(own)
    return {"text found": mean(np.array(right)), "text found, by chance": mean(np.array(chance))}


def tell(path: Path, sentences: list[str], heard: list[list[str]], fit: Tensor) -> None:
    """What was heard in each reading and how well it fits (null where it was discarded), as JSON."""
    rows = [
        {"sentence": sentence, "heard": texts, "fits": [round(f, 4) if np.isfinite(f) else None for f in own]}
        for sentence, texts, own in zip(sentences, heard, fit.tolist())
    ]
    write_json(path, rows)
