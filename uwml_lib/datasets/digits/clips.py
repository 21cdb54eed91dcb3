"""The embedded data set `clips`: short videos of moving coloured handwritten digits with five captions each.

A clip is one to three events, one after the other: a digit of a colour moves, grows, shrinks or stands still. Clips
come in pairs, each of which tells the other backwards: the same digits in the same colours, but in reverse order and
with opposite motions. So whoever looks at the frames without their order cannot tell the two apart; captions do.

A frame is described by where a detector that is a little off finds the digit, and by the last hidden layer of a
classifier that was trained on the digits and colours of the train split alone. One frame says nothing about a motion.
A caption is one true English sentence about some of the events.
"""

import random
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.digits import drawing
from uwml_lib.datasets.digits.drawing import COLOUR_NAMES, COLOURS, NOUNS, NUMBERS, phrase, spoken
from uwml_lib.datasets.digits.embedded import Drawn, EmbeddedSettings, crop

FRAME_SIZE = 36
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


@dataclass(frozen=True)
class ClipsSettings(EmbeddedSettings):
    """Sizes in clips; see `EmbeddedSettings`."""

    train: int = 1200
    dev: int = 250
    test: int = 400

    kind: ClassVar[str] = "clips"
    background: ClassVar[bool] = False
    format_version: ClassVar[int] = 1
    arrays: ClassVar[tuple[str, ...]] = ("offsets", "pictures")

    def draw(self, split: str) -> Drawn:
        """Draw a split. Features are (all frames, 128); their geometry is where the digit was found.

        `_offsets.npy` (N + 1,) int64, clip i has the frames offsets[i] to offsets[i + 1] - 1;
        `_pictures.npy` (all frames, 36, 36, 3) uint8.
        """
        clips = draw_clips(split, self)
        misses = self.generator(split, "boxes").normal(0, 0.02, clips.place.shape)  # the detector is a little off
        place = (clips.place + misses).clip(0, 1).astype(np.float32)
        digit, colour = (np.repeat(kind.ravel(), clips.lengths.ravel()) for kind in (clips.digit, clips.colour))
        return Drawn(
            crops=cut_out(clips.pixels, place),
            labels=(torch.from_numpy(digit), torch.from_numpy(colour)),
            geometry=place,
            arrays={"offsets": clips.offsets, "pictures": clips.pixels},
            captions=self.captions(split, caption, map(clips.events, range(len(clips.count)))),
        )


CLIPS = {"clips": ClipsSettings(), "clips_smoke": ClipsSettings(train=160, dev=40, test=40)}


class Event(NamedTuple):
    """What happens for some frames; motion is a key of `MOTIONS`."""

    digit: int
    colour: str
    motion: str


@dataclass(frozen=True)
class Clips:
    """Clips and what truly happens in them. Slots k >= count[i] of clip i are empty: an event of no frames."""

    count: np.ndarray  # (N,) int64, as are the next five
    digit: np.ndarray  # (N, 3)
    colour: np.ndarray  # (N, 3)
    motion: np.ndarray  # (N, 3)
    source: np.ndarray  # (N, 3), rows of scikit-learn's digits
    lengths: np.ndarray  # (N, 3), frames of each event
    pixels: np.ndarray  # (all frames, 36, 36, 3) uint8
    place: np.ndarray  # (all frames, 3) float32, x, y, extent

    @property
    def offsets(self) -> np.ndarray:
        """Where each clip's frames start, and the last one's end, (N + 1,) int64."""
        return np.concatenate([[0], self.lengths.sum(axis=1).cumsum()])

    def events(self, i: int) -> list[Event]:
        """Return the events of clip i in order."""
        rows = zip(self.digit[i].tolist(), self.colour[i], self.motion[i], strict=True)
        events = [Event(digit, COLOUR_NAMES[colour], MOTION_NAMES[motion]) for digit, colour, motion in rows]
        return events[: self.count[i]]


