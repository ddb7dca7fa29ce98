"""`slm study`: trains what a study compares, measures it on held-out speech, and says which claims hold.

A study is a file below recipes/study/ with `study()` and `small()`, which return a Study. OUT/VARIANT-SEED holds each run; what is finished
is not trained again, what was broken off goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from slm.config import digest
from slm.errors import SlmError
from slm.recipe import Recipe
from slm.study.figures import Difference, Figure, difference
from slm.study.heldout import Item, heldout

Figures = dict[str, Figure]


@dataclass
class Claim:
    """`says` holds where the figure `one` lies beyond the figure `other`; each is (variant, figure).

    lower: `one` is to be the smaller. The claim holds if the interval of the difference leaves out 0 with every seed.
    """

    says: str
    one: tuple[str, str]
    other: tuple[str, str]
    lower: bool = False


@dataclass
class Study:
    """variants: name -> (seed, its folder) -> recipe. measure: (folder, items, seed) -> figures of one run. of: what its figures count."""

    about: str
    variants: dict[str, Callable[[int, Path], Recipe]]
    measure: Callable[[Path, list[Item], int], Figures]
    claims: list[Claim]
    seeds: tuple[int, ...] = (0, 1)
    of: str = "held-out recordings"


@dataclass
class Verdict:
    """A claim by seed: the figures compared, their difference, and whether it held everywhere."""

    claim: Claim
    values: list[tuple[float, float]]
    differences: list[Difference]

    @property
    def holds(self) -> bool:
        return all(d.high < 0 if self.claim.lower else d.low > 0 for d in self.differences)


@dataclass
class Report:
    """command: what a user types to get it again. items: how many, of what is counted, the first claim is about."""

    about: str
    seeds: tuple[int, ...]
    items: int
    speakers: int  # of the recordings that the study was given
    configs: dict[str, str] = field(default_factory=dict)  # variant -> digest of its recipe
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # variant -> figure -> one value a seed
    verdicts: list[Verdict] = field(default_factory=list)
    command: str = ""
    of: str = "held-out recordings"

    def save(self, path: Path) -> None:
        from slm.data.replacing import write_json

        told = [asdict(v) | {"holds": v.holds} for v in self.verdicts]
        write_json(path, asdict(self) | {"verdicts": told})


def load(path: Path) -> object:
    """The module of a study file. It is code of the user's own choice, and it is run."""
    from slm import recipe

    return recipe.load(path, ("study", "small"))


def run(study: Study, out: Path, data: Path = Path("data"), seeds: tuple[int, ...] = (), quiet: bool = False, command: str = "") -> Report:
    """Train what is missing below `out`, measure all of it on the held-out speech of `data`, and write OUT/report.json.

    seeds: other ones than the study's. SlmError if there is no held-out speech.
    """
    items = heldout(data)
    seeds = seeds or study.seeds
    runs = {(name, seed): out / f"{name}-{seed}" for name in study.variants for seed in seeds}
    for (name, seed), folder in runs.items():
        train(study.variants[name](seed, folder), folder, quiet)
    figures = {key: study.measure(folder, items, key[1]) for key, folder in runs.items()}
    report = Report(study.about, tuple(seeds), len(items), len({item.speaker for item in items}), command=command, of=study.of)
    for name in study.variants:
        report.configs[name] = digest(study.variants[name](seeds[0], Path("OUT")))
        report.figures[name] = {figure: [figures[name, seed][figure].value for seed in seeds] for figure in figures[name, seeds[0]]}
    report.verdicts = [judge(claim, figures, seeds) for claim in study.claims]
    report.items = report.verdicts[0].differences[0].n if report.verdicts else len(items)
    report.save(out / "report.json")
    return report


def train(recipe: Recipe, folder: Path, quiet: bool = False) -> None:
    """Every stage of the recipe that is not finished in `folder`, in order. SlmError if one was finished as another recipe has it."""
    from slm.train.run import train_stage

    for stage in recipe.stages:
        finished = folder / stage / "finished"
        data = {stage: recipe.data[stage]} if stage in recipe.data else {}
        made = digest(replace(recipe, stages={stage: recipe.stages[stage]}, data=data, train={stage: recipe.train[stage]}))
        if not finished.exists():
            train_stage(recipe, stage, folder, resume=True, quiet=quiet)
            finished.parent.mkdir(parents=True, exist_ok=True)
            finished.write_text(made)
        elif (was := finished.read_text()) != made:
            raise SlmError(f"{folder / stage} is of another recipe ({was or 'unknown'}, not {made}); remove it or change --out")


def judge(claim: Claim, figures: dict[tuple[str, int], Figures], seeds: tuple[int, ...]) -> Verdict:
    """The claim by seed. SlmError if it names what was not measured."""
    values, differences = [], []
    for seed in seeds:
        pair = []
        for variant, name in (claim.one, claim.other):
            if name not in figures.get((variant, seed), {}):
                raise SlmError(f"the study claims something of {name!r} of {variant!r}, which was not measured")
            pair.append(figures[variant, seed][name])
        values.append((pair[0].value, pair[1].value))
        differences.append(difference(*pair, seed=seed))
    return Verdict(claim, values, differences)


def show(report: Report) -> None:
    """Two tables: every figure of every variant, and each claim with its differences."""
    from rich.console import Console
    from rich.table import Table

    out = Console(width=150)
    measured = Table(title=report.about, caption=f"{report.items} {report.of}; seeds {report.seeds}")
    measured.add_column("figure")
    names = list(dict.fromkeys(figure for found in report.figures.values() for figure in found))
    for variant in report.figures:
        measured.add_column(variant, justify="right")
    for name in names:
        cells = (found.get(name) for found in report.figures.values())
        measured.add_row(name, *("-" if cell is None else "  ".join(f"{v:.3f}" for v in cell) for cell in cells))
    out.print(measured)
    told = Table(caption="one minus the other, with its 95 % interval over recordings, a line a seed")
    for heading in ("claim", "one", "other", "difference", "holds"):
        told.add_column(heading, justify="left" if heading == "claim" else "right")
    for v in report.verdicts:
        pairs = zip(*((f"{a:.3f}", f"{b:.3f}") for a, b in v.values))
        gaps = "\n".join(f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for d in v.differences)
        told.add_row(v.claim.says, *("\n".join(column) for column in pairs), gaps, "yes" if v.holds else "no")
    out.print(told)
