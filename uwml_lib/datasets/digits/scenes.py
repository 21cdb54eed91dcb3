"""The embedded data set `scenes`: pictures of coloured handwritten digits with five captions each, made on the spot.

Region proposals and features imitate bottom-up attention: jittered boxes and distractors, described by the last hidden
layer of a classifier that was trained on object and attribute labels of the train split alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.digits import drawing
from uwml_lib.datasets.digits.classifier import crop
from uwml_lib.datasets.digits.drawing import COLOURS
from uwml_lib.datasets.digits.embedded import Drawn, EmbeddedSettings
from uwml_lib.datasets.digits.scene_captions import Thing, caption
from uwml_lib.datasets.digits.words import NUMBERS

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


SCENES: dict[str, ScenesSettings] = {
    "scenes": ScenesSettings(),
    "scenes_smoke": ScenesSettings(train=160, dev=40, test=40, classifier_epochs=6),
}


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
                colour=drawing.COLOUR_NAMES[self.colour[i, k]],
                large=bool(self.large[i, k]),
                x=float(self.boxes[i, k, 0::2].mean()),
                y=float(self.boxes[i, k, 1::2].mean()),
            )
            for k in range(self.count[i])
        ]


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
            drawn = drawing.ink(
                glyphs[source[rows, k]], PICTURE_SIZE, centres[rows, k], extent[rows, k], angle[rows, k]
            )
            drawn *= torch.from_numpy(count[rows] > k)[:, None, None]
            boxes[rows, k] = _tight_boxes(drawn)
            canvas = drawing.paint(canvas, drawn, rgb[rows, k])
        pixels[rows] = drawing.develop(canvas, rng)
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
