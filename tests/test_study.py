"""Studies: figures that can be drawn again, verdicts that can be no, and every study file at its small size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slm.errors import SlmError
from slm.study import figures
from slm.study.codecs import another, swap
from slm.study.figures import difference, mean, pnmi, ratio
from slm.study.heldout import Item, phone_counts
from slm.study.run import Claim, Study, judge, load, run, train

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "recipes" / "study").glob("*.py"))


def item(name: str, speaker: str, phones) -> Item:
    return Item(name, speaker, "", torch.zeros(1, 320 * len(phones)), np.array(phones))


def test_a_mean_and_a_ratio_are_what_they_say():
    assert mean(np.array([1.0, 2.0, 6.0])).value == pytest.approx(3)
    assert ratio(np.array([1, 0, 2]), np.array([10, 5, 5])).value == pytest.approx(0.15)


def test_pnmi_is_one_for_codes_that_decide_the_phone_and_none_for_those_that_say_nothing():
    exact = np.zeros((2, 3, 6))
    for phone in range(3):
        exact[:, phone, [phone, phone + 3]] = [phone + 1, 2]
    assert pnmi(exact).value == pytest.approx(1, abs=1e-6)
    assert pnmi(np.ones((2, 3, 6))).value == pytest.approx(0, abs=1e-6)


def test_pnmi_agrees_with_scikit_learn():
    from sklearn.metrics import mutual_info_score

    draw = np.random.default_rng(0)
    phones = draw.integers(0, 5, 400)
    codes = (phones + draw.integers(0, 3, 400)) % 7
    counts = np.zeros((1, 5, 7))
    np.add.at(counts[0], (phones, codes), 1)
    p = np.bincount(phones) / 400
    assert pnmi(counts).value == pytest.approx(mutual_info_score(phones, codes) / -(p * np.log(p)).sum(), abs=1e-6)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    draw, covered = np.random.default_rng(1), 0
    for trial in range(200):
        a = draw.normal(0.3, 1, 60)
        d = difference(mean(a), mean(np.zeros(60)), seed=trial)
        covered += d.low <= 0.3 <= d.high
    assert 0.88 <= covered / 200 <= 0.99


def test_differences_are_paired():
    shared = np.random.default_rng(0).normal(0, 10, 50)
    d = difference(mean(shared + 0.1), mean(shared))
    assert d.low == pytest.approx(0.1, abs=1e-6) and d.high == pytest.approx(0.1, abs=1e-6), "what both share cancels in every draw"
    with pytest.raises(SlmError, match="50 items cannot be compared with one of 3"):
        difference(mean(shared), mean(np.zeros(3)))


@pytest.mark.parametrize("lower, holds", [(False, True), (True, False)])
def test_a_claim_holds_only_if_its_interval_leaves_out_none_on_the_right_side(lower, holds):
    found = {("a", s): {"x": mean(np.arange(9.0) + 5)} for s in (0, 1)} | {("b", s): {"x": mean(np.arange(9.0))} for s in (0, 1)}
    assert judge(Claim("", ("a", "x"), ("b", "x"), lower), found, (0, 1)).holds is holds


def test_a_claim_that_fails_with_one_seed_does_not_hold():
    found = {("a", 0): {"x": mean(np.ones(9))}, ("b", 0): {"x": mean(np.zeros(9))}}
    found |= {("a", 1): {"x": mean(np.zeros(9))}, ("b", 1): {"x": mean(np.zeros(9))}}
    assert not judge(Claim("", ("a", "x"), ("b", "x")), found, (0, 1)).holds
    with pytest.raises(SlmError, match="was not measured"):
        judge(Claim("", ("a", "y"), ("b", "x")), found, (0,))


def test_only_frames_with_a_known_phone_are_counted():
    counts = phone_counts([item("a", "x", [0, -1, 2, 2])], [torch.tensor([5, 5, 1])], 6)
    assert counts.sum() == 2 and counts[0, 0, 5] == 1 and counts[0, 2, 1] == 1


def test_swapped_codes_have_the_first_level_of_one_and_the_rest_of_the_other():
    words, voice = torch.randint(0, 9, (1, 4, 7)), torch.randint(9, 20, (1, 4, 3))
    mixed = swap(words, voice)
    assert (
        torch.equal(mixed[:, :1], words[:, :1])
        and torch.equal(mixed[0, 1:, :3], voice[0, 1:])
        and torch.equal(mixed[0, 1:, 3:6], voice[0, 1:])
    )
    items = [item("a", "x", [0]), item("b", "x", [0]), item("c", "y", [0])]
    assert [another(items, i) for i in range(3)] == [2, 2, 0]


def test_runs_that_are_finished_are_not_trained_again_and_broken_ones_go_on(tmp_path):
    spectral = load(ROOT / "recipes/study/codec.py").spectral
    train(spectral.small(), tmp_path, quiet=True)
    stored = tmp_path / "codec" / "model.safetensors"
    before = stored.stat().st_mtime_ns
    train(spectral.small(), tmp_path, quiet=True)
    assert stored.stat().st_mtime_ns == before
    (tmp_path / "codec" / "finished").unlink()
    train(spectral.small(), tmp_path, quiet=True)
    assert stored.stat().st_mtime_ns > before
    other = spectral.small()
    other.train["codec"].steps += 1
    with pytest.raises(SlmError, match="another recipe"):
        train(other, tmp_path, quiet=True)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_claim_of_a_study_is_about_one_of_its_variants(path):
    module = load(path)
    for study in (module.study(), module.small()):
        assert study.claims and len(set(study.seeds)) >= 2
        for claim in study.claims:
            assert {claim.one[0], claim.other[0]} <= set(study.variants)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_a_small_study_trains_and_its_full_recipes_have_the_same_stages(path, tmp_path):
    module = load(path)
    small, full = module.small(), module.study()
    assert list(small.variants) == list(full.variants)
    for name, build in small.variants.items():
        recipe = build(0, tmp_path / name)
        assert list(recipe.stages) == list(full.variants[name](0, tmp_path / name).stages)
    train(recipe, tmp_path / name, quiet=True)
    assert all((tmp_path / name / stage / "finished").exists() for stage in recipe.stages)


def test_a_report_tells_figures_and_verdicts(tmp_path, monkeypatch):
    items = [item(str(i), "x", [0]) for i in range(9)]
    monkeypatch.setattr("slm.study.run.heldout", lambda data: items)
    study = Study(
        "made up",
        {"a": lambda seed, out: load(ROOT / "recipes/study/codec.py").spectral.small()},
        lambda folder, items, seed: {"x": mean(np.arange(len(items)) + seed), "y": mean(np.zeros(len(items)))},
        [Claim("x is more than y", ("a", "x"), ("a", "y"))],
    )
    report = run(study, tmp_path, quiet=True)
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["figures"]["a"]["x"] == [4, 5] and stored["verdicts"][0]["holds"] is True and report.verdicts[0].holds
    assert figures.DRAWS >= 1000


def test_without_held_out_speech_a_study_says_so(tmp_path):
    from slm.study.heldout import heldout

    with pytest.raises(SlmError, match="holds no held-out speech"):
        heldout(tmp_path)


def test_a_tagger_learns_each_task_on_made_up_codes():
    """Each label is a function of the codes, so a backbone that sees them must come far below a guess."""
    from slm.backbone.gated_conv import GatedConv
    from slm.data.tagged import MadeUpTagged, Tagged
    from slm.stage.tagging import Tagger

    for task, labels in (("sex", 2), ("phones", 40)):
        rows = MadeUpTagged(Tagged(task, 50, 8)).build({})
        torch.manual_seed(0)
        stage = Tagger.Config(GatedConv.Config(32, 1), labels, pooled=task == "sex").build()
        optimiser = torch.optim.AdamW(stage.parameters(), lr=1e-2)
        losses = []
        for step in range(60):
            loss = stage.loss(rows.at(step))["label"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), (task, losses[:2], losses[-2:])


def test_rows_of_a_task_are_as_they_say():
    from slm.data.tagged import SEXES, Tagged, TaggedRows, clip, held_rows

    clips = [clip(torch.arange(2 * n).view(2, n) % 1000, list(range(n)), SEXES[i % 2]) for i, n in enumerate((30, 50, 20, 41))]
    following = TaggedRows(Tagged("next", 60, 3), clips).at(5)
    assert torch.equal(following["codes"][:, 0, 1:], following["labels"][:, :-1]), "a label is the next code of the first level"
    again = TaggedRows(Tagged("next", 60, 3), clips).at(5)
    assert torch.equal(following["codes"], again["codes"])
    sexes = TaggedRows(Tagged("sex", 20, 4), clips).at(0)
    assert sexes["labels"].tolist() == [0, 1, 0, 1] and sexes["codes"].shape == (4, 2, 20)
    held = held_rows(clips, Tagged("phones", 60))
    assert [tuple(c.shape) for c, _ in held] == [(2, 60), (2, 60)] and held[0][1][:30].tolist() == list(range(30))
    assert len(held_rows(clips, Tagged("sex", 20))) == 1 + 2 + 1 + 2
    with pytest.raises(SlmError, match="suits the task"):
        TaggedRows(Tagged("sex", 20), [c for c in clips if c.sex == "f"])


def test_a_backbone_that_hears_the_future_is_refused_where_the_task_is_causal():
    from slm.backbone.gated_conv import GatedConv
    from slm.stage.tagging import Tagger

    with pytest.raises(SlmError, match="must not hear the future"):
        Tagger.Config(GatedConv.Config(16, 1, causal=False), causal=True).build()


def test_two_directions_hear_past_and_future_and_no_padding():
    from slm.backbone.bidirectional import Bidirectional
    from slm.backbone.mamba2 import Mamba2

    torch.manual_seed(0)
    both = Bidirectional.Config(Mamba2.Config(16, 1, headdim=16, d_state=8)).build().eval()
    x = torch.randn(2, 9, 16)
    y, _ = both(x)
    for step in (0, 8):
        moved = x.clone()
        moved[:, step] += 1
        assert (both(moved)[0] - y).abs().amax((0, 2)).min() > 1e-6, "every step hears every step"
    ragged, _ = both(x, lengths=torch.tensor([9, 5]))
    alone, _ = both(x[1:, :5])
    torch.testing.assert_close(ragged[1:, :5], alone, atol=1e-6, rtol=1e-5)
    with pytest.raises(SlmError, match="no state"):
        both.start(1)
