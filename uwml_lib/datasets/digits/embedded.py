"""What the embedded data sets share: a classifier whose activations are features, a folder that describes itself."""

import hashlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.datasets.digits.drawing import COLOURS, NUMBERS, SPLITS
from uwml_lib.datasets.embeddings import caption_vectors
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_folder, read_json, write_json, write_lines
from uwml_lib.support.numerics import threads
from uwml_lib.support.progress import Say

CAPTIONS_PER_IMAGE = 5
FEATURE_SIZE = 128
CROP_SIZE = 16
PURPOSES = ("pictures", "boxes", "clips")


class Drawn(NamedTuple):
    """One split before it has features."""

    crops: Tensor  # (n, 3, 16, 16) float32, one a region or frame
    labels: tuple[Tensor, Tensor]  # the digit and the colour in each, (n,) int64
    geometry: np.ndarray  # (..., k) float32, n rows in all: where each crop is
    arrays: dict[str, np.ndarray]  # further files by their names
    captions: list[str]  # line 5 * i + k describes item i


@dataclass(frozen=True)
class EmbeddedSettings:
    """What determines a data set; equal settings give byte-equal files on the same machine and versions."""

    train: int  # items for training
    dev: int  # items for choosing the best epoch
    test: int  # items for the final scores
    seed: int = 0  # of everything that is drawn
    classifier_epochs: int = 8  # of the classifier whose activations are the features, over crops of the train split

    kind: ClassVar[str]  # what errors call the data set
    background: ClassVar[bool]  # whether crops may show no digit, which is a class of its own, the last one
    format_version: ClassVar[int]  # raised whenever the same settings would give other files, to have them built anew
    arrays: ClassVar[tuple[str, ...]]  # names of the arrays that `draw` gives for files of their own, such as pictures

    def __post_init__(self) -> None:
        for name, least in (("train", 2), ("dev", 1), ("test", 1), ("seed", 0), ("classifier_epochs", 1)):
            if getattr(self, name) < least:
                raise UWMLError(f"{self.kind}, {name}: found {getattr(self, name)!r}, expected at least {least}")

    def draw(self, split: str) -> Drawn:
        """Draw a split, by the streams of `generator` alone."""
        raise NotImplementedError

    def generator(self, split: str, purpose: str) -> np.random.Generator:
        """Return the random stream of a split and a purpose; 0 in place of a split is that of `digit_pools`."""
        return np.random.default_rng([self.seed, 1 + SPLITS.index(split), PURPOSES.index(purpose)])

    def captions(self, split: str, caption: Callable[[Any, random.Random], str], contents: Iterable[Any]) -> list[str]:
        """Return five captions of every item, told from its content."""
        rng = random.Random(f"{self.seed} {split}")
        return [caption(content, rng) for content in contents for _ in range(CAPTIONS_PER_IMAGE)]

    def write(self, folder: Path, progress: Say) -> dict[str, float]:
        """Write the files of every split; return the classifier's accuracy on dev. Draws from torch's random state.

        `_ims.npy` float32: post-ReLU activations and then the geometry, 128 numbers; `_caps.txt`; `_caps.npy`, vectors
        of these; `_ids.txt`; and the arrays of `draw`.
        """
        progress(f"{self.kind}: drawing {self.train + self.dev + self.test} items with handwritten digits")
        drawn = {split: self.draw(split) for split in SPLITS}
        train, dev, size = drawn["train"], drawn["dev"], FEATURE_SIZE - drawn["train"].geometry.shape[-1]
        model = CropClassifier(size, len(NUMBERS) + self.background, len(COLOURS) + self.background)
        model.fit(train.crops, *train.labels, self.classifier_epochs, progress)
        right = model.accuracy(dev.crops, *dev.labels)
        progress("the classifier on dev: " + ", ".join(f"{name} {share:.1%}" for name, share in right.items()))
        hidden = {s: torch.cat([model(part)[0] for part in drawn[s].crops.split(1024)]) for s in SPLITS}
        scale = 0.5 / hidden["train"].square().mean().sqrt()  # else the geometry would be too small to matter
        vectors = caption_vectors(*(drawn[split].captions for split in SPLITS))
        for (split, (_, _, geometry, arrays, captions)), caps in zip(drawn.items(), vectors, strict=True):
            activations = (hidden[split] * scale).numpy().reshape(*geometry.shape[:-1], size)
            ims = np.concatenate([activations, geometry], axis=-1)
            for name, array in {"ims": ims, "caps": caps, **arrays}.items():
                np.save(folder / f"{split}_{name}.npy", array)
            write_lines(folder / f"{split}_caps.txt", captions)
            write_lines(folder / f"{split}_ids.txt", (f"{split}_{i:05d}" for i in range(getattr(self, split))))
        return right

    def file_names(self) -> list[str]:
        """Return the names of all files but the manifest."""
        ends = [f"{name}.npy" for name in ("ims", "caps", *self.arrays)] + ["caps.txt", "ids.txt"]
        return [f"{split}_{end}" for split in SPLITS for end in ends]


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

    def fit(self, crops: Tensor, digit: Tensor, colour: Tensor, epochs: int, progress: Say) -> None:
        """Train on crops (B, 3, 16, 16) with labels (B,); draws from torch's global random state."""
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-3)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(crops)).split(128):
                _, digit_logits, colour_logits = self(crops[rows])
                loss = F.cross_entropy(digit_logits, digit[rows]) + F.cross_entropy(colour_logits, colour[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            scheduler.step()
            progress(f"training the classifier: epoch {epoch + 1} of {epochs}, loss {total / len(crops):.2f}")
        self.eval().requires_grad_(False)

    def accuracy(self, crops: Tensor, digit: Tensor, colour: Tensor) -> dict[str, float]:
        """Return the share of right answers in 0..1: digit and colour where there is a digit, else that there is none.

        Where every crop shows a digit, nothing is said of those that do not.
        """
        _, digit_logits, colour_logits = self(crops)
        empty = digit == len(NUMBERS)
        digit_right, colour_right = digit_logits.argmax(1) == digit, colour_logits.argmax(1) == colour
        answers = {"digit": digit_right[~empty], "colour": colour_right[~empty], "background": digit_right[empty]}
        return {name: round(right.float().mean().item(), 4) for name, right in answers.items() if len(right)}


def build_embedded(folder: Path, settings: EmbeddedSettings, progress: Say = print) -> bool:
    """Write a data set into `folder` unless it is there already; return whether it was built.

    Beside the files of `settings.write` there is a `manifest.json`. The folder appears whole or not at all, and the
    caller's random state and thread count stay as they are.
    Raises UWMLError if `folder` is a file, or holds a file that is not of this data set.
    """
    folder = Path(folder)
    if is_current(folder, settings):
        return False
    if folder.exists():  # replacing it removes what is in it
        if not folder.is_dir():
            raise UWMLError(f"{folder}: found a file, expected a folder for the data set")
        if foreign := {file.name for file in folder.iterdir()} - {"manifest.json", *settings.file_names()}:
            found = f"found {min(foreign)}, which is not of this data set"
            raise UWMLError(f"{folder}: {found}; move it, or choose another folder")
    start = time.perf_counter()
    # Results depend on the number of threads.
    with torch.random.fork_rng(devices=[]), threads(1), atomic_folder(folder) as target:
        torch.default_generator.manual_seed(settings.seed)  # torch.manual_seed would touch accelerators too
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
        return described and all(manifest["files"][name] == _describe(folder / name) for name in settings.file_names())
    except (UWMLError, KeyError, TypeError, OSError):
        return False


def _describe(file: Path) -> dict[str, int | str]:
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
