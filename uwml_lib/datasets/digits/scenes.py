"""The embedded data set `scenes`: pictures of coloured handwritten digits with five captions each, made on the spot.

Region proposals and features imitate bottom-up attention: jittered boxes and distractors, described by the last hidden
layer of a classifier that was trained on object and attribute labels of the train split alone. A caption is one true
English sentence about some of the digits.
"""

import random
from typing import NamedTuple

import numpy as np
import torch

from uwml_lib.datasets.digits import drawing
from uwml_lib.datasets.digits.drawing import COLOUR_NAMES, COLOURS, NOUNS, NUMBERS, colour_word, phrase
from uwml_lib.datasets.digits.embedded import EmbeddedSettings, Regions, Shown

PICTURE_SIZE = 80
REGIONS = 12
MAX_THINGS = 5

PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
SIZES = {True: ("big", "large", "huge"), False: ("small", "little", "tiny")}
RELATIONS = {
    "left": ("to the left of", "left of"), "right": ("to the right of", "right of"), "above": ("above", "over"),
    "below": ("below", "under", "beneath"), "beside": ("next to", "beside"),
}  # fmt: skip
PLACES = {
    "top": ("at the top",), "bottom": ("at the bottom",), "middle": ("in the middle", "in the center"),
    "left": ("on the left", "on the left side"), "right": ("on the right", "on the right side"),
    **{f"{row} {column}": (f"in the {row} {column} corner", f"in the {upper} {column}")
       for row, upper in (("top", "upper"), ("bottom", "lower")) for column in ("left", "right")},
}  # fmt: skip
OPENERS = ("", "", "", "there is ", "a picture of ", "an image of ", "this is ", "we can see ")
PLURAL_OPENERS = ("", "", "", "there are ", "a picture of ", "an image of ", "these are ", "we can see ")
VERBS = ("is", "sits", "stands", "is written", "is placed")
FORMS = {"place": 0.5, "two places": 1, "relation": 5, "between": 1, "two": 2, "three": 5, "count": 1, "group": 1}
"""Form of a caption -> how often it is tried."""


class Thing(NamedTuple):
    """One digit of a picture; x and y are the centre of its box as fractions of the picture, y downwards."""

    digit: int
    colour: str
    large: bool
    x: float
    y: float


