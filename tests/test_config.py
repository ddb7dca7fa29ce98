"""A config survives JSON, only this project's dataclasses are ever built, and --set reaches every place of the tree."""

import json
import sys
import types
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Optional

import pytest

from slm.config import LATER, change, digest, from_dict, to_dict
from slm.errors import SlmError
from slm.stream.part import Part


@dataclass
class Inner:
    dim: int = 8
    rate: float = 0.5
    ratios: tuple[int, ...] = (8, 5)
    betas: tuple[float, float] = (0.9, 0.98)
    cap: float | None = None
    causal: bool = True

    def __post_init__(self):
        if self.dim < 1:
            raise ValueError(f"dim is {self.dim}, but must be at least 1")


@dataclass
class Outer:
    stages: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    backbone: Any = field(default_factory=Inner)
    name: str = "outer"


@pytest.fixture(autouse=True, scope="module")
def in_a_module_of_the_project():
    """The two classes above, as if they stood in slm/made_up.py."""
    module = types.ModuleType("slm.made_up")
    for cls in (Inner, Outer):
        cls.__module__ = module.__name__
        setattr(module, cls.__name__, cls)
    module.Foreign = make_dataclass("Foreign", [], namespace={"__module__": "elsewhere"})  # imported there, not defined there
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


@pytest.fixture
def config():
    parts = [Part("text", learn=False), Part("acoustic", levels=(0, 1))]
    return Outer(stages={"ar": Inner(cap=2.0), "nar": [Inner(dim=4, ratios=(2,))]}, parts=parts)


def test_a_config_comes_back_from_json_equal_with_its_tuples_and_classes(config):
    back = from_dict(json.loads(json.dumps(to_dict(config))))
    assert back == config
    assert back.stages["nar"][0].ratios == (2,) and back.parts[1].levels == (0, 1)
    assert to_dict(config)["stages"]["ar"]["class"] == "slm.made_up.Inner"


def test_an_int_in_a_field_of_floats_is_the_same_config_as_the_float(config):
    assert digest(from_dict({"class": "slm.made_up.Inner", "rate": 1})) == digest(Inner(rate=1.0))


@pytest.mark.parametrize(
    "name",
    [
        "os.PathLike",
        "subprocess.Popen",
        "argparse.Namespace",
        "slm.errors.SlmError",  # ours, but no dataclass
        "slm.config.ast.AST",  # reached through one of our modules
        "slm.stream.part.dataclass",
        "slm.stream.part.SlmError",
        "slm.made_up.Foreign",
        "slm_evil.Config",
        "slmother.Config",
        "slm.nowhere.Config",
        "slm.__main__.main",
        "slm..Config",
        "slm",
        "",
        7,
        None,
    ],
)
def test_only_dataclasses_of_the_project_are_built(name):
    with pytest.raises(SlmError, match="names the class"):
        from_dict({"class": name})


