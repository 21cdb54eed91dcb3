"""The embedded data set `scenes`: pictures of coloured handwritten digits with five captions each, made on the spot.

The digits are the 1,797 real ones inside scikit-learn, so nothing is downloaded. Each split draws from its own pool of
digits. Region proposals and features imitate bottom-up attention: jittered boxes and distractors, described by the
last hidden layer of a classifier that was trained on object and attribute labels of the train split alone.
"""

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.errors import UWMLError
from uwml_lib.files import atomic_folder, read_json, write_json, write_text

FORMAT_VERSION = 1
"""Raised whenever the same settings would give other files; older folders are then built anew."""

SPLITS = ("train", "dev", "test")
PICTURE_SIZE = 80
REGIONS = 12
FEATURE_SIZE = 128
CAPTIONS_PER_IMAGE = 5
MAX_THINGS = 5
CROP_SIZE = 16
BACKGROUND = -1
POOL_ENDS = (1100, 1400)  # of the shuffled digits: train before the first, test after the second

# Name -> RGB and the words captions use; the first word is the usual one.
COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((225, 40, 40), ("red", "scarlet")),
    "orange": ((250, 140, 20), ("orange",)),
    "yellow": ((245, 230, 60), ("yellow", "golden")),
    "green": ((50, 175, 60), ("green",)),
    "turquoise": ((60, 215, 215), ("turquoise", "cyan")),
    "blue": ((60, 95, 240), ("blue",)),
    "purple": ((150, 60, 200), ("purple", "violet")),
    "pink": ((250, 150, 195), ("pink",)),
    "white": ((240, 240, 240), ("white",)),
}
COLOUR_NAMES = tuple(COLOURS)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
SIZES = {True: ("big", "large", "huge"), False: ("small", "little", "tiny")}
NOUNS = ("digit", "digit", "number", "number", "numeral")
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

# How often a caption says what it could say: the lower, the more pictures it fits.
SAY_DIGIT, SAY_COLOUR, SAY_SIZE = 0.93, 0.9, 0.3


@dataclass(frozen=True)
class ScenesSettings:
    """What determines the data set; equal settings give byte-equal files on the same machine and versions."""

    train: int = 1500
    """Pictures for training."""
    dev: int = 300
    """Pictures for choosing the best epoch."""
    test: int = 500
    """Pictures for the final scores."""
    seed: int = 0
    """Seed of everything that is drawn."""
    classifier_epochs: int = 8
    """Passes of the region classifier over the train crops."""

    def __post_init__(self) -> None:
        for name, least in (("train", 2), ("dev", 1), ("test", 1), ("seed", 0), ("classifier_epochs", 1)):
            if getattr(self, name) < least:
                raise UWMLError(f"scenes, {name}: found {getattr(self, name)!r}, expected at least {least}")


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


def build_scenes(folder: Path, settings: ScenesSettings, progress: Callable[[str], None] = print) -> bool:
    """Write the data set into `folder` unless it is there already; return whether it was built.

    For each split: `_ims.npy` (N, 12, 128) float32, post-ReLU activations and then the box's x1, y1, x2, y2, area;
    `_boxes.npy` (N, 12, 4) float32, fractions of the picture; `_pictures.npy` (N, 80, 80, 3) uint8;
    `_caps.txt`, line 5 * i + k describes picture i; `_ids.txt`; and one `manifest.json`. The folder appears whole or
    not at all, and the caller's random state and thread count stay as they are.
    Raises UWMLError if `folder` is a file, or holds a file that is not of this data set.
    """
    folder = Path(folder)
    if is_current(folder, settings):
        return False
    _refuse_foreign(folder)
    start = time.perf_counter()
    with _private_torch(settings.seed), atomic_folder(folder) as target:
        progress(f"drawing {settings.train + settings.dev + settings.test} pictures of handwritten digits")
        pictures = {split: draw_pictures(split, settings) for split in SPLITS}
        proposals = {split: propose(pictures[split], _generator(settings, split, "boxes")) for split in SPLITS}
        crops = {split: crop(pictures[split].pixels, proposals[split]) for split in SPLITS}
        labels = {split: region_labels(pictures[split], proposals[split]) for split in SPLITS}
        classifier = train_classifier(crops["train"], *labels["train"], settings.classifier_epochs, progress)
        accuracy = classifier_accuracy(classifier, crops["dev"], *labels["dev"])
        progress("the classifier on dev regions: " + ", ".join(f"{name} {x:.1%}" for name, x in accuracy.items()))
        hidden = {s: torch.cat([classifier(part)[0] for part in crops[s].split(1024)]) for s in SPLITS}
        scale = 0.5 / hidden["train"].square().mean().sqrt()  # else the geometry would be too small to matter
        for split in SPLITS:
            _write_split(target, split, pictures[split], proposals[split], hidden[split] * scale, settings)
        manifest = {
            "format_version": FORMAT_VERSION,
            "settings": asdict(settings),
            "classifier_accuracy": accuracy,
            "seconds": round(time.perf_counter() - start, 1),
            "versions": {package: version(package) for package in ("numpy", "torch", "scikit-learn")},
            "files": {file.name: _describe(file) for file in sorted(target.iterdir())},
        }
        write_json(target / "manifest.json", manifest)
    progress(f"wrote {folder} in {manifest['seconds']:.0f} s")
    return True