class ScenesSettings(EmbeddedSettings):
    """Sizes in pictures; `_ims.npy` is (N, 12, 128), its geometry the x1, y1, x2, y2 and area of a region.

    `_boxes.npy` (N, 12, 4) float32, fractions of the picture; `_pictures.npy` (N, 80, 80, 3) uint8.
    """

    kind = "scenes"
    background = True
    format_version = 2
    array = "boxes"

    def draw(self, split: str) -> Shown:
        """Draw pictures: three to five digits in the cells of a jittered 3 x 3 grid on a noisy ground."""
        rng = self.generator(split, "pictures")
        n, shape = getattr(self, split), (getattr(self, split), MAX_THINGS)
        glyphs, names, pools = drawing.handwritten_digits(self.seed)
        source = rng.choice(pools[split], shape)
        colour, large = rng.integers(len(COLOURS), size=shape), rng.random(shape) < 0.5
        cells = np.argsort(rng.random((n, 9)), axis=1)[:, :MAX_THINGS]
        count = rng.integers(3, MAX_THINGS + 1, n)
        there = np.arange(MAX_THINGS) < count[:, None]
        extent = np.where(large, rng.uniform(0.31, 0.37, shape), rng.uniform(0.19, 0.23, shape))
        centres = (np.stack([cells % 3, cells // 3], axis=-1) + 0.5) / 3 + rng.uniform(-0.05, 0.05, (*shape, 2))
        centres = centres.clip(extent[..., None] / 2, 1 - extent[..., None] / 2)
        angle, rgb = rng.uniform(-0.2, 0.2, shape), drawing.tints(colour, rng)

        pixels = np.empty((n, PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8)
        boxes = np.zeros((*shape, 4), np.float32)
        for rows in drawing.chunks(n, 256):
            canvas = drawing.ground(len(rows), PICTURE_SIZE, rng)
            for k in range(MAX_THINGS):
                place = centres[rows, k], extent[rows, k], angle[rows, k]
                drawn = drawing.ink(glyphs[source[rows, k]], PICTURE_SIZE, *place)
                drawn *= torch.from_numpy(there[rows, k])[:, None, None, None]
                inked = (drawn[:, 0] > 0.3).numpy()
                used = np.stack([inked.any(axis=1), inked.any(axis=2)], axis=-1)  # columns give x, and rows y
                ends = used.argmax(axis=1), PICTURE_SIZE - used[:, ::-1].argmax(axis=1)
                boxes[rows, k] = np.concatenate(ends, axis=1) / PICTURE_SIZE * there[rows, k, None]
                canvas += drawn * (rgb[rows, k] - canvas)
            pixels[rows] = drawing.develop(canvas, rng)
        x, y = boxes.reshape(*shape, 2, 2).mean(axis=2).transpose(2, 0, 1)
        columns = names[source], np.array(COLOUR_NAMES)[colour], large, x, y
        things = [list(map(Thing, *rows))[:k] for k, *rows in zip(count, *(of.tolist() for of in columns), strict=True)]
        return Shown(things, np.stack([columns[0], colour]), source, there.astype(int), boxes, pixels)

    def find(self, shown: Shown, rng: np.random.Generator) -> Regions:
        """Propose regions as a detector does, in random order.

        Every digit gets a box that overlaps it with an intersection over union of 0.5 to 0.9; the other boxes are
        second ones of a digit, parts of a digit, or anywhere. A box shows the digit that it overlaps most, if by 0.5.
        """
        shape, slot, count = (len(shown.place), REGIONS), np.arange(REGIONS), shown.frames.sum(axis=1, keepdims=True)
        target = np.where(slot < count, slot, rng.integers(0, count, shape))
        digit_box = np.take_along_axis(shown.place, target[:, :, None], axis=1).astype(np.float64)
        sizes = np.tile(digit_box[..., 2:] - digit_box[..., :2], 2)
        tries = (digit_box[:, :, None] + sizes[:, :, None] * rng.normal(0, 0.09, (*shape, 8, 4))).clip(0, 1)
        shrunk = digit_box + sizes * (1 - 0.7**0.5) / 2 * [1, 1, -1, -1]  # to an overlap of 0.7, should all tries fail
        tries = np.concatenate([tries, shrunk[:, :, None]], axis=2)
        overlap = iou(tries, digit_box[:, :, None])
        first = ((overlap >= 0.5) & (overlap <= 0.9)).argmax(axis=-1)
        close = np.take_along_axis(tries, first[..., None, None], axis=2)[:, :, 0]
        part = digit_box + sizes * np.tile(rng.choice([-0.5, 0.5], (*shape, 2)), 2)
        corner, extent = rng.uniform(-0.05, 0.8, (*shape, 2)), rng.uniform(0.15, 0.45, (*shape, 2))
        anywhere = np.concatenate([corner, corner + extent], axis=-1)
        draw = rng.random((*shape, 1))
        other = np.where(draw < 0.5, close, np.where(draw < 0.75, part, anywhere))
        boxes = np.where((slot < count)[..., None], close, other).clip(0, 1)
        order = np.argsort(rng.random(shape), axis=1)[:, :, None]
        boxes = np.take_along_axis(boxes, order, axis=1).astype(np.float32)

        overlap = iou(boxes[:, :, None], shown.place[:, None])
        true = np.take_along_axis(shown.kinds, overlap.argmax(axis=-1)[None], axis=2)
        labels = np.where(overlap.max(axis=-1) < 0.5, [[[len(NUMBERS)]], [[len(COLOURS)]]], true).reshape(2, -1)
        area = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1, keepdims=True)
        return Regions(boxes, labels, np.concatenate([boxes, area], axis=-1), boxes)

    def told(self, content: list[Thing], rng: random.Random) -> str:
        """Return one true English sentence about some of three to five things."""

        def name(thing: Thing) -> str:
            return phrase(thing.digit, thing.colour, rng, SIZES[thing.large])

        def place(thing: Thing) -> str:
            return rng.choice(PLACES[rng.choice(places(thing))])

        def start(verb: float) -> str:
            return f"{name(a)} {rng.choice(VERBS)}" if rng.random() < verb else f"{rng.choice(OPENERS)}{name(a)}"

        while True:  # not every picture has, say, one thing between two others
            (form,) = rng.choices(list(FORMS), weights=list(FORMS.values()))
            a, b, c, *_ = things = rng.sample(content, len(content))
            match form:
                case "place":
                    where = place(a)
                    return f"{start(0.4)} {where}"
                case "relation" if kinds := relations(a, b):
                    how = rng.choice(RELATIONS[rng.choice(kinds)])
                    return f"{start(0.5)} {how} {name(b)}"
                case "between" if is_between(a, b, c):
                    return f"{rng.choice(OPENERS)}{name(a)} between {name(b)} and {name(c)}"
                case "two places":
                    text = f"{name(a)} {place(a)} and {name(b)} {place(b)}"
                    return rng.choice(OPENERS) + text
                case "two":
                    one, other = name(a), name(b)
                    return f"{rng.choice(OPENERS)}{one} {rng.choice(('and', 'and', 'with'))} {other}"
                case "three":
                    text = f"{name(a)} , {name(b)} and {name(c)}"
                    return rng.choice(OPENERS) + text
                case "count":
                    number = NUMBERS[len(things)] if rng.random() < 0.7 else str(len(things))
                    link = rng.choice(("including", "with", ", one is", ", one of them is"))
                    where = f" {place(a)}" if rng.random() < 0.3 else ""
                    return f"{rng.choice(PLURAL_OPENERS)}{number} {rng.choice(NOUNS)}s {link} {name(a)}{where}"
                case "group":
                    by_colour = rng.random() < 0.5
                    group = [x for x in things if (x.colour == a.colour if by_colour else x.digit == a.digit)]
                    if len(group) > 1:
                        kind = f"{colour_word(a.colour, rng)} {rng.choice(NOUNS)}s" if by_colour else PLURALS[a.digit]
                        text = f"{rng.choice(PLURAL_OPENERS)}{NUMBERS[len(group)]} {kind}"
                        others = [thing for thing in things if thing not in group]
                        return f"{text} and {name(others[0])}" if others and rng.random() < 0.7 else text


SCENES = {"scenes": ScenesSettings(1500, 300, 500), "scenes_smoke": ScenesSettings(classifier_epochs=6)}


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., 4), broadcast; 0 where both are empty."""
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0).prod(axis=-1)
    total = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


def relations(a: Thing, b: Thing) -> list[str]:
    """Return the keys of RELATIONS that truly lead from a to b: far apart along one axis, less so along the other."""
    dx, dy = a.x - b.x, a.y - b.y
    if max(abs(dx), abs(dy)) < 0.15:
        return []
    if abs(dx) > 1.5 * abs(dy):
        return ["left" if dx < 0 else "right"] + ["beside"] * (abs(dx) < 0.45)
    return ["above" if dy < 0 else "below"] * (abs(dy) > 1.5 * abs(dx))


def is_between(a: Thing, b: Thing, c: Thing) -> bool:
    """Tell whether a lies near the middle of the line from b to c."""
    line, way = complex(c.x - b.x, c.y - b.y), complex(a.x - b.x, a.y - b.y)
    return abs(line) >= 0.4 and 0.3 < (way / line).real < 0.7 and abs((way / line).imag) * abs(line) < 0.12


def places(thing: Thing) -> list[str]:
    """Return the keys of PLACES where a thing's centre truly is: the picture's thirds."""
    column = "left" if thing.x < 1 / 3 else "right" if thing.x > 2 / 3 else ""
    row = "top" if thing.y < 1 / 3 else "bottom" if thing.y > 2 / 3 else ""
    return [f"{row} {column}", row, column] if row and column else [row or column or "middle"]
