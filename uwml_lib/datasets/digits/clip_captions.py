"""Captions of clips: one true English sentence about some of the events of a clip."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from uwml_lib.datasets.digits.words import NOUNS, NUMBERS, noun, spoken, with_article

# What captions call a motion; the first word is the verb.
MOTION_WORDS: dict[str, tuple[str, ...]] = {
    "right": ("moves to the right", "moves right", "goes to the right", "goes right", "slides to the right"),
    "left": ("moves to the left", "moves left", "goes to the left", "goes left", "slides to the left"),
    "up": ("moves up", "goes up", "rises", "climbs"),
    "down": ("moves down", "goes down", "falls", "sinks"),
    "grow": ("grows", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller"),
    "still": ("stands still", "stays in place", "stays where it is"),
}
# Verb -> past tense and present participle.
VERBS: dict[str, tuple[str, str]] = {
    "moves": ("moved", "moving"), "goes": ("went", "going"), "slides": ("slid", "sliding"), "rises": ("rose", "rising"),
    "climbs": ("climbed", "climbing"), "falls": ("fell", "falling"), "sinks": ("sank", "sinking"),
    "grows": ("grew", "growing"), "gets": ("got", "getting"), "becomes": ("became", "becoming"),
    "shrinks": ("shrank", "shrinking"), "stands": ("stood", "standing"), "stays": ("stayed", "staying"),
}  # fmt: skip
PRESENT, PAST, PARTICIPLE = range(3)
OPENERS = ("", "", "a video of ", "a clip of ", "we see ")


@dataclass(frozen=True)
class Event:
    """What happens for some frames; motion is a key of `MOTION_WORDS`."""

    digit: int
    colour: str
    motion: str


def caption(events: list[Event], rng: random.Random) -> str:
    """Return one true English sentence about some of one to three events."""
    (form,) = rng.choices(list(FORMS), weights=list(FORMS.values())) if len(events) > 1 else [_one]
    return spoken(form(events, rng), rng)


def _named(event: Event, rng: random.Random) -> str:
    return with_article(noun(event.digit, event.colour, rng))


def _told(event: Event, rng: random.Random, tense: int = PRESENT) -> str:
    verb, *rest = rng.choice(MOTION_WORDS[event.motion]).split()
    if tense != PRESENT:
        verb = VERBS[verb][tense - PAST]
    return " ".join([_named(event, rng), verb, *rest])


def _two(events: list[Event], rng: random.Random) -> list[Event]:
    """Choose two events, the earlier first."""
    return [events[k] for k in sorted(rng.sample(range(len(events)), 2))]


def _one(events: list[Event], rng: random.Random) -> str:
    place = rng.randrange(len(events))
    if len(events) > 1 and place in (0, len(events) - 1) and rng.random() < 0.5:
        when = rng.choice(("at the end", "finally") if place else ("at first", "at the beginning"))
        return f"{when} {_told(events[place], rng)}"
    if rng.random() < 0.4:
        return rng.choice(OPENERS) + _told(events[place], rng, PARTICIPLE)
    return _told(events[place], rng)


def _then(events: list[Event], rng: random.Random) -> str:
    earlier, later = _two(events, rng)
    if rng.random() < 0.3:
        link = rng.choice((", then", "and then", ", followed by"))
        opener = rng.choice(OPENERS)
        return f"{opener}{_told(earlier, rng, PARTICIPLE)} {link} {_told(later, rng, PARTICIPLE)}"
    link = rng.choice((", then", "and then", ", after that", "before"))
    return f"{_told(earlier, rng)} {link} {_told(later, rng)}"


def _after(events: list[Event], rng: random.Random) -> str:
    earlier, later = _two(events, rng)
    main, other = _told(later, rng), _told(earlier, rng, rng.choice((PRESENT, PAST)))
    return f"{main} after {other}" if rng.random() < 0.6 else f"after {other} , {main}"


def _all(events: list[Event], rng: random.Random) -> str:
    first, *between, last = (_told(event, rng) for event in events)
    middle = "".join(f" , then {event}" for event in between)
    return f"first {first}{middle} {rng.choice((', then', 'and finally', ', and at last'))} {last}"


def _things(events: list[Event], rng: random.Random) -> str:
    earlier, later = (_named(event, rng) for event in _two(events, rng))
    if rng.random() < 0.3:
        return f"{rng.choice(OPENERS)}{later} after {earlier}"
    return f"{rng.choice(OPENERS)}{earlier} {rng.choice((', then', 'and then', 'followed by', 'before'))} {later}"


def _and(events: list[Event], rng: random.Random) -> str:
    *others, last = (_named(event, rng) for event in rng.sample(events, len(events)))
    return f"{rng.choice(OPENERS)}{' , '.join(others)} and {last}"


def _count(events: list[Event], rng: random.Random) -> str:
    how_many = NUMBERS[len(events)] if rng.random() < 0.7 else str(len(events))
    which, event = rng.choice((("first", events[0]), ("last", events[-1])))
    what = f"is {_named(event, rng)}" if rng.random() < 0.5 else f"one is {_told(event, rng, PARTICIPLE)}"
    row = rng.choice(("one after the other", "in a row"))
    return f"{rng.choice(OPENERS)}{how_many} {rng.choice(NOUNS)}s {row} , the {which} {what}"


# Form of a caption of several events -> how often it is taken.
FORMS: dict[Callable[[list[Event], random.Random], str], float] = {
    _one: 1.5, _then: 4, _after: 3, _all: 3, _things: 1.5, _and: 0.5, _count: 1,
}  # fmt: skip
