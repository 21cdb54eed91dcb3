"""The embedded data set `clips`: short videos of moving coloured handwritten digits with five captions each.

A clip is one to three events, one after the other: a digit of a colour moves, grows, shrinks or stands still. Clips
come in pairs that tell each other backwards, with opposite motions: frames without their order cannot tell the two
apart, but captions do. A caption is one true English sentence about some of the events.

A frame is described by where a detector that is a little off finds the digit, and by the last hidden layer of a
classifier that was trained on the digits and colours of the train split alone. One frame says nothing about a motion.
"""

import random
from typing import NamedTuple

import numpy as np

from uwml_lib.datasets.digits import drawing
from uwml_lib.datasets.digits.drawing import COLOUR_NAMES, COLOURS, NOUNS, NUMBERS, phrase
from uwml_lib.datasets.digits.embedded import EmbeddedSettings, Regions, Shown

FRAME_SIZE = 36
MAX_EVENTS = 3
HOW_MANY_EVENTS = (0.25, 0.45, 0.3)  # how often one, two, three
EVENT_LENGTHS = (4, 7)  # frames, least and most

# Motion -> which number of the place changes, how, and what captions call it: the first word is the verb. A motion and
# its opposite are neighbours.
MOTIONS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "right": (0, 1, ("moves to the right", "moves right", "goes to the right", "goes right", "slides to the right")),
    "left": (0, -1, ("moves to the left", "moves left", "goes to the left", "goes left", "slides to the left")),
    "up": (1, -1, ("moves up", "goes up", "rises", "climbs")),
    "down": (1, 1, ("moves down", "goes down", "falls", "sinks")),
    "grow": (2, 1, ("grows", "gets bigger", "becomes larger")),
    "shrink": (2, -1, ("shrinks", "gets smaller", "becomes smaller")),
    "still": (0, 0, ("stands still", "stays in place", "stays where it is")),
}
MOTION_NAMES = tuple(MOTIONS)
OPPOSITE = np.array([1, 0, 3, 2, 5, 4, 6])

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


class Event(NamedTuple):
    """What happens for some frames; motion is a key of `MOTIONS`."""

    digit: int
    colour: str
    motion: str


