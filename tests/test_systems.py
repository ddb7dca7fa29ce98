"""`slm systems` tells what committed results say, and nothing else."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from slm import parity, systems
from slm.cli import app
from slm.errors import SlmError
from slm.study import page


def rows(recipes, monkeypatch) -> dict[str, systems.Row]:
    monkeypatch.setattr(systems, "RECIPES", recipes)
    return {row.name: row for row in systems.rows()}


@pytest.fixture
def recipes(tmp_path):
    """The results as committed, to be changed."""
    shutil.copytree(systems.RECIPES, tmp_path / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "recipes"


def test_every_system_is_listed_once_and_its_recipe_exists():
    listed = [system for group in systems.GROUPS.values() for system in group]
    assert len(listed) == len({system.name for system in listed}) == 46
    assert [s.recipe for s in listed if s.recipe and not (systems.RECIPES / s.recipe).is_file()] == []


def test_every_check_beside_transformers_is_one_that_verify_makes():
    told = {name for group in systems.GROUPS.values() for system in group for name in system.parity}
    assert told <= set(parity.names())


def test_what_is_told_follows_the_results(recipes, monkeypatch):
    path = recipes / "study" / "codec.json"
    report = json.loads(path.read_text())
    first = next(v for v in report["verdicts"] if v["claim"]["says"].startswith("teaching"))
    first |= {"holds": False, "values": [[0.125, 0.5]]}
    path.write_text(json.dumps(report))
    told = rows(recipes, monkeypatch)["SpeechTokenizer"]
    assert told.verified.startswith("2 of 3 claims hold") and "0.125 against 0.500" in told.figure


def test_without_results_every_system_is_not_yet(recipes, monkeypatch):
    for path in (recipes / "study").glob("*.json"):
        path.unlink()
    told = rows(recipes, monkeypatch).values()
    assert {(row.verified, row.figure) for row in told} == {("not yet", None)}


def test_a_check_that_failed_is_told_as_a_difference(recipes, monkeypatch):
    check = {"name": "rwkv", "mode": "transformers, logits", "error": 0.5, "passed": False}
    (recipes / "study" / "verify.json").write_text(json.dumps([check]))
    told = rows(recipes, monkeypatch)["RWKV"]
    assert told.verified == "differs from transformers" and told.figure == "largest error 5.0e-01"


def test_damaged_or_missing_results_are_one_sentence(recipes, monkeypatch, tmp_path):
    (recipes / "study" / "codec.json").write_text("{")
    with pytest.raises(SlmError, match="codec.json is damaged"):
        rows(recipes, monkeypatch)
    with pytest.raises(SlmError, match="in a clone"):
        rows(tmp_path / "nowhere", monkeypatch)


def test_the_command_prints_json():
    shown = CliRunner().invoke(app, ["systems", "--json"])
    assert shown.exit_code == 0
    listed = json.loads(shown.stdout)
    assert len(listed) == 46 and set(listed[0]) == {"name", "group", "recipe", "verified", "figure"}
    assert "HuBERT" in CliRunner().invoke(app, ["systems"]).stdout


def test_models_of_transformers_are_read_without_a_difference():
    found = list(parity.compare())
    assert {each.name for each in found} == set(parity.names())
    for each in found:
        assert each.error == 0 if each.exact else each.error < 1e-4, each


def test_the_page_of_studies_is_what_the_results_say():
    written = (page.FOLDER / "README.md").read_text()
    assert written == page.page(), "run: python -m slm.study.page"
    assert written.count("\n## ") == len([path for path in page.FOLDER.glob("*.json") if '"verdicts"' in path.read_text()])
