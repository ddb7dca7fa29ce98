"""Many requests of every kind, to find output that is empty, endless, looping, silent or cut off. No judge is needed.

What is counted is what a user would notice: seconds of speech for each phone that was to be said, and the reason why each piece ended.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slm.data.replacing import replacing
from slm.speak import QUIET

WORDS = """
time people way water day part number sound place year work name sentence man line boy farm animal house page letter
mother answer study still learn plant cover food sun four between state keep eye never last thought city tree cross hard
start might story far sea draw left late run while press close night real life few north open seem together next white
children begin got walk example ease paper group always music those both mark often until mile river car feet care
second book carry took science eat room friend began idea fish mountain stop once base hear horse cut sure watch color
face wood main enough plain girl usual young ready above ever red list though feel talk bird soon body dog family direct
pose leave song measure door product black short numeral class wind question happen complete ship area half rock order
fire south problem piece
""".split()

QUICKEST, SLOWEST = 0.03, 0.6  # seconds a phone; speech lies between .05 and .15


@dataclass
class Request:
    kind: str
    text: str
    seed: int


@dataclass
class Outcome:
    """What became of all requests. `bad` holds those that a user would call broken, each with the reason."""

    requests: int = 0
    stops: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    wall: float = 0.0
    bad: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rtf(self) -> float:
        return self.wall / max(1e-9, self.seconds)


def requests(count: int, seed: int = 0) -> list[Request]:
    """`count` texts: one word, plain sentences, repeated words, numbers, odd punctuation, shouting, a paragraph."""
    draw = random.Random(seed)

    def some(low: int, high: int) -> list[str]:
        return [draw.choice(WORDS) for _ in range(draw.randint(low, high))]

    kinds = {
        "word": lambda: draw.choice(WORDS),
        "sentence": lambda: " ".join(some(4, 14)).capitalize() + ".",
        "repeated": lambda: " ".join([draw.choice(WORDS)] * draw.randint(3, 8)) + ".",
        "numbers": lambda: f"In {draw.randint(1500, 2030)}, {draw.randint(2, 99999)} of 7.5 % cost ${draw.randint(1, 900)}.",
        "punctuation": lambda: "... " + draw.choice(["!?!", ";;", "--", "()"]).join(some(3, 8)) + " !!!",
        "letters": lambda: " ".join(draw.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(draw.randint(1, 6))),
        "shout": lambda: " ".join(some(3, 8)).upper() + "!",
        "paragraph": lambda: " ".join(" ".join(some(5, 12)).capitalize() + "." for _ in range(draw.randint(3, 5))),
    }
    names = list(kinds)
    return [Request(name, kinds[name](), i) for i, name in ((i, names[i % len(names)]) for i in range(count))]


def run(speaker, voices: list[str | None], count: int, out: Path, seed: int = 0, progress: bool = True) -> Outcome:
    """Put `count` requests to a slm.speak.Speaker, the voices in turn; OUT/requests.json gets the outcome."""
    import time

    from rich.console import Console
    from rich.progress import track

    outcome = Outcome()
    for request in track(requests(count, seed), "Requests", console=Console(stderr=True), disable=not progress):
        began = time.perf_counter()
        speech = speaker.speak(request.text, voice=voices[request.seed % len(voices)], seed=request.seed)
        outcome.wall += time.perf_counter() - began
        outcome.requests += 1
        outcome.seconds += speech.seconds
        outcome.stops[speech.stop_reason] = outcome.stops.get(speech.stop_reason, 0) + 1
        if reason := wrong(speech, len(speaker.text.encode(request.text))):
            outcome.bad.append({"reason": reason, "seconds": round(speech.seconds, 2), **asdict(request)})
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "requests.json") as temporary:
        temporary.write_text(json.dumps({**asdict(outcome), "rtf": outcome.rtf, "seed": seed, "decode": speaker.settings}, indent=1))
    return outcome


def wrong(speech, phones: int) -> str | None:
    """Why a user would call this broken, or None."""
    if speech.stop_reason != "end":
        return f"ended by {speech.stop_reason}"
    if not speech.audio.isfinite().all():
        return "not finite"
    if speech.audio.square().mean().sqrt() < QUIET:
        return "silent"
    each = speech.seconds / phones
    if not QUICKEST < each < SLOWEST:
        return f"{each:.3f} s a phone"
    return None
