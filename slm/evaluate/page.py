"""An evaluation as a page: the table, and of the first pairs every kind of audio to play and to look at, with what a recogniser wrote.

    OUT/index.html   OUT/heard/LINE/ID.wav   OUT/heard/LINE/ID.png

One folder, no script, nothing from anywhere else: it can be opened, zipped or served as it is. N samples
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from slm.data.replacing import replacing
from slm.evaluate.judge import Voiced
from slm.evaluate.pairs import Pair, read_audio
from slm.evaluate.report import Report

SHOWN = 12  # pairs that can be heard
STYLE = """
body { font-family: sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1em; }
table { border-collapse: collapse; } td, th { padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #e2e8f0; }
td { font-variant-numeric: tabular-nums; } .pair { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 2rem; }
figure { margin: 0; width: 17rem; } figure img { width: 17rem; height: 7rem; display: block; } audio { width: 17rem; height: 2.2rem; }
figcaption { font-size: .85rem; } small { color: #64748b; }
"""


def kept(line: str, source: Callable[[int, Pair], Voiced], out: Path) -> Callable[[int, Pair], Voiced]:
    """The same source, which keeps the sound and the picture of the first SHOWN pairs."""

    def heard(i: int, pair: Pair) -> Voiced:
        voiced = source(i, pair)
        if i < SHOWN:
            keep(out, line, pair.id, voiced)
        return voiced

    return heard


def keep(out: Path, line: str, name: str, voiced: Voiced) -> None:
    """The sound and the picture of something that was heard; of nothing, neither."""
    from matplotlib.image import imsave

    from slm.data.audio import write
    from slm.demo.picture import FLOOR, spectrogram

    audio = torch.as_tensor(voiced.audio).detach().float().reshape(-1)
    folder = out / "heard" / plain(line)
    folder.mkdir(parents=True, exist_ok=True)
    if len(audio):
        write(folder / f"{name}.wav", audio, voiced.rate)
        picture = spectrogram(audio, voiced.rate)[::2, ::2]  # as many points as a page shows
        imsave(folder / f"{name}.png", picture.numpy(), cmap="magma", vmin=FLOOR, vmax=0, origin="lower")


def write_page(report: Report, pairs: Sequence[Pair], out: Path, title: str) -> Path:
    """OUT/index.html of what was kept and of the report."""
    for pair in pairs[:SHOWN]:
        keep(out, "prompt", pair.id, Voiced(*read_audio(pair.prompt_path)))
    heard = {(told["line"], told["id"]): told for told in report.utterances}
    parts = [f"<h1>{html.escape(title)}</h1>", table(report)]
    parts += [f"<p>{html.escape(remark)}</p>" for remark in report.remarks()]
    for pair in pairs[:SHOWN]:
        parts.append(f"<h2>{html.escape(pair.text)}</h2><p><small>{html.escape(pair.speaker)}, {html.escape(pair.id)}</small></p>")
        figures = [figure(out, "prompt", pair.id, "the voice")]
        figures += [figure(out, line, pair.id, caption(heard[line, pair.id])) for line in report.lines]
        parts.append(f'<div class="pair">{"".join(figures)}</div>')
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    with replacing(out / "index.html") as temporary:
        temporary.write_text(f"{head}{''.join(parts)}</html>", encoding="utf-8")
    return out / "index.html"


def table(report: Report) -> str:
    """Measures down, lines across."""
    rows = ["<tr><th></th>" + "".join(f"<th>{html.escape(line)}</th>" for line in report.lines) + "</tr>"]
    for name, cells in report.rows():
        rows.append(f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def figure(out: Path, line: str, name: str, told: str) -> str:
    here = f"heard/{plain(line)}/{html.escape(name)}"
    there = (out / "heard" / plain(line) / f"{name}.wav").exists()
    shown = f'<img src="{here}.png" alt="spectrogram"><audio controls preload="none" src="{here}.wav"></audio>' if there else "(nothing)"
    return f"<figure><b>{html.escape(line)}</b>{shown}<figcaption>{told}</figcaption></figure>"


def caption(told: dict) -> str:
    """What a recogniser wrote, and the similarity to the prompt."""
    words = html.escape(told["heard"]) or "(no words)"
    return f"“{words}”<br><small>similarity {told['own']:.2f}, opinion {told['mos']:.2f}</small>"


def plain(line: str) -> str:
    """A line's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", line)