def is_current(folder: Path, settings: ScenesSettings) -> bool:
    """Tell whether `folder` holds these settings in this format, with every file as it was written."""
    try:
        manifest = read_json(folder / "manifest.json")
        described = manifest["format_version"] == FORMAT_VERSION and manifest["settings"] == asdict(settings)
        files = {name: manifest["files"][name] for name in _file_names()}
    except (UWMLError, KeyError, TypeError):
        return False
    present = {name: _describe(folder / name) for name in files if (folder / name).is_file()}
    return described and files == present


# Pictures


def digit_pools(seed: int) -> dict[str, np.ndarray]:
    """Split the rows of scikit-learn's digits into three disjoint pools, split name -> (n,) int64."""
    order = np.random.default_rng([seed, 0]).permutation(len(_digits()[0]))
    return dict(zip(SPLITS, np.split(order, POOL_ENDS), strict=True))


def draw_pictures(split: str, settings: ScenesSettings) -> Pictures:
    """Draw the pictures of one split: three to five digits in the cells of a jittered 3 x 3 grid on a noisy ground."""
    rng = _generator(settings, split, "pictures")
    n, shape = getattr(settings, split), (getattr(settings, split), MAX_THINGS)
    glyphs, names = _digits()
    source = rng.choice(digit_pools(settings.seed)[split], shape)
    colour, large = rng.integers(len(COLOURS), size=shape), rng.random(shape) < 0.5
    cells = np.argsort(rng.random((n, 9)), axis=1)[:, :MAX_THINGS]
    count = rng.integers(3, MAX_THINGS + 1, n)
    extent = np.where(large, rng.uniform(0.31, 0.37, shape), rng.uniform(0.19, 0.23, shape))
    centres = (np.stack([cells % 3, cells // 3], axis=-1) + 0.5) / 3 + rng.uniform(-0.05, 0.05, (*shape, 2))
    centres = centres.clip(extent[..., None] / 2, 1 - extent[..., None] / 2)
    angle = rng.uniform(-0.2, 0.2, shape)
    rgb = np.array([COLOURS[name][0] for name in COLOUR_NAMES])[colour] + rng.normal(0, 14, (*shape, 3))

    pixels = np.empty((n, PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8)
    boxes = np.zeros((*shape, 4), np.float32)
    for rows in np.array_split(np.arange(n), -(-n // 256)):  # chunks bound the memory
        canvas = _ground(len(rows), rng)
        for k in range(MAX_THINGS):
            ink = _ink(glyphs[source[rows, k]], centres[rows, k], extent[rows, k], angle[rows, k])
            ink *= torch.from_numpy(count[rows] > k)[:, None, None]
            boxes[rows, k] = _tight_boxes(ink)
            tint = torch.from_numpy(rgb[rows, k]).float()[:, :, None, None]
            canvas = canvas + ink[:, None] * (tint - canvas)
        noisy = canvas.permute(0, 2, 3, 1).numpy() + 14 * rng.standard_normal(pixels[rows].shape, np.float32)
        pixels[rows] = noisy.clip(0, 255).astype(np.uint8)
    return Pictures(pixels, count, names[source], colour, large, source, boxes)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the glyphs (1797, 8, 8) float32 in 0..1 and which digit each is (1797,) int64."""
    from sklearn.datasets import load_digits  # slow to import, and only a build needs it

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def _ground(n: int, rng: np.random.Generator) -> Tensor:
    """Return dark blotchy grounds, (n, 3, 80, 80) float32 in 0..255."""
    blotches = rng.uniform(35, 75, (n, 1, 1, 1)) + rng.normal(0, 14, (n, 3, 5, 5))
    return F.interpolate(torch.from_numpy(blotches).float(), size=PICTURE_SIZE, mode="bicubic", align_corners=True)


def _ink(glyphs: np.ndarray, centres: np.ndarray, extent: np.ndarray, angle: np.ndarray) -> Tensor:
    """Return how much ink each pixel has, (n, 80, 80) float32 in 0..1, for one glyph a picture.

    glyphs (n, 8, 8); centres (n, 2) and extent (n,) as fractions of the picture; angle (n,) in radians.
    """
    smooth = F.interpolate(torch.from_numpy(glyphs)[:, None], size=48, mode="bicubic", align_corners=False)
    # Picture coordinates -> glyph coordinates, both in -1..1.
    rotation = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)
    linear = rotation / extent[:, None, None]
    offset = -linear @ (2 * centres - 1)[:, :, None]
    theta = torch.from_numpy(np.concatenate([linear, offset], axis=2)).float()
    grid = F.affine_grid(theta, [len(glyphs), 1, PICTURE_SIZE, PICTURE_SIZE], align_corners=False)
    soft = F.grid_sample(smooth, grid, padding_mode="zeros", align_corners=False)[:, 0]
    return ((soft - 0.3) / 0.4).clamp(0, 1)


def _tight_boxes(ink: Tensor) -> np.ndarray:
    """Return the boxes around the ink, (n, 4) float32 fractions; zeros where there is none."""
    inked = (ink > 0.3).numpy()
    sides = []
    for axis in (1, 2):  # columns give x, rows give y
        used = inked.any(axis=axis)
        sides.append((used.argmax(axis=1), PICTURE_SIZE - used[:, ::-1].argmax(axis=1)))
    (x1, x2), (y1, y2) = sides
    boxes = np.stack([x1, y1, x2, y2], axis=1) / PICTURE_SIZE
    return np.where(inked.any(axis=(1, 2))[:, None], boxes, 0).astype(np.float32)


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


def _jittered(boxes: np.ndarray, rng: np.random.Generator, tries: int = 8) -> np.ndarray:
    """Move and stretch each box (..., 4), keeping the first of some tries whose overlap is 0.5 to 0.9."""
    sizes = np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    candidates = boxes[..., None, :] + sizes[..., None, :] * rng.normal(0, 0.09, (*boxes.shape[:-1], tries, 4))
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


def crop(pixels: np.ndarray, boxes: np.ndarray) -> Tensor:
    """Cut out the regions with bilinear sampling, (N * 12, 3, 16, 16) float32 in about -1..1."""
    steps = torch.linspace(0.5 / CROP_SIZE, 1 - 0.5 / CROP_SIZE, CROP_SIZE)
    x1, y1, x2, y2 = torch.from_numpy(boxes).unbind(-1)
    x = x1[..., None] + (x2 - x1)[..., None] * steps
    y = y1[..., None] + (y2 - y1)[..., None] * steps
    shape = (*x.shape[:2], CROP_SIZE, CROP_SIZE)
    grid = torch.stack([x[:, :, None, :].expand(shape), y[:, :, :, None].expand(shape)], dim=-1) * 2 - 1
    picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    crops = F.grid_sample(picture, grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return crops.unflatten(2, (boxes.shape[1], CROP_SIZE)).transpose(1, 2).flatten(0, 1)


class RegionClassifier(nn.Module):
    """A small convolutional network that names the digit and the colour in a crop (B, 3, 16, 16) float32.

    Returns the hidden activations (B, 123), the digit logits (B, 11) and the colour logits (B, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (CROP_SIZE // 4) ** 2, FEATURE_SIZE - 5), nn.ReLU(),
        )  # fmt: skip
        self.digit = nn.Linear(FEATURE_SIZE - 5, len(NUMBERS) + 1)
        self.colour = nn.Linear(FEATURE_SIZE - 5, len(COLOURS) + 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(crops)
        return hidden, self.digit(hidden), self.colour(hidden)


def train_classifier(
    crops: Tensor, digit: Tensor, colour: Tensor, epochs: int, progress: Callable[[str], None], batch: int = 128
) -> RegionClassifier:
    """Train on crops (B, 3, 16, 16) with labels digit and colour (B,); draws from torch's global random state."""
    classifier = RegionClassifier()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(crops)).split(batch):
            _, digit_logits, colour_logits = classifier(crops[rows])
            loss = F.cross_entropy(digit_logits, digit[rows]) + F.cross_entropy(colour_logits, colour[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        scheduler.step()
        progress(f"training the region classifier: epoch {epoch + 1} of {epochs}, loss {total / len(crops):.2f}")
    return classifier.eval().requires_grad_(False)


def classifier_accuracy(classifier: RegionClassifier, crops: Tensor, digit: Tensor, colour: Tensor) -> dict[str, float]:
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
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + (" ." if rng.random() < 0.6 else "")


def noun_phrase(thing: Thing, rng: random.Random) -> str:
    """Name a thing by its digit, colour and size, or some of these."""
    say_digit, say_colour = rng.random() < SAY_DIGIT, rng.random() < SAY_COLOUR
    if not say_digit and not say_colour:
        say_digit = rng.random() < 0.5
        say_colour = not say_digit
    noun = rng.choice(NOUNS)
    if say_digit:
        value = NUMBERS[thing.digit] if rng.random() < 0.6 else str(thing.digit)
        noun = f"{noun} {value}" if rng.random() < 0.2 else value
    if say_colour:
        colour = _colour_word(thing.colour, rng)
        noun = f"{colour} {noun}" if rng.random() < 0.85 else f"{noun} in {thing.colour}"
    if rng.random() < SAY_SIZE:
        noun = f"{rng.choice(SIZES[thing.large])} {noun}"
    return _with_article(noun)


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
    named = f"{_colour_word(group[0].colour, rng)} {rng.choice(NOUNS)}s" if by_colour else PLURALS[group[0].digit]
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


def _colour_word(colour: str, rng: random.Random) -> str:
    words = COLOURS[colour][1]
    return words[0] if rng.random() < 0.6 else rng.choice(words)


def _with_article(words: str) -> str:
    vowel = words[0] in "aeiou8" and not words.startswith("one")
    return f"{'an' if vowel else 'a'} {words}"


# Files


def _write_split(
    folder: Path, split: str, pictures: Pictures, boxes: np.ndarray, hidden: Tensor, settings: ScenesSettings
) -> None:
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    geometry = np.concatenate([boxes, ((x2 - x1) * (y2 - y1))[..., None]], axis=-1)
    activations = hidden.numpy().reshape(*boxes.shape[:2], -1)
    rng = random.Random(f"{settings.seed} {split}")
    captions = [caption(pictures.things(i), rng) for i in range(len(boxes)) for _ in range(CAPTIONS_PER_IMAGE)]
    np.save(folder / f"{split}_ims.npy", np.concatenate([activations, geometry], axis=-1).astype(np.float32))
    np.save(folder / f"{split}_boxes.npy", boxes)
    np.save(folder / f"{split}_pictures.npy", pictures.pixels)
    write_text(folder / f"{split}_caps.txt", "".join(f"{line}\n" for line in captions))
    write_text(folder / f"{split}_ids.txt", "".join(f"{split}_{i:05d}\n" for i in range(len(boxes))))


def _file_names() -> list[str]:
    kinds = ("ims.npy", "boxes.npy", "pictures.npy", "caps.txt", "ids.txt")
    return [f"{split}_{kind}" for split in SPLITS for kind in kinds]


def _describe(file: Path) -> dict[str, int | str]:
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _refuse_foreign(folder: Path) -> None:
    """Replacing a folder removes what is in it, so leave alone one that is not ours."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UWMLError(f"{folder}: found a file, expected a folder for the data set")
    foreign = sorted({file.name for file in folder.iterdir()} - {"manifest.json", *_file_names()})
    if foreign:
        raise UWMLError(
            f"{folder}: found {foreign[0]}, which is not of this data set; move it, or choose another folder"
        )


def _generator(settings: ScenesSettings, split: str, purpose: str) -> np.random.Generator:
    """A random stream of its own for each split and purpose; 0 is the pools'."""
    return np.random.default_rng([settings.seed, 1 + SPLITS.index(split), ("pictures", "boxes").index(purpose)])


@contextlib.contextmanager
def _private_torch(seed: int) -> Iterator[None]:
    """Seed the CPU's random state and use one thread, on which results depend; afterwards restore both."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch accelerators too
        try:
            yield
        finally:
            torch.set_num_threads(threads)
