"""The embedded data set `scenes`: pictures of coloured handwritten digits with five captions each, made on the spot.

Region proposals and features imitate bottom-up attention: jittered boxes and distractors, described by the last hidden
layer of a classifier that was trained on object and attribute labels of the train split alone. A caption is one true
English sentence about some of the digits.
"""

import random
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.digits import drawing
from uwml_lib.datasets.digits.drawing import COLOUR_NAMES, COLOURS, NOUNS, NUMBERS, colour_word, phrase, spoken
from uwml_lib.datasets.digits.embedded import Drawn, EmbeddedSettings, crop

PICTURE_SIZE = 80
REGIONS = 12
MAX_THINGS = 5


@dataclass(frozen=True)
class ScenesSettings(EmbeddedSettings):
    """Sizes in pictures; see `EmbeddedSettings`."""

    train: int = 1500
    dev: int = 300
    test: int = 500

    kind: ClassVar[str] = "scenes"
    background: ClassVar[bool] = True
    format_version: ClassVar[int] = 2
    arrays: ClassVar[tuple[str, ...]] = ("boxes", "pictures")

    def draw(self, split: str) -> Drawn:
        """Draw a split. Features are (N, 12, 128); their geometry is the box's x1, y1, x2, y2 and area.

        `_boxes.npy` (N, 12, 4) float32, fractions of the picture; `_pictures.npy` (N, 80, 80, 3) uint8.
        """
        pictures = draw_pictures(split, self)
        boxes = propose(pictures, self.generator(split, "boxes"))
        x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
        return Drawn(
            crops=crop(pictures.pixels, boxes),
            labels=region_labels(pictures, boxes),
            geometry=np.concatenate([boxes, ((x2 - x1) * (y2 - y1))[..., None]], axis=-1),
            arrays={"boxes": boxes, "pictures": pictures.pixels},
            captions=self.captions(split, caption, map(pictures.things, range(len(boxes)))),
        )


SCENES = {
    "scenes": ScenesSettings(),
    "scenes_smoke": ScenesSettings(train=160, dev=40, test=40, classifier_epochs=6),
}


class Thing(NamedTuple):
    """One digit of a picture; x and y are the centre of its box as fractions of the picture, y downwards."""

    digit: int
    colour: str
    large: bool
    x: float
    y: float


@dataclass(frozen=True)
class Pictures:
    """Pictures and what is truly in them. Slots k >= count[i] of picture i are empty: no ink, a box of zeros."""

    pixels: np.ndarray  # (N, 80, 80, 3) uint8
    count: np.ndarray  # (N,) int64
    digit: np.ndarray  # (N, 5) int64
    colour: np.ndarray  # (N, 5) int64
    large: np.ndarray  # (N, 5) bool
    source: np.ndarray  # (N, 5) int64, rows of scikit-learn's digits
    boxes: np.ndarray  # (N, 5, 4) float32, x1, y1, x2, y2 as fractions

    def things(self, i: int) -> list[Thing]:
        """Return the digits of picture i."""
        colours, centres = [COLOUR_NAMES[k] for k in self.colour[i]], self.boxes[i].reshape(-1, 2, 2).mean(axis=1)
        rows = zip(self.digit[i].tolist(), colours, self.large[i].tolist(), *centres.T.tolist(), strict=True)
        return [Thing(*row) for row in islice(rows, self.count[i])]


