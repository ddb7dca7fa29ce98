"""What every layout makes of one little example, written down id for id: the format that checkpoints have learned.

    python tests/golden.py            # says which files differ, if any
    python tests/golden.py --write    # writes tests/golden/*.json anew, on purpose: models that were trained before will not know the ids

Each file holds its vocabulary with its hash, what is told (local ids), and the stream: a list of ids a step, -1 for nothing, and beside it
the same in words. Q=3 levels of 4 codes, T=4 frames, 4 letters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from slm.backbone.transformer import Transformer
from slm.stage.lm import LM, Stream, sizes
from slm.stage.multiscale import Depth
from slm.stage.nar import NAR
from slm.stream.layout import EMPTY, LAYOUTS
from slm.stream.part import Part, merge
from slm.stream.spans import Spans, tell
from slm.stream.vocabulary import Vocabulary
from slm_tokenizers.semantic.runs import collapse

FOLDER = Path(__file__).parent / "golden"
STREAMS = {"text": Stream(6), "duration": Stream(5), "semantic": Stream(8), "acoustic": Stream(4, 3)}
CODES = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 1], [2, 0, 1, 2]])
LETTERS, UNITS = torch.tensor([5, 0, 3, 1]), torch.tensor([6, 6, 1, 7, 7, 7, 1])
TEXT = Part("text", learn=False)
NAMES = ("text", "acoustic.0")
BATCH = {"text": LETTERS, "semantic": UNITS[:4], "acoustic": CODES, "replied": torch.tensor([2, 2])}
PARTS = {
    **{name: [TEXT, Part("acoustic", layout=name, like="text")] for name in LAYOUTS},
    "parts": [
        TEXT,
        Part("semantic", end=True),
        Part("acoustic", (1, 3), "delay", end=True, like="semantic"),
        Part("replied", end=True, stream="text"),
    ],
    "ar_nar": [TEXT, Part("acoustic", (0, 1), end=True)],
    "depth": [Part("semantic", learn=False), Part("acoustic", layout="delay", like="semantic")],
    "dedup": [Part("semantic", end=True), Part("duration", like="semantic")],
}
SPANS = {
    "spans_number": Spans(3, 2),
    "spans_exact": Spans(2, 2),
    "spans_late": Spans(1, 3),
    "spans_alignment": Spans(2, None),
    "spans_word": Spans(None, None),
}


def known(parts: list[Part]) -> dict[str, Stream]:
    """What a stage is told of the parts' streams, by part."""
    return {part.name: STREAMS[part.of] for part in parts}


def told(name: str) -> dict[str, list[torch.Tensor]]:
    """The example as a batch of one row for the parts of that name."""
    if name == "dedup":
        return {key: [row] for key, row in zip(("semantic", "duration"), collapse(UNITS))}
    return {part.name: [BATCH[part.name]] for part in PARTS[name]}


def parts(name: str) -> dict:
    vocabulary = Vocabulary(sizes(PARTS[name], known(PARTS[name])))
    merged = merge(PARTS[name], told(name), vocabulary)
    learned = [[step, column] for step, column in merged.learn[0].nonzero().tolist()]
    return stream(vocabulary, merged.ids[0], {key: rows[0] for key, rows in told(name).items()}) | {"learned": learned}


def spans(name: str) -> dict:
    made, vocabulary = SPANS[name], Vocabulary({"text": 6, "acoustic.0": 4})
    row = {"text": LETTERS, "acoustic": CODES[0], "duration": torch.tensor([1, 0, 2, 1]), "words": torch.tensor([1, 3])}
    plan = made.plan(4, 4, row["duration"].tolist(), row["words"].tolist())
    ids = tell(LETTERS, CODES[0], plan, vocabulary, NAMES)
    return stream(vocabulary, ids[:, None], row) | {"plan": [list(pair) for pair in plan]}


def depth(name: str) -> dict:
    """With what the small model over the columns of a step hears before each: nothing, then the column before."""
    torch.manual_seed(0)
    small = Transformer.Config(8, 1, 2)
    lm, heard = LM.Config(PARTS[name], small, depth=Depth.Config(small)).build(known(PARTS[name])).eval(), []
    step = lm.depth.step

    def listened(hidden, before, embed, state):
        heard.append(None if before is None else int(before[0]))
        return step(hidden, before, embed, state)

    lm.depth.step = listened
    lm.run({"semantic": [BATCH["semantic"]], "acoustic_begins": [CODES]}, [0])
    return parts(name) | {"hears": [heard[i : i + 3] for i in range(0, len(heard), 3)]}


def ar_nar(name: str) -> dict:
    """The first level as a stream; each further one at once, with what is seen of those below it."""
    torch.manual_seed(0)
    backbone = Transformer.Config(8, 1, 2, causal=False, adaptive=8, positions="none")
    nar, passes = NAR.Config(backbone=backbone).build(STREAMS).eval(), []

    def asked(codes, lengths, level, context):
        passes.append({"level": int(level), "sees": codes[0, : int(level)].tolist(), "says": CODES[int(level)].tolist()})
        return F.one_hot(CODES[level], 4).float()

    nar.scores = asked
    said = nar.run({"text": [LETTERS], "prompt_codes": [CODES[:, :2]], "given": [CODES[:1]]}, [0])["acoustic"][0]
    assert torch.equal(said, CODES)
    return parts(name) | {"passes": passes}


def stream(vocabulary: Vocabulary, ids: torch.Tensor, row: dict[str, torch.Tensor]) -> dict:
    """ids [S,W] -> what is written of them"""
    ranges = [f"<{marker}>" for marker in ("pad", "bos", "eos", *vocabulary.streams)] + list(vocabulary.names)
    return {
        "hash": vocabulary.hash,
        "sizes": vocabulary.sizes,
        "ranges": {name: list(vocabulary.range(name)) for name in ranges},
        "told": {name: values.tolist() for name, values in row.items()},
        "ids": ids.tolist(),
        "words": [" ".join(word(vocabulary, id) for id in step) for step in ids.tolist()],
    }


def word(vocabulary: Vocabulary, id: int) -> str:
    if id == EMPTY:
        return "."
    name = vocabulary.name_of(id)
    return name if name.startswith("<") else f"{name}:{id - vocabulary.range(name)[0]}"


CASES: dict[str, Callable[[str], dict]] = (
    {name: parts for name in PARTS} | {name: spans for name in SPANS} | {"depth": depth, "ar_nar": ar_nar}
)


def written(found: dict) -> str:
    """JSON with one entry a line, and in the lists of steps one step."""
    lines = []
    for key, value in found.items():
        by_step = key in ("ids", "words", "passes", "hears")
        lines.append(f' "{key}": ' + ("[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if by_step else json.dumps(value)))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(write: bool) -> int:
    FOLDER.mkdir(exist_ok=True)
    texts = {name: written(make(name)) for name, make in CASES.items()}
    differ = [
        name for name, text in texts.items() if not (FOLDER / f"{name}.json").exists() or (FOLDER / f"{name}.json").read_text() != text
    ]
    for name in differ if write else []:
        (FOLDER / f"{name}.json").write_text(texts[name])
    print(("wrote " if write else "differs: ") + ", ".join(differ) if differ else "every file is as it should be")
    return 0 if write else len(differ)


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
