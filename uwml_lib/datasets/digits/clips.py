"""The embedded data set `clips`: short films of moving coloured handwritten digits with five captions each.

A clip is one to three events, one after the other: a digit of a colour moves, grows, shrinks or stands still. Clips
come in pairs, each of which tells the other backwards: the same digits in the same colours, but in reverse order and
with opposite motions. So whoever looks at the frames without their order cannot tell the two apart; captions do.

A frame is described by where a detector that is a little off finds the digit, and by the last hidden layer of a
classifier that was trained on the digits and colours of the train split alone. One frame says nothing about a motion.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.digits.classifier import CropClassifier, crop, train_classifier
from uwml_lib.datasets.digits.drawing import (
    COLOUR_NAMES,
    COLOURS,
    develop,
    digit_pools,
    ground,
    handwritten_digits,
    ink,
    paint,
    tints,
)
from uwml_lib.datasets.digits.embedded import (
    CAPTIONS_PER_IMAGE,
    SPLITS,
    TEXTS,
    EmbeddedSettings,
    write_texts,
    write_vectors,
)
from uwml_lib.datasets.digits.words import NOUNS, NUMBERS, noun, spoken, with_article

FRAME_SIZE = 36
FEATURE_SIZE = 128
PLACE_SIZE = 3
"""Numbers that say where a digit is: the x and y of its centre and its extent, as fractions of the frame."""
MAX_EVENTS = 3
HOW_MANY_EVENTS = (0.25, 0.45, 0.3)  # how often one, two, three
EVENT_LENGTHS = (4, 7)  # frames, least and most

# Motion -> which number of the place changes, and how; a motion and its opposite are neighbours.
MOTIONS: dict[str, tuple[int, int]] = {
    "right": (0, 1), "left": (0, -1), "up": (1, -1), "down": (1, 1), "grow": (2, 1), "shrink": (2, -1), "still": (0, 0),
}  # fmt: skip
MOTION_NAMES = tuple(MOTIONS)
OPPOSITE = np.array([1, 0, 3, 2, 5, 4, 6])

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
class ClipsSettings(EmbeddedSettings):
    """Sizes in clips; see `EmbeddedSettings`."""

    train: int = 1200
    dev: int = 250
    test: int = 400

    kind: ClassVar[str] = "clips"
    format_version: ClassVar[int] = 1
    files: ClassVar[tuple[str, ...]] = ("ims.npy", "offsets.npy", "pictures.npy", *TEXTS)

    def write(self, folder: Path, progress: Callable[[str], None]) -> dict[str, float]:
        """Write the files of every split; return the classifier's accuracy on frames of dev.

        `_ims.npy` (all frames, 128) float32, post-ReLU activations and then the found x, y and extent;
        `_offsets.npy` (N + 1,) int64, clip i has the frames offsets[i] to offsets[i + 1] - 1;
        `_pictures.npy` (all frames, 36, 36, 3) uint8; `_caps.txt`, line 5 * i + k describes clip i;
        `_caps.npy`, vectors of these; `_ids.txt`.
        """
        progress(f"drawing {self.train + self.dev + self.test} clips of moving handwritten digits")
        clips = {split: draw_clips(split, self) for split in SPLITS}
        places = {split: detect(clips[split], self.generator(split, "boxes")) for split in SPLITS}
        crops = {split: cut_out(clips[split].pixels, places[split]) for split in SPLITS}
        classifier = CropClassifier(FEATURE_SIZE - PLACE_SIZE, len(NUMBERS), len(COLOURS))
        train_classifier(classifier, crops["train"], *clips["train"].labels(), self.classifier_epochs, progress)
        outputs = {s: [torch.cat(x) for x in zip(*map(classifier, crops[s].split(1024)), strict=True)] for s in SPLITS}
        right = [x.argmax(1) == y for x, y in zip(outputs["dev"][1:], clips["dev"].labels(), strict=True)]
        accuracy = {name: round(x.float().mean().item(), 4) for name, x in zip(("digit", "colour"), right, strict=True)}
        progress("the classifier on dev frames: " + ", ".join(f"{name} {x:.1%}" for name, x in accuracy.items()))
        scale = 0.5 / outputs["train"][0].square().mean().sqrt()  # else the place would be too small to matter
        for split in SPLITS:
            features = np.concatenate([outputs[split][0] * scale, places[split]], axis=1)
            _write_split(folder, split, clips[split], features, self.seed)
        write_vectors(folder)
        return accuracy


CLIPS: dict[str, ClipsSettings] = {
    "clips": ClipsSettings(),
    "clips_smoke": ClipsSettings(train=160, dev=40, test=40),
}


@dataclass(frozen=True)
class Event:
    """What happens for some frames; motion is a key of MOTIONS."""

    digit: int
    colour: str
    motion: str


@dataclass(frozen=True)
class Clips:
    """Clips and what truly happens in them. Slots k >= count[i] of clip i are empty: an event of no frames.

    count (N,) int64; digit, colour, motion, source, lengths (N, 3) int64: source are rows of scikit-learn's digits,
    lengths the frames of each event; pixels (all frames, 36, 36, 3) uint8; place (all frames, 3) float32, x, y, extent.
    """

    count: np.ndarray
    digit: np.ndarray
    colour: np.ndarray
    motion: np.ndarray
    source: np.ndarray
    lengths: np.ndarray
    pixels: np.ndarray
    place: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """Where each clip's frames start, and the last one's end, (N + 1,) int64."""
        return np.concatenate([[0], self.lengths.sum(axis=1).cumsum()])

    def labels(self) -> tuple[Tensor, Tensor]:
        """Return the digit and the colour in each frame, (all frames,) int64."""
        event = np.repeat(np.arange(self.lengths.size), self.lengths.ravel())
        return torch.from_numpy(self.digit.ravel()[event]), torch.from_numpy(self.colour.ravel()[event])

    def events(self, i: int) -> list[Event]:
        """Return the events of clip i in order."""
        return [
            Event(int(self.digit[i, k]), COLOUR_NAMES[self.colour[i, k]], MOTION_NAMES[self.motion[i, k]])
            for k in range(self.count[i])
        ]


# Frames


def draw_clips(split: str, settings: ClipsSettings) -> Clips:
    """Draw the clips of one split; 2 * i and 2 * i + 1 tell each other backwards, but look different."""
    rng = settings.generator(split, "clips")
    n = getattr(settings, split)
    count, digit, colour, motion = tell(n, rng)
    shape = digit.shape
    glyphs, names = handwritten_digits()
    source = _handwritten(digit, names, digit_pools(settings.seed)[split], rng)
    lengths = rng.integers(EVENT_LENGTHS[0], EVENT_LENGTHS[1] + 1, shape) * (np.arange(MAX_EVENTS) < count[:, None])
    place, angle, rgb = _places(motion, lengths, rng), rng.uniform(-0.2, 0.2, shape), tints(colour, rng)

    of_frame = np.repeat(np.arange(n * MAX_EVENTS), lengths.ravel())  # which event
    grounds = ground(n, FRAME_SIZE, rng)
    pixels = np.empty((len(place), FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    for rows in np.array_split(np.arange(len(place)), -(-len(place) // 1024)):  # chunks bound the memory
        event = of_frame[rows]
        drawn = ink(glyphs[source.ravel()[event]], FRAME_SIZE, place[rows, :2], place[rows, 2], angle.ravel()[event])
        pixels[rows] = develop(paint(grounds[event // MAX_EVENTS], drawn, rgb.reshape(-1, 3)[event]), rng)
    return Clips(count, digit, colour, motion, source, lengths, pixels, place.astype(np.float32))


def tell(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Make up what happens in n clips: count (n,), and digit, colour and motion (n, 3) of their events, all int64.

    No two events of a clip have the same digit or the same colour. A single event is never one of standing still,
    which backwards would be the same.
    """
    half = -(-n // 2)
    count = rng.choice(np.arange(1, MAX_EVENTS + 1), half, p=HOW_MANY_EVENTS)
    digit, colour = (
        np.argsort(rng.random((half, kinds)), axis=1)[:, :MAX_EVENTS] for kinds in (len(NUMBERS), len(COLOURS))
    )
    motion = rng.integers(0, np.where(count == 1, len(MOTIONS) - 1, len(MOTIONS))[:, None], (half, MAX_EVENTS))
    story, backwards = np.arange(n) // 2, (np.arange(n) % 2 == 1)[:, None]
    slot = np.arange(MAX_EVENTS)
    slot = np.where(backwards, (count[story, None] - 1 - slot) % MAX_EVENTS, slot)
    digit, colour, motion = (values[story[:, None], slot] for values in (digit, colour, motion))
    return count[story], digit, colour, np.where(backwards, OPPOSITE[motion], motion)


def _handwritten(digit: np.ndarray, names: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose from the pool a row of scikit-learn's digits for each digit, in its shape; names (1797,) says which is."""
    pool = pool[np.argsort(names[pool], kind="stable")]
    available = np.bincount(names[pool], minlength=len(NUMBERS))
    first = available.cumsum() - available
    return pool[first[digit] + (rng.random(digit.shape) * available[digit]).astype(int)]


def _places(motion: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the x, y and extent of the digit in every frame, (all frames, 3) float64.

    A path is drawn before the way along it, so that where a digit is in a frame says nothing about where it goes.
    """
    axis, sign = np.array(list(MOTIONS.values()))[motion].transpose(2, 0, 1)
    travel = np.where(axis == 2, 0.2, rng.uniform(0.35, 0.5, motion.shape))
    half = np.eye(PLACE_SIZE)[axis] * (travel * np.abs(sign) / 2)[..., None]
    extent = rng.uniform(0.34, 0.42, motion.shape)[..., None]
    margin = (extent + half[..., 2:]) / 2 + half[..., :2]  # the whole path lies within the frame
    centre = margin + (1 - 2 * margin) * rng.random((*motion.shape, 2))
    middle = np.concatenate([centre, extent], axis=-1).reshape(-1, PLACE_SIZE)
    way = (sign[..., None] * half).reshape(-1, PLACE_SIZE)
    time = np.concatenate([np.linspace(-1, 1, frames) for frames in lengths.ravel()])
    event = np.repeat(np.arange(lengths.size), lengths.ravel())
    return middle[event] + time[:, None] * way[event]


# Features


def detect(clips: Clips, rng: np.random.Generator) -> np.ndarray:
    """Return where a detector that is a little off finds the digit of each frame, (all frames, 3) float32."""
    return (clips.place + rng.normal(0, 0.02, clips.place.shape)).clip(0, 1).astype(np.float32)


def cut_out(pixels: np.ndarray, place: np.ndarray) -> Tensor:
    """Return what is at a place (n, 3) of each frame (n, 36, 36, 3), (n, 3, 16, 16) float32 in about -1..1."""
    sides = place[:, 2:] / 2
    boxes = np.concatenate([place[:, :2] - sides, place[:, :2] + sides], axis=1)[:, None]
    chunks = -(-len(pixels) // 1024)  # which bound the memory
    pairs = zip(np.array_split(pixels, chunks), np.array_split(boxes, chunks), strict=True)
    return torch.cat([crop(*pair) for pair in pairs])


# Captions


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


# Files


def _write_split(folder: Path, split: str, clips: Clips, features: np.ndarray, seed: int) -> None:
    rng = random.Random(f"{seed} {split}")
    captions = [caption(clips.events(i), rng) for i in range(len(clips.count)) for _ in range(CAPTIONS_PER_IMAGE)]
    np.save(folder / f"{split}_ims.npy", features)
    np.save(folder / f"{split}_offsets.npy", clips.offsets)
    np.save(folder / f"{split}_pictures.npy", clips.pixels)
    write_texts(folder, split, captions)