def test_a_config_that_names_foreign_code_does_not_even_import_it(tmp_path, monkeypatch):
    (tmp_path / "intruder.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SlmError):
        from_dict({"stages": [{"class": "intruder.Config"}]})
    assert "intruder" not in sys.modules


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"width": 3}, "has no field 'width'; its fields are dim, rate, ratios"),
        ({"dim": "wide"}, "Inner.dim is 'wide', but must be int"),
        ({"dim": 1.5}, "Inner.dim is 1.5, but must be int"),
        ({"dim": True}, "Inner.dim is True, but must be int"),
        ({"causal": 1}, "must be True or False"),
        ({"betas": [0.9]}, "must have 2 entries"),
        ({"ratios": [8, "x"]}, r"Inner.ratios.1 is 'x', but must be int"),
        ({"cap": "high"}, "must be float or None"),
        ({"dim": 0}, "dim is 0, but must be at least 1"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_legal(fields, says):
    with pytest.raises(SlmError, match=says):
        from_dict({"class": "slm.made_up.Inner", **fields})


def test_a_missing_field_is_named():
    with pytest.raises(SlmError, match="stages"):
        from_dict({"class": "slm.made_up.Outer"})


@pytest.mark.parametrize("value", [object(), {1: 2}, {"class": 3}, {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(SlmError):
        to_dict({"value": value})


@pytest.mark.parametrize(
    "text, reach, value",
    [
        ("stages.ar.dim=4", lambda c: c.stages["ar"].dim, 4),
        ("stages.nar.0.rate=5e-4", lambda c: c.stages["nar"][0].rate, 5e-4),
        ("stages.nar.0.rate=2", lambda c: c.stages["nar"][0].rate, 2.0),
        ("stages.ar.ratios=[4, 2]", lambda c: c.stages["ar"].ratios, (4, 2)),
        ("stages.ar.ratios.1=7", lambda c: c.stages["ar"].ratios, (8, 7)),
        ("stages.ar.cap=None", lambda c: c.stages["ar"].cap, None),
        ("backbone.causal=False", lambda c: c.backbone.causal, False),
        ("parts.1.levels=(0, 4)", lambda c: c.parts[1].levels, (0, 4)),
        ("parts.1.layout=delay", lambda c: c.parts[1].layout, "delay"),
        ("name=a=b", lambda c: c.name, "a=b"),
        ("name='1'", lambda c: c.name, "1"),
    ],
)
def test_set_changes_one_place_of_a_copy(config, text, reach, value):
    before = to_dict(config)
    changed = change(config, text)
    assert reach(changed) == value and type(reach(changed)) is type(value)
    assert to_dict(config) == before != to_dict(changed)


@pytest.mark.parametrize(
    "text, says",
    [
        ("stages.ar.dmi=4", "no 'dmi' here; legal are dim, rate"),
        ("stages.xx.dim=4", "no 'xx' here; legal are ar, nar"),
        ("parts.2.levels=4", "no '2' here; legal are 0, 1"),
        ("name.first=4", "'outer' has nothing inside"),
        ("stages.ar.dim=four", "stages.ar.dim is 'four', but must be int"),
        ("stages.ar.causal=false", "must be True or False"),
        ("stages.ar.dim=0", "at least 1"),
        ("stages.ar=4", "cannot replace a Inner"),
        ("parts.1.layout=sideways", "must be one of"),
        ("stages.ar.dim", "not of the form path=value"),
        ("=4", "not of the form path=value"),
        ("backbone=os.system('true')", "cannot build 'os.system'; it knows Transformer.Config, Mamba2.Config"),
        ("backbone=__import__('os')", "cannot build"),
        ("backbone=(lambda: 1)()", "cannot build"),
    ],
)
def test_set_says_what_is_wrong_and_what_is_legal(config, text, says):
    with pytest.raises(SlmError, match=says.replace("(", r"\(").replace(")", r"\)")):
        change(config, text)


def test_set_puts_another_backbone_in_place(config):
    mamba2 = pytest.importorskip("slm.backbone.mamba2")
    changed = change(config, "stages.ar=Mamba2.Config(dim=64, depth=2)")
    assert changed.stages["ar"] == mamba2.Mamba2.Config(dim=64, depth=2)
    assert change(config, "backbone=Mamba2.Config(64, depth=2)").backbone == changed.stages["ar"]
    assert from_dict(to_dict(changed)) == changed


def test_set_writes_the_parts_of_a_hybrid_as_a_list_of_constructors(config):
    hybrid, mamba2, rwkv = (pytest.importorskip(f"slm.backbone.{name}") for name in ("hybrid", "mamba2", "rwkv"))
    parts = [mamba2.Mamba2.Config(64, depth=2), rwkv.RWKV.Config(64, mlp=32)]
    written = "[Mamba2.Config(64, depth=2), RWKV.Config(dim=64, mlp=32)]"
    for text in (f"Hybrid.Config({written})", f"Hybrid.Config(parts={written})"):
        changed = change(config, f"backbone={text}")
        assert changed.backbone == hybrid.Hybrid.Config(parts) and from_dict(to_dict(changed)) == changed
    assert change(changed, f"backbone.parts={written.replace('64', '32')}").backbone.parts[1] == rwkv.RWKV.Config(32, mlp=32)
    assert change(config, f"stages.nar={written}").stages["nar"] == parts
    assert change(config, f"stages.nar=({written}, [1, (2,)])").stages["nar"] == (parts, [1, (2,)])


@pytest.mark.parametrize(
    "written, says",
    [
        ("[Mamba2.Config(64), os.system('true')]", "cannot build 'os.system'"),
        ("[[Mamba2.Config(64), x]]", "x is not a literal"),
        ("[*(Mamba2.Config(64),)]", "not a literal"),
        ("[Mamba2.Config(width=3)]", "has no field 'width'"),
        ("[64]", "must be"),
    ],
)
def test_a_list_after_set_holds_nothing_but_literals_and_constructors(config, written, says):
    with pytest.raises(SlmError, match=says):
        change(config, f"backbone=Hybrid.Config({written})")


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("width=64", "has no field"),
        ("dim='x'", "must be int"),
        ("dim=1+x", "not a literal"),
        ("64, dim=64", "given twice"),
        ("**{}", "without"),
    ],
)
def test_a_constructor_after_set_is_checked_like_a_stored_config(config, arguments, says):
    pytest.importorskip("slm.backbone.mamba2")
    with pytest.raises(SlmError, match=says):
        change(config, f"backbone=Mamba2.Config({arguments})")


def test_a_digest_names_the_config_and_not_the_order_of_its_keys(config):
    swapped = Outer(stages=dict(reversed(config.stages.items())), parts=config.parts)
    assert digest(config) == digest(swapped) == digest(from_dict(to_dict(config)))
    assert digest(config) != digest(change(config, "stages.ar.dim=9"))
    assert len(digest(config)) == 12


def test_a_field_that_came_later_changes_a_digest_only_where_it_is_used():
    before = make_dataclass("Grown", [("dim", int, 8)])
    after = make_dataclass("Grown", [("dim", int, 8), ("depth", Optional[Inner], field(default=None, metadata=LATER))])
    assert digest([before()]) == digest([after()]) != digest([after(depth=Inner())])
    assert to_dict(after())["depth"] is None, "it is stored all the same"
