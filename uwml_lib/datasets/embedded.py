"""What the embedded data sets share: handwritten digits in colour, words for them, and a folder that describes itself.

The digits are the 1,797 real ones inside scikit-learn, so nothing is downloaded. Each split draws from its own pool of
digits.
"""

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.datasets.embeddings import caption_vectors
from uwml_lib.errors import UWMLError
from uwml_lib.files import atomic_folder, read_json, read_lines, write_json, write_lines

SPLITS = ("train", "dev", "test")
CAPTIONS_PER_IMAGE = 5
CROP_SIZE = 16
POOL_ENDS = (1100, 1400)  # of the shuffled digits: train before the first, test after the second
TEXTS = ("caps.txt", "caps.npy", "ids.txt")
"""Ends of the names of the files that `write_texts` and `write_vectors` write."""
PURPOSES = ("pictures", "boxes", "clips")
NOISE = 14
"""Standard deviation of a pixel's noise, and of a digit's from the colour it has, in 0..255."""

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
NOUNS = ("digit", "digit", "number", "number", "numeral")

# How often a caption says what it could say: the lower, the more items it fits.
SAY_DIGIT, SAY_COLOUR = 0.93, 0.9


@dataclass(frozen=True)
class EmbeddedSettings:
    """What determines a data set; equal settings give byte-equal files on the same machine and versions."""

    train: int
    """Items for training."""
    dev: int
    """Items for choosing the best epoch."""
    test: int
    """Items for the final scores."""
    seed: int = 0
    """Seed of everything that is drawn."""
    classifier_epochs: int = 8
    """Passes of the classifier, whose activations are the features, over what it learns from in the train split."""

    kind: ClassVar[str]
    """What errors call the data set."""
    format_version: ClassVar[int]
    """Raised whenever the same settings would give other files; older folders are then built anew."""
    files: ClassVar[tuple[str, ...]]
    """Ends of the names of a split's files, such as ims.npy."""

    def __post_init__(self) -> None:
        for name, least in (("train", 2), ("dev", 1), ("test", 1), ("seed", 0), ("classifier_epochs", 1)):
            if getattr(self, name) < least:
                raise UWMLError(f"{self.kind}, {name}: found {getattr(self, name)!r}, expected at least {least}")

    def write(self, folder: Path, progress: Callable[[str], None]) -> dict[str, float]:
        """Write the files of every split; return the classifier's accuracy on dev. Draws from torch's random state."""
        raise NotImplementedError

    def file_names(self) -> list[str]:
        """Return the names of all files but the manifest."""
        return [f"{split}_{end}" for split in SPLITS for end in self.files]

    def generator(self, split: str, purpose: str) -> np.random.Generator:
        """Return a random stream of its own for each split and purpose; 0 is the pools'."""
        return np.random.default_rng([self.seed, 1 + SPLITS.index(split), PURPOSES.index(purpose)])


# Files


def build_embedded(folder: Path, settings: EmbeddedSettings, progress: Callable[[str], None] = print) -> bool:
    """Write a data set into `folder` unless it is there already; return whether it was built.

    Beside the files of `settings.write` there is a `manifest.json`. The folder appears whole or not at all, and the
    caller's random state and thread count stay as they are.
    Raises UWMLError if `folder` is a file, or holds a file that is not of this data set.
    """
    folder = Path(folder)
    if is_current(folder, settings):
        return False
    _refuse_foreign(folder, settings)
    start = time.perf_counter()
    with _private_torch(settings.seed), atomic_folder(folder) as target:
        accuracy = settings.write(target, progress)
        manifest = {
            "format_version": settings.format_version,
            "settings": asdict(settings),
            "classifier_accuracy": accuracy,
            "seconds": round(time.perf_counter() - start, 1),
            "versions": {package: version(package) for package in ("numpy", "torch", "scikit-learn")},
            "files": {file.name: _describe(file) for file in sorted(target.iterdir())},
        }
        write_json(target / "manifest.json", manifest)
    progress(f"wrote {folder} in {manifest['seconds']:.0f} s")
    return True