def draw_pictures(split: str, settings: ScenesSettings) -> Pictures:
    """Draw the pictures of one split: three to five digits in the cells of a jittered 3 x 3 grid on a noisy ground."""
    rng = settings.generator(split, "pictures")
    n, shape = getattr(settings, split), (getattr(settings, split), MAX_THINGS)
    glyphs, names = drawing.handwritten_digits()
    source = rng.choice(drawing.digit_pools(settings.seed)[split], shape)
    colour, large = rng.integers(len(COLOURS), size=shape), rng.random(shape) < 0.5
    cells = np.argsort(rng.random((n, 9)), axis=1)[:, :MAX_THINGS]
    count = rng.integers(3, MAX_THINGS + 1, n)
    extent = np.where(large, rng.uniform(0.31, 0.37, shape), rng.uniform(0.19, 0.23, shape))
    centres = (np.stack([cells % 3, cells // 3], axis=-1) + 0.5) / 3 + rng.uniform(-0.05, 0.05, (*shape, 2))
    centres = centres.clip(extent[..., None] / 2, 1 - extent[..., None] / 2)
    angle = rng.uniform(-0.2, 0.2, shape)
    rgb = drawing.tints(colour, rng)

    pixels = np.empty((n, PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8)
    boxes = np.zeros((*shape, 4), np.float32)
    for rows in np.array_split(np.arange(n), -(-n // 256)):  # chunks bound the memory
        canvas = drawing.ground(len(rows), PICTURE_SIZE, rng)
        for k in range(MAX_THINGS):
            place = centres[rows, k], extent[rows, k], angle[rows, k]
            drawn = drawing.ink(glyphs[source[rows, k]], PICTURE_SIZE, *place)
            drawn *= torch.from_numpy(count[rows] > k)[:, None, None]
            boxes[rows, k] = _tight_boxes(drawn)
            canvas = drawing.paint(canvas, drawn, rgb[rows, k])
        pixels[rows] = drawing.develop(canvas, rng)
    return Pictures(pixels, count, names[source], colour, large, source, boxes)


def _tight_boxes(drawn: Tensor) -> np.ndarray:
    """Return the boxes around the ink, (n, 4) float32 fractions; zeros where there is none."""
    inked = (drawn > 0.3).numpy()
    used = np.stack([inked.any(axis=1), inked.any(axis=2)], axis=-1)  # columns, which give x, and rows, which give y
    boxes = np.concatenate([used.argmax(axis=1), PICTURE_SIZE - used[:, ::-1].argmax(axis=1)], axis=1) / PICTURE_SIZE
    return np.where(np.any(inked, axis=(1, 2))[:, None], boxes, 0).astype(np.float32)


def propose(pictures: Pictures, rng: np.random.Generator) -> np.ndarray:
    """Propose regions as a detector does, (N, 12, 4) float32 fractions, in random order.

    Every digit gets a box that overlaps it with an intersection over union of 0.5 to 0.9; the other boxes are second
    ones of a digit, parts of a digit, or anywhere.
    """
    n, slot = len(pictures.count), np.arange(REGIONS)
    count = pictures.count[:, None]
    target = np.where(slot < count, slot, rng.integers(0, count, (n, REGIONS)))
    digit_box = np.take_along_axis(pictures.boxes, target[:, :, None], axis=1).astype(np.float64)
    close = _jittered(digit_box, rng)
    sizes = np.tile(digit_box[..., 2:] - digit_box[..., :2], 2)
    part = digit_box + sizes * rng.choice([-0.5, 0.5], (n, REGIONS, 2))[..., [0, 1, 0, 1]]
    corner, extent = rng.uniform(-0.05, 0.8, (n, REGIONS, 2)), rng.uniform(0.15, 0.45, (n, REGIONS, 2))
    anywhere = np.concatenate([corner, corner + extent], axis=-1)
    draw = rng.random((n, REGIONS))[..., None]
    other = np.where(draw < 0.5, close, np.where(draw < 0.75, part, anywhere))
    boxes = np.where((slot < count)[..., None], close, other).clip(0, 1)
    order = np.argsort(rng.random((n, REGIONS)), axis=1)
    return np.take_along_axis(boxes, order[:, :, None], axis=1).astype(np.float32)


def _jittered(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move and stretch each box (..., 4), keeping the first of eight tries whose overlap is 0.5 to 0.9."""
    sizes = np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    candidates = boxes[..., None, :] + sizes[..., None, :] * rng.normal(0, 0.09, (*boxes.shape[:-1], 8, 4))
    # Shrunk to an overlap of 0.7, should all tries fail.
    shrunk = boxes + sizes * (1 - 0.7**0.5) / 2 * [1, 1, -1, -1]
    candidates = np.concatenate([candidates.clip(0, 1), shrunk[..., None, :]], axis=-2)
    overlap = iou(candidates, boxes[..., None, :])
    good = (overlap >= 0.5) & (overlap <= 0.9)
    return np.take_along_axis(candidates, good.argmax(axis=-1)[..., None, None], axis=-2)[..., 0, :]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., 4), broadcast; 0 where both are empty."""
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
    shared = sides.prod(axis=-1)
    total = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


def region_labels(pictures: Pictures, boxes: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the digit and the colour in each region, (N * 12,) int64; the last class is background.

    A region shows the digit it overlaps most, if by at least 0.5 (intersection over union).
    """
    overlap = iou(boxes[:, :, None], pictures.boxes[:, None])
    best = overlap.argmax(axis=-1)
    empty = overlap.max(axis=-1) < 0.5
    digit = np.where(empty, len(NUMBERS), np.take_along_axis(pictures.digit, best, axis=1))
    colour = np.where(empty, len(COLOURS), np.take_along_axis(pictures.colour, best, axis=1))
    return torch.from_numpy(digit.ravel()), torch.from_numpy(colour.ravel())


# Captions

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
PLURAL_OPENERS = ("", "", "", "there are ", "a picture of ", "an image of ", "these are ", "we can see ")
VERBS = ("is", "sits", "stands", "is written", "is placed")
FORMS = {"place": 0.5, "two places": 1, "relation": 5, "between": 1, "two": 2, "three": 5, "count": 1, "group": 1}
"""Form of a caption -> how often it is tried."""


def caption(things: list[Thing], rng: random.Random) -> str:
    """Return one true English sentence about some of three to five things."""
    text = ""
    while not text:  # not every picture has, say, one thing between two others
        (form,) = rng.choices(list(FORMS), weights=list(FORMS.values()))
        text = _told(form, rng.sample(things, len(things)), rng)
    return spoken(text, rng)


def _told(form: str, things: list[Thing], rng: random.Random) -> str:
    """Return a sentence of a form, about the first things as far as possible; "" where it would not be true of them."""

    def name(thing: Thing) -> str:
        return phrase(thing.digit, thing.colour, rng, SIZES[thing.large])

    def place(thing: Thing) -> str:
        return rng.choice(PLACES[rng.choice(places(thing))])

    a, b, c, *_ = things
    match form:
        case "place":
            where = place(a)
            if rng.random() < 0.4:
                return f"{name(a)} {rng.choice(VERBS)} {where}"
            return f"{rng.choice(OPENERS)}{name(a)} {where}"
        case "two places":
            parts = [f"{name(thing)} {place(thing)}" for thing in (a, b)]
            return rng.choice(OPENERS) + " and ".join(parts)
        case "relation" if kinds := relations(a, b):
            how = rng.choice(RELATIONS[rng.choice(kinds)])
            if rng.random() < 0.5:
                return f"{name(a)} {rng.choice(VERBS)} {how} {name(b)}"
            return f"{rng.choice(OPENERS)}{name(a)} {how} {name(b)}"
        case "between" if is_between(a, b, c):
            return f"{rng.choice(OPENERS)}{name(a)} between {name(b)} and {name(c)}"
        case "two":
            named = [name(a), name(b)]
            return f"{rng.choice(OPENERS)}{named[0]} {rng.choice(('and', 'and', 'with'))} {named[1]}"
        case "three":
            named = [name(a), name(b), name(c)]
            return f"{rng.choice(OPENERS)}{named[0]} , {named[1]} and {named[2]}"
        case "count":
            how_many = NUMBERS[len(things)] if rng.random() < 0.7 else str(len(things))
            link = rng.choice(("including", "with", ", one is", ", one of them is"))
            where = f" {place(a)}" if rng.random() < 0.3 else ""
            return f"{rng.choice(PLURAL_OPENERS)}{how_many} {rng.choice(NOUNS)}s {link} {name(a)}{where}"
        case "group":
            by_colour = rng.random() < 0.5
            group = [x for x in things if (x.colour == a.colour if by_colour else x.digit == a.digit)]
            if len(group) > 1:
                kind = f"{colour_word(a.colour, rng)} {rng.choice(NOUNS)}s" if by_colour else PLURALS[a.digit]
                text = f"{rng.choice(PLURAL_OPENERS)}{NUMBERS[len(group)]} {kind}"
                others = [thing for thing in things if thing not in group]
                return f"{text} and {name(others[0])}" if others and rng.random() < 0.7 else text
    return ""


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
