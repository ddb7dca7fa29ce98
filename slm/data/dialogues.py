"""Questions and answers made of templates: a world small enough that a tiny model can learn all of it, and right or wrong is plain."""

from __future__ import annotations

import numpy as np

from slm.errors import SlmError

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
OPPOSITES = dict(
    hot="cold", big="small", old="new", fast="slow", day="night", up="down", wet="dry", rich="poor", long="short", light="dark"
)
COLOURS = dict(sky="blue", grass="green", snow="white", coal="black", rose="red", lemon="yellow", milk="white", sea="blue", leaf="green")
PLACES = dict(
    milk="in the kitchen", car="in the street", book="on the shelf", boat="on the river", bird="in the tree", king="in the castle",
    fish="in the water", horse="in the field", letter="on the table", baker="in the shop",
)  # fmt: skip
SOUNDS = dict(dog="barks", cat="purrs", cow="moos", bird="sings", lion="roars", bee="hums", horse="neighs", duck="quacks")
NAMES = "Anna Peter Mary Jack Rose Tom Lucy Henry".split()
THINGS = "milk bread tea cake fish rice corn soup".split()


def every() -> list[tuple[str, str]]:
    """All (question, answer): sums, what comes next and before, opposites, colours, places, sounds, and who likes what."""
    told = []
    for a in range(1, 7):
        told += [(f"what is {NUMBERS[a]} plus {NUMBERS[b]}", f"it is {NUMBERS[a + b]}") for b in range(1, 7)]
    told += [(f"what comes after {NUMBERS[n]}", f"{NUMBERS[n + 1]} comes after {NUMBERS[n]}") for n in range(12)]
    told += [(f"what comes before {NUMBERS[n]}", f"{NUMBERS[n - 1]} comes before {NUMBERS[n]}") for n in range(1, 13)]
    told += [(f"what is the opposite of {a}", f"the opposite is {b}") for a, b in OPPOSITES.items()]
    told += [(f"which colour is the {thing}", f"the {thing} is {colour}") for thing, colour in COLOURS.items()]
    told += [(f"where is the {thing}", f"the {thing} is {place}") for thing, place in PLACES.items()]
    told += [(f"what does the {animal} do", f"the {animal} {sound}") for animal, sound in SOUNDS.items()]
    told += [(f"who likes {thing}", f"{name} likes {thing}") for name, thing in zip(NAMES, THINGS)]
    return told


def turns(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` dialogues, all of `every` in each round and in another order. SlmError for less than one."""
    if count < 1:
        raise SlmError(f"{count} dialogues were asked for; at least one is needed")
    draw, known, drawn = np.random.default_rng(seed), every(), []
    while len(drawn) < count:
        drawn += [known[i] for i in draw.permutation(len(known))]
    return drawn[:count]
