"""The embedded data set `scenes`: pictures of coloured handwritten digits with five captions each, made on the spot.

Region proposals and features imitate bottom-up attention: jittered boxes and distractors, described by the last hidden
layer of a classifier that was trained on object and attribute labels of the train split alone.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.embedded import (
    CAPTIONS_PER_IMAGE,
    COLOUR_NAMES,
    COLOURS,
    NOUNS,
    NUMBERS,
    SPLITS,
    TEXTS,
    CropClassifier,
    EmbeddedSettings,
    colour_word,
    crop,
    develop,
    digit_pools,
    ground,
    handwritten_digits,
    ink,
    noun,
    paint,
    spoken,
    tints,
    train_classifier,
    with_article,
    write_texts,
    write_vectors,
)

PICTURE_SIZE = 80
REGIONS = 12
FEATURE_SIZE = 128
MAX_THINGS = 5

PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
SIZES = {True: ("big", "large", "huge"), False: ("small", "little", "tiny")}
RELATIONS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "beside": ("next to", "beside"),
}
PLACES = {
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "middle": ("in the middle", "in the center"),
    "top left": ("in the top left corner", "in the upper left"),
    "top right": ("in the top right corner", "in the upper right"),
    "bottom left": ("in the bottom left corner", "in the lower left"),
    "bottom right": ("in the bottom right corner", "in the lower right"),
}
OPENERS = ("", "", "", "there is ", "a picture of ", "an image of ", "this is ", "we can see ")
VERBS = ("is", "sits", "stands", "is written", "is placed")

SAY_SIZE = 0.3
"""How often a caption says a thing's size."""


@dataclass(frozen=True)
class ScenesSettings(EmbeddedSettings):
    """Sizes in pictures; see `EmbeddedSettings`."""

    train: int = 1500
    dev: int = 300
    test: int = 500

    kind: ClassVar[str] = "scenes"
    format_version: ClassVar[int] = 2
    files: ClassVar[tuple[str, ...]] = ("ims.npy", "boxes.npy", "pictures.npy", *TEXTS)

    def write(self, folder: Path, progress: Callable[[str], None]) -> dict[str, float]:
        """Write the files of every split; return the classifier's accuracy on dev.

        `_ims.npy` (N, 12, 128) float32, post-ReLU activations and then the box's x1, y1, x2, y2, area;
        `_boxes.npy` (N, 12, 4) float32, fractions of the picture; `_pictures.npy` (N, 80, 80, 3) uint8;
        `_caps.txt`, line 5 * i + k describes picture i; `_caps.npy`, vectors of these; `_ids.txt`.
        """
        progress(f"drawing {self.train + self.dev + self.test} pictures of handwritten digits")
        pictures = {split: draw_pictures(split, self) for split in SPLITS}
        proposals = {split: propose(pictures[split], self.generator(split, "boxes")) for split in SPLITS}
        crops = {split: crop(pictures[split].pixels, proposals[split]) for split in SPLITS}
        labels = {split: region_labels(pictures[split], proposals[split]) for split in SPLITS}
        classifier = CropClassifier(FEATURE_SIZE - 5, len(NUMBERS) + 1, len(COLOURS) + 1)  # one more: background
        train_classifier(classifier, crops["train"], *labels["train"], self.classifier_epochs, progress)
        accuracy = classifier_accuracy(classifier, crops["dev"], *labels["dev"])
        progress("the classifier on dev regions: " + ", ".join(f"{name} {x:.1%}" for name, x in accuracy.items()))
        hidden = {s: torch.cat([classifier(part)[0] for part in crops[s].split(1024)]) for s in SPLITS}
        scale = 0.5 / hidden["train"].square().mean().sqrt()  # else the geometry would be too small to matter
        for split in SPLITS:
            _write_split(folder, split, pictures[split], proposals[split], hidden[split] * scale, self.seed)
        write_vectors(folder)
        return accuracy


SCENES: dict[str, ScenesSettings] = {
    "scenes": ScenesSettings(),
    "scenes_smoke": ScenesSettings(train=160, dev=40, test=40, classifier_epochs=6),
}


@dataclass(frozen=True)
class Thing:
    """One digit of a picture; x and y are the centre of its box as fractions of the picture, y downwards."""

    digit: int
    colour: str
    large: bool
    x: float
    y: float


