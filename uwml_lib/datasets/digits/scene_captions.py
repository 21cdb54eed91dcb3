"""Captions of scenes: one true English sentence about some of the digits of a picture."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uwml_lib.datasets.digits.words import NOUNS, NUMBERS, colour_word, noun, spoken, with_article

PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
SIZES = {True: ("big", "large", "huge"), False: ("small", "little", "tiny")}
RELATIONS = {
    "left": ("to the left of", "left of"), "right": ("to the right of", "right of"), "above": ("above", "over"),
    "below": ("below", "under", "beneath"), "beside": ("next to", "beside"),
}  # fmt: skip
PLACES = {
    "top": ("at the top",), "bottom": ("at the bottom",), "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"), "middle": ("in the middle", "in the center"),
    "top left": ("in the top left corner", "in the upper left"),
    "top right": ("in the top right corner", "in the upper right"),
    "bottom left": ("in the bottom left corner", "in the lower left"),
    "bottom right": ("in the bottom right corner", "in the lower right"),
}  # fmt: skip
OPENERS = ("", "", "", "there is ", "a picture of ", "an image of ", "this is ", "we can see ")
VERBS = ("is", "sits", "stands", "is written", "is placed")

SAY_SIZE = 0.3
"""How often a caption says a thing's size."""


@dataclass(frozen=True)
class Thing:
    """One digit of a picture; x and y are the centre of its box as fractions of the picture, y downwards."""

    digit: int
    colour: str
    large: bool
    x: float
    y: float


def caption(things: list[Thing], rng: random.Random) -> str:
    """Return one true English sentence about some of three to five things."""
    text = None
    while text is None:  # not every picture has, say, one thing between two others
        form = rng.choices(list(FORMS), weights=list(FORMS.values()))[0]
        text = form(rng.sample(things, len(things)), rng)
    return spoken(text, rng)


def noun_phrase(thing: Thing, rng: random.Random) -> str:
    """Name a thing by its digit, colour and size, or some of these."""
    words = noun(thing.digit, thing.colour, rng)
    if rng.random() < SAY_SIZE:
        words = f"{rng.choice(SIZES[thing.large])} {words}"
    return with_article(words)


def relations(a: Thing, b: Thing) -> list[str]:
    """Return the keys of RELATIONS that truly lead from a to b: far apart along one axis, less so along the other."""
    dx, dy = a.x - b.x, a.y - b.y
    if max(abs(dx), abs(dy)) < 0.15:
        return []
    if abs(dx) > 1.5 * abs(dy):
        return ["left" if dx < 0 else "right"] + (["beside"] if abs(dx) < 0.45 else [])
    if abs(dy) > 1.5 * abs(dx):
        return ["above" if dy < 0 else "below"]
    return []


def is_between(a: Thing, b: Thing, c: Thing) -> bool:
    """Tell whether a lies near the middle of the line from b to c."""
    line, way = np.array([c.x - b.x, c.y - b.y]), np.array([a.x - b.x, a.y - b.y])
    length = np.linalg.norm(line)
    if length < 0.4:
        return False
    along, aside = way @ line / length**2, abs(line[0] * way[1] - line[1] * way[0]) / length
    return bool(0.3 < along < 0.7 and aside < 0.12)


def places(thing: Thing) -> list[str]:
    """Return the keys of PLACES where a thing's centre truly is: the picture's thirds."""
    column = "left" if thing.x < 1 / 3 else "right" if thing.x > 2 / 3 else ""
    row = "top" if thing.y < 1 / 3 else "bottom" if thing.y > 2 / 3 else ""
    both = [f"{row} {column}"] if row and column else []
    return both + [name for name in (row, column) if name] or ["middle"]


def _place(things: list[Thing], rng: random.Random) -> str:
    where = _place_words(things[0], rng)
    if rng.random() < 0.4:
        return f"{noun_phrase(things[0], rng)} {rng.choice(VERBS)} {where}"
    return f"{_opener(rng)}{noun_phrase(things[0], rng)} {where}"


def _two_places(things: list[Thing], rng: random.Random) -> str:
    parts = [f"{noun_phrase(thing, rng)} {_place_words(thing, rng)}" for thing in things[:2]]
    return _opener(rng) + " and ".join(parts)


def _relation(things: list[Thing], rng: random.Random) -> str | None:
    a, b = things[:2]
    if not (kinds := relations(a, b)):
        return None
    how = rng.choice(RELATIONS[rng.choice(kinds)])
    if rng.random() < 0.5:
        return f"{noun_phrase(a, rng)} {rng.choice(VERBS)} {how} {noun_phrase(b, rng)}"
    return f"{_opener(rng)}{noun_phrase(a, rng)} {how} {noun_phrase(b, rng)}"


def _between(things: list[Thing], rng: random.Random) -> str | None:
    a, b, c = things[:3]
    if not is_between(a, b, c):
        return None
    return f"{_opener(rng)}{noun_phrase(a, rng)} between {noun_phrase(b, rng)} and {noun_phrase(c, rng)}"


def _two(things: list[Thing], rng: random.Random) -> str:
    a, b = (noun_phrase(thing, rng) for thing in things[:2])
    return f"{_opener(rng)}{a} {rng.choice(('and', 'and', 'with'))} {b}"


def _three(things: list[Thing], rng: random.Random) -> str:
    a, b, c = (noun_phrase(thing, rng) for thing in things[:3])
    return f"{_opener(rng)}{a} , {b} and {c}"


def _count(things: list[Thing], rng: random.Random) -> str:
    how_many = NUMBERS[len(things)] if rng.random() < 0.7 else str(len(things))
    link = rng.choice(("including", "with", ", one is", ", one of them is"))
    where = f" {_place_words(things[0], rng)}" if rng.random() < 0.3 else ""
    return f"{_opener(rng, plural=True)}{how_many} {rng.choice(NOUNS)}s {link} {noun_phrase(things[0], rng)}{where}"


def _group(things: list[Thing], rng: random.Random) -> str | None:
    by_colour = rng.random() < 0.5
    group = [x for x in things if (x.colour == things[0].colour if by_colour else x.digit == things[0].digit)]
    if len(group) < 2:
        return None
    named = f"{colour_word(group[0].colour, rng)} {rng.choice(NOUNS)}s" if by_colour else PLURALS[group[0].digit]
    text = f"{_opener(rng, plural=True)}{NUMBERS[len(group)]} {named}"
    others = [thing for thing in things if thing not in group]
    return f"{text} and {noun_phrase(others[0], rng)}" if others and rng.random() < 0.7 else text


# Form of a caption -> how often it is tried.
FORMS: dict[Callable[[list[Thing], random.Random], str | None], float] = {
    _place: 0.5, _two_places: 1, _relation: 5, _between: 1, _two: 2, _three: 5, _count: 1, _group: 1,
}  # fmt: skip


def _opener(rng: random.Random, plural: bool = False) -> str:
    opener = rng.choice(OPENERS)
    return {"there is ": "there are ", "this is ": "these are "}.get(opener, opener) if plural else opener


def _place_words(thing: Thing, rng: random.Random) -> str:
    return rng.choice(PLACES[rng.choice(places(thing))])
