"""One model of three tasks: noisy rows are cut as clean ones, only a tag parts two tasks, and what its study claims is measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slm import recipe
from slm.data.beside import Beside
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.errors import SlmError
from slm.study import uniaudio
from slm.study.heldout import Item
from slm.study.run import load, train
from slm.train.run import streams, tokenizers

ROOT = Path(__file__).parent.parent / "recipes"
UNIAUDIO, STUDY = recipe.load(ROOT / "speech_lm/uniaudio.py"), load(ROOT / "study/uniaudio.py")
ROWS = Beside(Continued(MadeUpUtterances(rough=1.0), (8, 16), 60), noisy=2)


@pytest.fixture(scope="module")
def known():
    torch.manual_seed(0)
    return tokenizers(UNIAUDIO.small())


@pytest.fixture(scope="module")
def stage(known):
    torch.manual_seed(1)
    return UNIAUDIO.small().stages["lm"].build(streams(known)).eval()


def test_noisy_rows_are_cut_and_drawn_as_the_clean_ones(known):
    plain, noisy = replace(ROWS, noisy=0).build(known), ROWS.build(known)
    whole = {item.id: item.rough for item in ROWS.of.of.build(known).batches.items}
    for step in range(3):
        one, other = plain.at(step), noisy.at(step)
        assert set(other) == set(one) | {"noisy", "again"}
        for name in one:
            assert all(torch.equal(a, b) for a, b in zip(one[name], other[name])), name
        for heard, again, clean in zip(other["noisy"], other["again"], other["acoustic"]):
            assert torch.equal(heard, again) and heard.shape == clean[:2].shape and not torch.equal(heard, clean[:2])
            first = heard[:, None, :4]
            assert any((rough[:2].unfold(1, 4, 1) == first).all(2).all(0).any() for rough in whole.values())


def test_recordings_that_are_not_heard_made_worse_cannot_be_noisy(known):
    with pytest.raises(SlmError, match="set rough of what they are read by"):
        replace(ROWS, of=replace(ROWS.of, of=MadeUpUtterances())).build(known)


def test_two_tasks_are_given_the_same_and_only_the_tag_parts_them(stage, known):
    rows = replace(ROWS, noisy=UNIAUDIO.LEVELS).build(known).at(0)
    noisy = [row[:, :20] for row in rows["noisy"][:2]]
    asked = {}
    for task, said in (("se", "acoustic"), ("again", "again")):
        parts = stage.parts(task)
        with torch.no_grad():
            asked[task] = stage.lm.about(parts).loss({"task": stage.tagged(task, 2), "noisy": noisy, said: noisy})[said]
    assert asked["se"] != asked["again"]
    pair = [(noisy[0], noisy[0])]
    own, other = (uniaudio.cost(stage, "se", tag, pair, "acoustic", "noisy").value for tag in ("se", "again"))
    assert own != other
    assert other == pytest.approx(uniaudio.cost(stage, "again", "again", pair, "again", "noisy").value, abs=1e-5), "nothing but the tag"


def test_a_changed_voice_is_as_long_as_its_units_and_is_said_alone(stage):
    units, begins = [torch.randint(16, (n,)) for n in (30, 22)], [torch.randint(16, (3, n)) for n in (8, 6)]
    batch = {"units": units, "acoustic_begins": begins}
    said = stage.run(batch, [1, 2], "vc")["acoustic"]
    for i, codes in enumerate(said):
        assert codes.shape == (3, len(units[i])) and torch.equal(codes[:, : begins[i].shape[1]], begins[i])
        alone = {name: rows[i : i + 1] for name, rows in batch.items()}
        assert torch.equal(stage.run(alone, [i + 1], "vc")["acoustic"][0], codes)


def test_all_that_the_study_claims_is_measured(tmp_path, judges):
    study = STUDY.small()
    train(study.variants[STUDY.U](0, tmp_path), tmp_path, quiet=True)
    items = [Item(str(i), f"speaker {i % 4}", "one two", torch.zeros(1, 16000), np.zeros(50)) for i in range(6)]
    found = study.measure(tmp_path, items, 0)
    for claim in study.claims:
        for _, figure in (claim.one, claim.other):
            assert np.isfinite(found[figure].value), figure
    assert found["tts: word errors"].value == 0.5, "one of two words was heard"
    assert found["se: nats"].value != found["se: nats, another's"].value