@dataclass(frozen=True)
class Pictures:
    """Pictures and what is truly in them. Slots k >= count[i] of picture i are empty: no ink, a box of zeros.

    pixels (N, 80, 80, 3) uint8; count (N,), digit, colour (N, 5) int64; large (N, 5) bool;
    source (N, 5) int64, rows of scikit-learn's digits; boxes (N, 5, 4) float32, x1, y1, x2, y2 as fractions.
    """

    pixels: np.ndarray
    count: np.ndarray
    digit: np.ndarray
    colour: np.ndarray
    large: np.ndarray
    source: np.ndarray
    boxes: np.ndarray

    def things(self, i: int) -> list[Thing]:
        """Return the digits of picture i."""
        return [
            Thing(
                digit=int(self.digit[i, k]),
                colour=COLOUR_NAMES[self.colour[i, k]],
                large=bool(self.large[i, k]),
                x=float(self.boxes[i, k, 0::2].mean()),
                y=float(self.boxes[i, k, 1::2].mean()),
            )
            for k in range(self.count[i])
        ]


# Pictures


def draw_pictures(split: str, settings: ScenesSettings) -> Pictures:
    """Draw the pictures of one split: three to five digits in the cells of a jittered 3 x 3 grid on a noisy ground."""
    rng = settings.generator(split, "pictures")
    n, shape = getattr(settings, split), (getattr(settings, split), MAX_THINGS)
    glyphs, names = handwritten_digits()
    source = rng.choice(digit_pools(settings.seed)[split], shape)
    colour, large = rng.integers(len(COLOURS), size=shape), rng.random(shape) < 0.5
    cells = np.argsort(rng.random((n, 9)), axis=1)[:, :MAX_THINGS]
    count = rng.integers(3, MAX_THINGS + 1, n)
    extent = np.where(large, rng.uniform(0.31, 0.37, shape), rng.uniform(0.19, 0.23, shape))
    centres = (np.stack([cells % 3, cells // 3], axis=-1) + 0.5) / 3 + rng.uniform(-0.05, 0.05, (*shape, 2))
    centres = centres.clip(extent[..., None] / 2, 1 - extent[..., None] / 2)
    angle = rng.uniform(-0.2, 0.2, shape)
    rgb = tints(colour, rng)

    pixels = np.empty((n, PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8)
    boxes = np.zeros((*shape, 4), np.float32)
    for rows in np.array_split(np.arange(n), -(-n // 256)):  # chunks bound the memory
        canvas = ground(len(rows), PICTURE_SIZE, rng)
        for k in range(MAX_THINGS):
            drawn = ink(glyphs[source[rows, k]], PICTURE_SIZE, centres[rows, k], extent[rows, k], angle[rows, k])
            drawn *= torch.from_numpy(count[rows] > k)[:, None, None]
            boxes[rows, k] = _tight_boxes(drawn)
            canvas = paint(canvas, drawn, rgb[rows, k])
        pixels[rows] = develop(canvas, rng)
    return Pictures(pixels, count, names[source], colour, large, source, boxes)


def _tight_boxes(drawn: Tensor) -> np.ndarray:
    """Return the boxes around the ink, (n, 4) float32 fractions; zeros where there is none."""
    inked = (drawn > 0.3).numpy()
    sides = []
    for axis in (1, 2):  # columns give x, rows give y
        used = np.any(inked, axis=axis)
        sides.append((used.argmax(axis=1), PICTURE_SIZE - used[:, ::-1].argmax(axis=1)))
    (x1, x2), (y1, y2) = sides
    boxes = np.stack([x1, y1, x2, y2], axis=1) / PICTURE_SIZE
    return np.where(np.any(inked, axis=(1, 2))[:, None], boxes, 0).astype(np.float32)


# Regions


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


def classifier_accuracy(classifier: CropClassifier, crops: Tensor, digit: Tensor, colour: Tensor) -> dict[str, float]:
    """Return the share of right answers in 0..1: digit and colour where there is one, background where not."""
    _, digit_logits, colour_logits = classifier(crops)
    background = digit == len(NUMBERS)
    digit_right, colour_right = digit_logits.argmax(1) == digit, colour_logits.argmax(1) == colour
    answers = {
        "digit": digit_right[~background],
        "colour": colour_right[~background],
        "background": digit_right[background],
    }
    return {name: round(right.float().mean().item(), 4) for name, right in answers.items()}


# Captions


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


# Files


def _write_split(folder: Path, split: str, pictures: Pictures, boxes: np.ndarray, hidden: Tensor, seed: int) -> None:
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    geometry = np.concatenate([boxes, ((x2 - x1) * (y2 - y1))[..., None]], axis=-1)
    activations = hidden.numpy().reshape(*boxes.shape[:2], -1)
    rng = random.Random(f"{seed} {split}")
    captions = [caption(pictures.things(i), rng) for i in range(len(boxes)) for _ in range(CAPTIONS_PER_IMAGE)]
    np.save(folder / f"{split}_ims.npy", np.concatenate([activations, geometry], axis=-1).astype(np.float32))
    np.save(folder / f"{split}_boxes.npy", boxes)
    np.save(folder / f"{split}_pictures.npy", pictures.pixels)
    write_texts(folder, split, captions)
