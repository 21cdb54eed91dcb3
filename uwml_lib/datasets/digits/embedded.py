"""What the embedded data sets share: features for what was drawn, and a folder that describes itself."""

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.digits.classifier import CropClassifier, classifier_accuracy, train_classifier
from uwml_lib.datasets.digits.drawing import COLOURS, SPLITS
from uwml_lib.datasets.digits.words import NUMBERS
from uwml_lib.datasets.embeddings import caption_vectors
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_folder, read_json, write_json, write_lines
from uwml_lib.support.numerics import threads

CAPTIONS_PER_IMAGE = 5
FEATURE_SIZE = 128
PURPOSES = ("pictures", "boxes", "clips")


class Drawn(NamedTuple):
    """One split before it has features.

    crops: (n, 3, 16, 16) float32, one a region or frame; labels: the digit and the colour in each, (n,) int64;
    geometry: (..., k) float32, n rows in all, where each crop is; arrays: further files by their names;
    captions: line 5 * i + k describes item i.
    """

    crops: Tensor
    labels: tuple[Tensor, Tensor]
    geometry: np.ndarray
    arrays: dict[str, np.ndarray]
    captions: list[str]


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
    background: ClassVar[bool]
    """Whether crops may show no digit, which is a class of its own, the last one."""
    format_version: ClassVar[int]
    """Raised whenever the same settings would give other files; older folders are then built anew."""
    arrays: ClassVar[tuple[str, ...]]
    """Names of the arrays that `draw` gives for files of their own, such as pictures."""

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

    def write(self, folder: Path, progress: Callable[[str], None]) -> dict[str, float]:
        """Write the files of every split; return the classifier's accuracy on dev. Draws from torch's random state.

        `_ims.npy` float32: post-ReLU activations and then the geometry, 128 numbers; `_caps.txt`; `_caps.npy`, vectors
        of these; `_ids.txt`; and the arrays of `draw`.
        """
        progress(f"{self.kind}: drawing {self.train + self.dev + self.test} items with handwritten digits")
        drawn = {split: self.draw(split) for split in SPLITS}
        train, dev, size = drawn["train"], drawn["dev"], FEATURE_SIZE - drawn["train"].geometry.shape[-1]
        model = CropClassifier(size, len(NUMBERS) + self.background, len(COLOURS) + self.background)
        train_classifier(model, train.crops, *train.labels, self.classifier_epochs, progress)
        right = classifier_accuracy(model, dev.crops, *dev.labels, background=len(NUMBERS))
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
        return described and all(manifest["files"][name] == _describe(folder / name) for name in settings.file_names())
    except (UWMLError, KeyError, TypeError, OSError):
        return False


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
    with torch.random.fork_rng(devices=[]), threads(1):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch accelerators too
        yield