class ClipsSettings(EmbeddedSettings):
    """Sizes in clips; `_ims.npy` is (all frames, 128), its geometry the x, y and extent of the digit that was found.

    `_offsets.npy` (N + 1,) int64: clip i has the frames offsets[i] to offsets[i + 1] - 1; `_pictures.npy` (all frames,
    36, 36, 3) uint8.
    """

    kind = "clips"
    background = False
    format_version = 1
    array = "offsets"

    def draw(self, split: str) -> Shown:
        """Draw clips; 2 * i and 2 * i + 1 tell each other backwards, but look different. A place is x, y and extent.

        No two events of a clip have the same digit or the same colour. A single event is never one of standing still,
        which backwards would be the same.
        """
        rng, n, slot = self.generator(split, "clips"), getattr(self, split), np.arange(MAX_EVENTS)
        half, shape = -(-n // 2), (n, MAX_EVENTS)
        count = rng.choice(np.arange(1, MAX_EVENTS + 1), half, p=HOW_MANY_EVENTS)
        digit, colour = (np.argsort(rng.random((half, len(of))), axis=1)[:, :MAX_EVENTS] for of in (NUMBERS, COLOURS))
        motion = rng.integers(0, len(MOTIONS) - (count == 1)[:, None], (half, MAX_EVENTS))
        count, story, backwards = np.repeat(count, 2)[:n], np.arange(n)[:, None] // 2, np.arange(n)[:, None] % 2 == 1
        told = np.where(backwards, (count[:, None] - 1 - slot) % MAX_EVENTS, slot)
        digit, colour, motion = (values[story, told] for values in (digit, colour, motion))
        motion = np.where(backwards, OPPOSITE[motion], motion)

        glyphs, names, pools = drawing.handwritten_digits(self.seed)
        pool = pools[split][np.argsort(names[pools[split]], kind="stable")]
        available = np.bincount(names[pool], minlength=len(NUMBERS))
        first = available.cumsum() - available
        source = pool[first[digit] + (rng.random(shape) * available[digit]).astype(int)]
        lengths = rng.integers(*EVENT_LENGTHS, shape, endpoint=True) * (slot < count[:, None])
        place, angle, rgb = _places(motion, lengths, rng), rng.uniform(-0.2, 0.2, shape), drawing.tints(colour, rng)

        of_frame = np.repeat(np.arange(n * MAX_EVENTS), lengths.ravel())  # which event
        grounds = drawing.ground(n, FRAME_SIZE, rng)
        pixels = np.empty((len(place), FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        for rows in drawing.chunks(len(place), 1024):
            event, at = of_frame[rows], place[rows]
            glyph = glyphs[source.ravel()[event]]
            drawn = drawing.ink(glyph, FRAME_SIZE, at[:, :2], at[:, 2], angle.ravel()[event])
            canvas = grounds[event // MAX_EVENTS]
            canvas += drawn * (rgb.flatten(0, 1)[event] - canvas)
            pixels[rows] = drawing.develop(canvas, rng)
        columns = digit, np.array(COLOUR_NAMES)[colour], np.array(MOTION_NAMES)[motion]
        events = [list(map(Event, *rows))[:k] for k, *rows in zip(count, *(of.tolist() for of in columns), strict=True)]
        return Shown(events, np.stack([digit, colour]), source, lengths, place.astype(np.float32), pixels)

    def find(self, shown: Shown, rng: np.random.Generator) -> Regions:
        """Find the digits, a little off."""
        place = (shown.place + rng.normal(0, 0.02, shown.place.shape)).clip(0, 1).astype(np.float32)
        x, y, side = place.T
        boxes = np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], axis=-1)[:, None]
        labels = np.repeat(shown.kinds.reshape(2, -1), shown.frames.ravel(), axis=1)
        return Regions(boxes, labels, place, np.concatenate([[0], shown.frames.sum(axis=1).cumsum()]))

    def told(self, events: list[Event], rng: random.Random) -> str:
        """Return one true English sentence about some of one to three events."""

        def name(event: Event) -> str:
            return phrase(event.digit, event.colour, rng)

        def does(event: Event, tense: int | None = None) -> str:
            verb, *rest = rng.choice(MOTIONS[event.motion][2]).split()
            return " ".join([name(event), verb if tense is None else VERBS[verb][tense], *rest])

        (form,) = rng.choices(list(FORMS), weights=list(FORMS.values())) if len(events) > 1 else ["one"]
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
                opener, link = rng.choice(OPENERS), rng.choice((", then", "and then", "followed by", "before"))
                return f"{opener}{earlier} {link} {later}"
            case "all":
                *told, last = map(does, events)
                return f"first {' , then '.join(told)} {rng.choice((', then', 'and finally', ', and at last'))} {last}"
            case "and":
                *told, last = map(name, rng.sample(events, len(events)))
                return f"{rng.choice(OPENERS)}{' , '.join(told)} and {last}"
            case "count":
                number = NUMBERS[len(events)] if rng.random() < 0.7 else str(len(events))
                which, event = rng.choice((("first", events[0]), ("last", events[-1])))
                what = f"is {name(event)}" if rng.random() < 0.5 else f"one is {does(event, PARTICIPLE)}"
                row = rng.choice(("one after the other", "in a row"))
                return f"{rng.choice(OPENERS)}{number} {rng.choice(NOUNS)}s {row} , the {which} {what}"
        place = rng.randrange(len(events))
        if len(events) > 1 and place in (0, len(events) - 1) and rng.random() < 0.5:
            when = rng.choice(("at the end", "finally") if place else ("at first", "at the beginning"))
            return f"{when} {does(events[place])}"
        if rng.random() < 0.4:
            return rng.choice(OPENERS) + does(events[place], PARTICIPLE)
        return does(events[place])


CLIPS = {"clips": ClipsSettings(1200, 250, 400), "clips_smoke": ClipsSettings()}


def _places(motion: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the x, y and extent of the digit in every frame, (all frames, 3) float64.

    A path is drawn before the way along it, so that where a digit is in a frame says nothing about where it goes.
    """
    axis, sign = np.array([changes for *changes, _ in MOTIONS.values()])[motion].transpose(2, 0, 1)
    travel = np.where(axis == 2, 0.2, rng.uniform(0.35, 0.5, motion.shape))
    half = np.eye(3)[axis] * (travel * np.abs(sign) / 2)[..., None]
    extent = rng.uniform(0.34, 0.42, motion.shape)[..., None]
    margin = (extent + half[..., 2:]) / 2 + half[..., :2]  # the whole path lies within the frame
    centre = margin + (1 - 2 * margin) * rng.random((*motion.shape, 2))
    paths = np.concatenate([centre, extent], axis=-1), sign[..., None] * half
    middle, way = (np.repeat(path.reshape(-1, 3), lengths.ravel(), axis=0) for path in paths)
    time = np.concatenate([np.linspace(-1, 1, frames) for frames in lengths.ravel()])
    return middle + time[:, None] * way
