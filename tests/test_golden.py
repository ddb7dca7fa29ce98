"""The format of every layout, id for id, as tests/golden/*.json have it. Rewritten on purpose by `python tests/golden.py --write`."""

import json

import golden
import pytest
import torch

from slm.backbone.transformer import Transformer
from slm.stage.lm import LM, Stream
from slm.stage.say import Talk
from slm.stream.layout import EMPTY, LAYOUTS, legal, levels
from slm.stream.part import merge, take
from slm.stream.spans import ids_of, untell, walk
from slm.stream.vocabulary import Vocabulary
from slm_tokenizers.semantic.runs import expand


def stored(name: str) -> dict:
    return json.loads((golden.FOLDER / f"{name}.json").read_text())


def ids(name: str) -> torch.Tensor:
    return torch.tensor(stored(name)["ids"])


def model(name: str) -> LM:
    torch.manual_seed(0)
    return LM.Config(golden.PARTS[name], Transformer.Config(8, 1, 2)).build(golden.known(golden.PARTS[name])).eval()


def test_there_is_a_file_for_every_layout_and_no_other():
    assert {path.stem for path in golden.FOLDER.glob("*")} == set(golden.CASES)
    assert set(LAYOUTS) <= set(golden.CASES)


@pytest.mark.parametrize("name", golden.CASES)
def test_what_is_told_today_is_what_was_told_when_it_was_written(name):
    assert golden.written(golden.CASES[name](name)) == (golden.FOLDER / f"{name}.json").read_text(), "see `python tests/golden.py`"


@pytest.mark.parametrize("name", golden.CASES)
def test_a_written_vocabulary_has_the_hash_and_the_ranges_that_were_written_beside_it(name):
    found = stored(name)
    vocabulary = Vocabulary(found["sizes"])
    vocabulary.check(found["hash"])
    assert {key: list(vocabulary.range(key)) for key in found["ranges"]} == found["ranges"]
    assert max(stop for _, stop in found["ranges"].values()) == vocabulary.size


@pytest.mark.parametrize("name", golden.PARTS)
def test_a_written_stream_can_be_undone_and_each_id_is_legal_in_its_place(name):
    """By what a language model scores there, by what a layout allows there, and by nothing else."""
    lm, found, stream = model(name), stored(name), ids(name)
    spans, seen = merge(lm.parts, golden.told(name), lm.vocabulary).spans[0], torch.zeros_like(stream, dtype=torch.bool)
    for part, (_, start, stop) in zip(lm.parts, spans, strict=True):
        Q, told = lm.streams[part.name].n_q, torch.tensor(found["told"][part.name])
        first, last = part.span(Q)
        T = told.shape[-1]
        assert torch.equal(take(stream[start:stop], part, lm.vocabulary, Q, T), told[first:last] if told.dim() == 2 else told)
        table = levels(LAYOUTS[part.layout](last - first, T), T)
        masks = legal(lm.vocabulary, part.of, torch.where(table == EMPTY, EMPTY, table + first))
        for step, column in (table != EMPTY).nonzero().tolist():
            id = int(stream[start + step, column])
            allowed = lm.legal(part, first + int(table[step, column]))
            assert id in allowed and masks[step, column, id] and set(masks[step, column].nonzero()[:, 0].tolist()) <= set(allowed.tolist())
            seen[start + step, column] = True
        assert stream[start - 1, 0] == lm.vocabulary.marker(part.of)
        seen[start - 1, 0] = True
        if part.end:
            here = start + int((table[:, 0] != EMPTY).sum())
            assert stream[here, 0] == lm.vocabulary.eos and lm.vocabulary.eos in lm.legal(part, first)
            seen[here, 0] = True
    assert torch.equal(seen, stream != EMPTY), "nothing is told that no layout, marker or end accounts for"


@pytest.mark.parametrize("name", golden.SPANS)
def test_written_turns_can_be_undone_and_each_id_is_legal_in_its_place(name):
    found, stream = stored(name), ids(name)[:, 0]
    vocabulary = Vocabulary(found["sizes"])
    text, codes, plan = untell(stream, golden.SPANS[name], vocabulary, golden.NAMES)
    assert text.tolist() == found["told"]["text"] and codes.tolist() == found["told"]["acoustic"]
    assert [list(pair) for pair in plan] == found["plan"]
    for id, (_, allowed) in zip(stream, walk(stream, golden.SPANS[name], vocabulary, golden.NAMES), strict=True):
        assert id in ids_of(allowed, vocabulary)


@pytest.mark.parametrize("name", golden.PARTS)
def test_what_is_said_is_heard_as_it_was_written(name, monkeypatch):
    """Generation, made to say the example, tells the backbone the very ids that learning does."""
    lm, heard, listen = model(name), [], Talk.hear
    with torch.no_grad():
        lm.head.bias[lm.vocabulary.eos] = 1e4  # drawn as soon as no code is known

    def hear(talk, ids, *rest):
        heard.append(ids[0].tolist())
        return listen(talk, ids, *rest)

    monkeypatch.setattr(Talk, "hear", hear)
    batch = {}
    for part in lm.parts:
        row = golden.told(name)[part.name][0]
        batch[f"{part.name}_begins" if part.learn else part.name] = [row[slice(*part.span(len(row)))] if row.dim() == 2 else row]
    lm.run(batch, [0])
    stream = ids(name)
    assert [step + [EMPTY] * (stream.shape[1] - len(step)) for step in heard] == stream[len(stream) - len(heard) :].tolist()
    assert len(heard) == len(stream) - sum(1 + len(batch[p.name][0]) for p in lm.parts if not p.learn)


def test_a_column_hears_those_before_it_in_its_step_and_a_level_those_below_it():
    found = stored("depth")
    stream = found["ids"][len(found["ids"]) - len(found["hears"]) :]
    assert [step[:-1] for step in stream] == [heard[1:] for heard in found["hears"]] and all(h[0] is None for h in found["hears"])
    codes = stored("ar_nar")["told"]["acoustic"]
    assert [(p["level"], p["sees"], p["says"]) for p in stored("ar_nar")["passes"]] == [(q, codes[:q], codes[q]) for q in (1, 2)]


def test_written_units_with_their_runs_are_the_units_there_were():
    told = stored("dedup")["told"]
    assert torch.equal(expand(torch.tensor(told["semantic"]), torch.tensor(told["duration"])), golden.UNITS)


def test_a_changed_size_is_another_file(monkeypatch):
    monkeypatch.setitem(golden.STREAMS, "text", Stream(7))
    assert golden.written(golden.parts("flat")) != (golden.FOLDER / "flat.json").read_text()