def is_current(folder: Path, settings: EmbeddedSettings) -> bool:
    """Tell whether `folder` holds these settings in this format, with every file as it was written."""
    try:
        manifest = read_json(folder / "manifest.json")
        described = manifest["format_version"] == settings.format_version and manifest["settings"] == asdict(settings)
        files = {name: manifest["files"][name] for name in settings.file_names()}
    except (UWMLError, KeyError, TypeError):
        return False
    present = {name: _describe(folder / name) for name in files if (folder / name).is_file()}
    return described and files == present


def write_texts(folder: Path, split: str, captions: list[str]) -> None:
    """Write the captions of a split, image-major, and the ids of its items."""
    write_lines(folder / f"{split}_caps.txt", captions)
    write_lines(folder / f"{split}_ids.txt", (f"{split}_{i:05d}" for i in range(len(captions) // CAPTIONS_PER_IMAGE)))


def write_vectors(folder: Path) -> None:
    """Write `{split}_caps.npy` for the captions of every split; see `caption_vectors`."""
    captions = [read_lines(folder / f"{split}_caps.txt") for split in SPLITS]
    for split, vectors in zip(SPLITS, caption_vectors(*captions), strict=True):
        np.save(folder / f"{split}_caps.npy", vectors)


def _describe(file: Path) -> dict[str, int | str]:
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _refuse_foreign(folder: Path, settings: EmbeddedSettings) -> None:
    """Replacing a folder removes what is in it, so leave alone one that is not ours."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UWMLError(f"{folder}: found a file, expected a folder for the data set")
    foreign = sorted({file.name for file in folder.iterdir()} - {"manifest.json", *settings.file_names()})
    if foreign:
        raise UWMLError(
            f"{folder}: found {foreign[0]}, which is not of this data set; move it, or choose another folder"
        )


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


# Pictures


def digit_pools(seed: int) -> dict[str, np.ndarray]:
    """Split the rows of scikit-learn's digits into three disjoint pools, split name -> (n,) int64."""
    order = np.random.default_rng([seed, 0]).permutation(len(handwritten_digits()[0]))
    return dict(zip(SPLITS, np.split(order, POOL_ENDS), strict=True))


def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the glyphs (1797, 8, 8) float32 in 0..1 and which digit each is (1797,) int64."""
    from sklearn.datasets import load_digits  # slow to import, and only a build needs it

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def tints(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an RGB near each colour's own, (..., 3) float64; colour (...) counts along COLOUR_NAMES."""
    return np.array([COLOURS[name][0] for name in COLOUR_NAMES])[colour] + rng.normal(0, NOISE, (*colour.shape, 3))


def ground(n: int, size: int, rng: np.random.Generator) -> Tensor:
    """Return dark blotchy grounds, (n, 3, size, size) float32 in 0..255."""
    blotches = rng.uniform(35, 75, (n, 1, 1, 1)) + rng.normal(0, 14, (n, 3, 5, 5))
    return F.interpolate(torch.from_numpy(blotches).float(), size=size, mode="bicubic", align_corners=True)


def ink(glyphs: np.ndarray, size: int, centres: np.ndarray, extent: np.ndarray, angle: np.ndarray) -> Tensor:
    """Return how much ink each pixel has, (n, size, size) float32 in 0..1, for one glyph a picture.

    glyphs (n, 8, 8); centres (n, 2) and extent (n,) as fractions of the picture; angle (n,) in radians.
    """
    smooth = F.interpolate(torch.from_numpy(glyphs)[:, None], size=48, mode="bicubic", align_corners=False)
    # Picture coordinates -> glyph coordinates, both in -1..1.
    rotation = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)
    linear = rotation / extent[:, None, None]
    offset = -linear @ (2 * centres - 1)[:, :, None]
    theta = torch.from_numpy(np.concatenate([linear, offset], axis=2)).float()
    grid = F.affine_grid(theta, [len(glyphs), 1, size, size], align_corners=False)
    soft = F.grid_sample(smooth, grid, padding_mode="zeros", align_corners=False)[:, 0]
    return ((soft - 0.3) / 0.4).clamp(0, 1)


def paint(canvas: Tensor, ink: Tensor, rgb: np.ndarray) -> Tensor:
    """Return the canvas (n, 3, h, w) with ink (n, h, w) of the colours rgb (n, 3) on it."""
    return canvas + ink[:, None] * (torch.from_numpy(rgb).float()[:, :, None, None] - canvas)


def develop(canvas: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Return the canvas (n, 3, h, w) as noisy pixels, (n, h, w, 3) uint8."""
    pixels = canvas.permute(0, 2, 3, 1).numpy()
    noisy = pixels + NOISE * rng.standard_normal(pixels.shape, np.float32)
    return noisy.clip(0, 255).astype(np.uint8)


# The classifier


def crop(pixels: np.ndarray, boxes: np.ndarray) -> Tensor:
    """Cut out regions with bilinear sampling: (N * R, 3, 16, 16) float32, in about -1..1.

    pixels: (N, height, width, 3) uint8. boxes: (N, R, 4) float32, x1, y1, x2, y2 as shares of width and height.
    """
    steps = torch.linspace(0.5 / CROP_SIZE, 1 - 0.5 / CROP_SIZE, CROP_SIZE)
    x1, y1, x2, y2 = torch.from_numpy(boxes).unbind(-1)
    x = x1[..., None] + (x2 - x1)[..., None] * steps
    y = y1[..., None] + (y2 - y1)[..., None] * steps
    shape = (*x.shape[:2], CROP_SIZE, CROP_SIZE)
    grid = torch.stack([x[:, :, None, :].expand(shape), y[:, :, :, None].expand(shape)], dim=-1) * 2 - 1
    picture = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    crops = F.grid_sample(picture, grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return crops.unflatten(2, (boxes.shape[1], CROP_SIZE)).transpose(1, 2).flatten(0, 1)


class CropClassifier(nn.Module):
    """A small convolutional network that names the digit and the colour in a crop (B, 3, 16, 16) float32.

    Returns the hidden activations (B, hidden), the digit logits (B, digits) and the colour logits (B, colours).
    """

    def __init__(self, hidden: int, digits: int, colours: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (CROP_SIZE // 4) ** 2, hidden), nn.ReLU(),
        )  # fmt: skip
        self.digit = nn.Linear(hidden, digits)
        self.colour = nn.Linear(hidden, colours)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(crops)
        return hidden, self.digit(hidden), self.colour(hidden)


def train_classifier(
    classifier: CropClassifier,
    crops: Tensor,
    digit: Tensor,
    colour: Tensor,
    epochs: int,
    progress: Callable[[str], None],
) -> None:
    """Train on crops (B, 3, 16, 16) with labels digit and colour (B,); draws from torch's global random state."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(crops)).split(128):
            _, digit_logits, colour_logits = classifier(crops[rows])
            loss = F.cross_entropy(digit_logits, digit[rows]) + F.cross_entropy(colour_logits, colour[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        scheduler.step()
        progress(f"training the classifier: epoch {epoch + 1} of {epochs}, loss {total / len(crops):.2f}")
    classifier.eval().requires_grad_(False)


# Captions


def spoken(text: str, rng: random.Random) -> str:
    """Return a caption with a capital and a full stop, or without, as people write them."""
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + (" ." if rng.random() < 0.6 else "")


def noun(digit: int, colour: str, rng: random.Random) -> str:
    """Name a digit by what it is and its colour, or one of these; without an article."""
    say_digit, say_colour = rng.random() < SAY_DIGIT, rng.random() < SAY_COLOUR
    if not say_digit and not say_colour:
        say_digit = rng.random() < 0.5
        say_colour = not say_digit
    words = rng.choice(NOUNS)
    if say_digit:
        value = NUMBERS[digit] if rng.random() < 0.6 else str(digit)
        words = f"{words} {value}" if rng.random() < 0.2 else value
    if say_colour:
        word = colour_word(colour, rng)
        words = f"{word} {words}" if rng.random() < 0.85 else f"{words} in {colour}"
    return words


def colour_word(colour: str, rng: random.Random) -> str:
    """Return a word for a colour, mostly the usual one."""
    words = COLOURS[colour][1]
    return words[0] if rng.random() < 0.6 else rng.choice(words)


def with_article(words: str) -> str:
    """Put a or an before a noun phrase."""
    vowel = words[0] in "aeiou8" and not words.startswith("one")
    return f"{'an' if vowel else 'a'} {words}"
