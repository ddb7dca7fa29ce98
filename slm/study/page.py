"""Every committed result of a study as one page: recipes/study/README.md, written by `python -m slm.study.page` and never by hand."""

from __future__ import annotations

import json
from pathlib import Path

from slm.errors import SlmError

FOLDER = Path(__file__).parents[2] / "recipes" / "study"
HEAD = """# Claims of papers, tested

Each study trains what it compares, on speech that leaves out some speakers, and measures it on those, with every seed; intervals are
of 95 % over recordings (or sentences), each difference taken within the same draw. Trainings are small, minutes to half an hour on a
core: a study says whether an effect is there at this size. A claim holds if its interval leaves out 0 on the claimed side with every
seed; one that does not hold is a result too. `slm systems` says which study speaks for which system.

Where a study is about codes of the bundled codec, they were those of [spectral.py](../codec/spectral.py) with [its refined
decoder](../codec/refined.py), which was bundled then; now it is a codec of mels. Run again, such a study gives other figures. Hard
sentences, VALL-E's second stage, the latent sequence of HAM-TTS, the best of eight readings and a voice that is changed are of the codec
bundled now.
"""


def page(folder: Path = FOLDER) -> str:
    """The Markdown of all results below `folder` that hold claims. SlmError if one is damaged."""
    parts = [HEAD]
    for path in sorted(folder.glob("*.json")):
        try:
            report = json.loads(path.read_text())
        except ValueError:
            raise SlmError(f"{path} is damaged") from None
        if isinstance(report, dict) and "verdicts" in report:
            parts.append(section(path.stem, report))
    return "\n".join(parts)


def section(name: str, report: dict) -> str:
    seeds = ", ".join(map(str, report["seeds"]))
    command = report.get("command") or f"slm study recipes/study/{name}.py"
    lines = [
        f"## {report['about']}",
        "",
        f"[{name}.py]({name}.py), `{command}`; seeds {seeds}; {report['items']} {report.get('of', 'held-out recordings')}; "
        f"every figure in [{name}.json]({name}.json).",
        "",
        "| claim | one | other | one - other, a seed each | holds |",
        "|---|---|---|---|---|",
    ]
    for verdict in report["verdicts"]:
        one, other = (", ".join(f"{pair[side]:.3f}" for pair in verdict["values"]) for side in (0, 1))
        gaps = ", ".join(f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" for d in verdict["differences"])
        lines.append(f"| {verdict['claim']['says']} | {one} | {other} | {gaps} | {'yes' if verdict['holds'] else '**no**'} |")
    return "\n".join([*lines, ""])


def main() -> None:
    from slm.data.replacing import replacing

    with replacing(FOLDER / "README.md") as temporary:
        temporary.write_text(page())


if __name__ == "__main__":
    main()
