"""The embedded data set `clips`: short videos of moving coloured handwritten digits with five captions each.

A clip is one to three events, one after the other: a digit of a colour moves, grows, shrinks or stands still. Clips
come in pairs, each of which tells the other backwards: the same digits in the same colours, but in reverse order and
with opposite motions. So whoever looks at the frames without their order cannot tell the two apart; captions do.

A frame is described by where a detector that is a little off finds the digit, and by the last hidden layer of a
classifier that was trained on the digits and colours of the train split alone. One frame says nothing about a motion.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.digits import drawing
from uwml_lib.datasets.digits.classifier import crop
from uwml_lib.datasets.digits.clip_captions import Event, caption
from uwml_lib.datasets.digits.drawing import COLOURS
from uwml_lib.datasets.digits.embedded import Drawn, EmbeddedSettings
from uwml_lib.datasets.digits.words import NUMBERS

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
        place = detect(clips, self.generator(split, "boxes"))
        return Drawn(
            crops=cut_out(clips.pixels, place),
            labels=clips.labels(),
            geometry=place,
            arrays={"offsets": clips.offsets, "pictures": clips.pixels},
            captions=self.captions(split, caption, map(clips.events, range(len(clips.count)))),
        )


CLIPS: dict[str, ClipsSettings] = {
    "clips": ClipsSettings(),
    "clips_smoke": ClipsSettings(train=160, dev=40, test=40),
}


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
            Event(int(self.digit[i, k]), drawing.COLOUR_NAMES[self.colour[i, k]], MOTION_NAMES[self.motion[i, k]])
            for k in range(self.count[i])
        ]


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
    for rows in np.array_split(np.arange(len(place)), -(-len(place) // 1024)):  # chunks bound the memory
        event = of_frame[rows]
        drawn = drawing.ink(
            glyphs[source.ravel()[event]], FRAME_SIZE, place[rows, :2], place[rows, 2], angle.ravel()[event]
        )
        pixels[rows] = drawing.develop(
            drawing.paint(grounds[event // MAX_EVENTS], drawn, rgb.reshape(-1, 3)[event]), rng
        )
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