def draw_clips(split: str, settings: ClipsSettings) -> Clips:
    """Draw the clips of one split; 2 * i and 2 * i + 1 tell each other backwards, but look different."""
    rng = settings.generator(split, "clips")
    n = getattr(settings, split)
    count, digit, colour, motion = tell(n, rng)
    shape = digit.shape
    glyphs, names = drawing.handwritten_digits()
    source = _handwritten(digit, names, drawing.digit_pools(settings.seed)[split], rng)
    lengths = rng.integers(EVENT_LENGTHS[0], EVENT_LENGTHS[1] + 1, shape) * (np.arange(MAX_EVENTS) < count[:, None])
    place, angle, rgb = _places(motion, lengths, rng), rng.uniform(-0.2, 0.2, shape), drawing.tints(colour, rng)

    of_frame = np.repeat(np.arange(n * MAX_EVENTS), lengths.ravel())  # which event
    grounds = drawing.ground(n, FRAME_SIZE, rng)
    pixels = np.empty((len(place), FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    for rows in _chunks(len(place)):
        event = of_frame[rows]
        glyph, centre, extent = glyphs[source.ravel()[event]], place[rows, :2], place[rows, 2]
        drawn = drawing.ink(glyph, FRAME_SIZE, centre, extent, angle.ravel()[event])
        canvas = drawing.paint(grounds[event // MAX_EVENTS], drawn, rgb.reshape(-1, 3)[event])
        pixels[rows] = drawing.develop(canvas, rng)
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
    middle, way = (np.repeat(of_event, lengths.ravel(), axis=0) for of_event in (middle, way))
    return middle + time[:, None] * way


def _chunks(n_frames: int) -> list[np.ndarray]:
    """Numbers of frames to be worked on at once, which bounds the memory."""
    return np.array_split(np.arange(n_frames), -(-n_frames // 1024))


def cut_out(pixels: np.ndarray, place: np.ndarray) -> Tensor:
    """Return what is at a place (n, 3) of each frame (n, 36, 36, 3), (n, 3, 16, 16) float32 in about -1..1."""
    sides = place[:, 2:] / 2
    boxes = np.concatenate([place[:, :2] - sides, place[:, :2] + sides], axis=1)[:, None]
    return torch.cat([crop(pixels[rows], boxes[rows]) for rows in _chunks(len(pixels))])


# Captions

MOTION_WORDS = {
    "right": ("moves to the right", "moves right", "goes to the right", "goes right", "slides to the right"),
    "left": ("moves to the left", "moves left", "goes to the left", "goes left", "slides to the left"),
    "up": ("moves up", "goes up", "rises", "climbs"),
    "down": ("moves down", "goes down", "falls", "sinks"),
    "grow": ("grows", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller"),
    "still": ("stands still", "stays in place", "stays where it is"),
}
"""What captions call a motion; the first word is the verb."""
VERBS = {
    "moves": ("moved", "moving"), "goes": ("went", "going"), "slides": ("slid", "sliding"), "rises": ("rose", "rising"),
    "climbs": ("climbed", "climbing"), "falls": ("fell", "falling"), "sinks": ("sank", "sinking"),
    "grows": ("grew", "growing"), "gets": ("got", "getting"), "becomes": ("became", "becoming"),
    "shrinks": ("shrank", "shrinking"), "stands": ("stood", "standing"), "stays": ("stayed", "staying"),
}  # fmt: skip
"""Verb -> past tense and present participle."""
PAST, PARTICIPLE = 0, 1
OPENERS = ("", "", "a video of ", "a clip of ", "we see ")
FORMS = {"one": 1.5, "then": 4, "after": 3, "all": 3, "things": 1.5, "and": 0.5, "count": 1}
"""Form of a caption of several events -> how often it is taken."""


def caption(events: list[Event], rng: random.Random) -> str:
    """Return one true English sentence about some of one to three events."""
    (form,) = rng.choices(list(FORMS), weights=list(FORMS.values())) if len(events) > 1 else ["one"]
    return spoken(_told(form, events, rng), rng)


def _told(form: str, events: list[Event], rng: random.Random) -> str:
    """Return a sentence of a form; all but "one" take two events or more."""

    def name(event: Event) -> str:
        return phrase(event.digit, event.colour, rng)

    def does(event: Event, tense: int | None = None) -> str:
        verb, *rest = rng.choice(MOTION_WORDS[event.motion]).split()
        return " ".join([name(event), verb if tense is None else VERBS[verb][tense], *rest])

    if form in ("then", "after", "things"):
        a, b = (events[k] for k in sorted(rng.sample(range(len(events)), 2)))
    match form:
        case "then" if rng.random() < 0.3:
            link, opener = rng.choice((", then", "and then", ", followed by")), rng.choice(OPENERS)
            return f"{opener}{does(a, PARTICIPLE)} {link} {does(b, PARTICIPLE)}"
        case "then":
            link = rng.choice((", then", "and then", ", after that", "before"))
            return f"{does(a)} {link} {does(b)}"
        case "after":
            later, earlier = does(b), does(a, rng.choice((None, PAST)))
            return f"{later} after {earlier}" if rng.random() < 0.6 else f"after {earlier} , {later}"
        case "things":
            earlier, later = name(a), name(b)
            if rng.random() < 0.3:
                return f"{rng.choice(OPENERS)}{later} after {earlier}"
            links = (", then", "and then", "followed by", "before")
            return f"{rng.choice(OPENERS)}{earlier} {rng.choice(links)} {later}"
        case "all":
            told = " , then ".join([does(event) for event in events[:-1]]), does(events[-1])
            return f"first {told[0]} {rng.choice((', then', 'and finally', ', and at last'))} {told[1]}"
        case "and":
            *others, last = [name(event) for event in rng.sample(events, len(events))]
            return f"{rng.choice(OPENERS)}{' , '.join(others)} and {last}"
        case "count":
            how_many = NUMBERS[len(events)] if rng.random() < 0.7 else str(len(events))
            which, event = rng.choice((("first", events[0]), ("last", events[-1])))
            what = f"is {name(event)}" if rng.random() < 0.5 else f"one is {does(event, PARTICIPLE)}"
            row = rng.choice(("one after the other", "in a row"))
            return f"{rng.choice(OPENERS)}{how_many} {rng.choice(NOUNS)}s {row} , the {which} {what}"
    place = rng.randrange(len(events))
    if len(events) > 1 and place in (0, len(events) - 1) and rng.random() < 0.5:
        when = rng.choice(("at the end", "finally") if place else ("at first", "at the beginning"))
        return f"{when} {does(events[place])}"
    if rng.random() < 0.4:
        return rng.choice(OPENERS) + does(events[place], PARTICIPLE)
    return does(events[place])
