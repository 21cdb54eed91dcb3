"""What the embedded data sets share: handwritten digits in colour, words for them, and a folder that describes itself.

The digits are the 1,797 real ones inside scikit-learn, so nothing is downloaded. Each split draws from its own pool of
digits.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from uwml_lib.datasets.embeddings import caption_vectors
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_folder, read_json, read_lines, write_json, write_lines
from uwml_lib.support.numerics import threads

SPLITS = ("train", "dev", "test")
CAPTIONS_PER_IMAGE = 5
TEXTS = ("caps.txt", "caps.npy", "ids.txt")
"""Ends of the names of the files that `write_texts` and `write_vectors` write."""
PURPOSES = ("pictures", "boxes", "clips")


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
    with torch.random.fork_rng(devices=[]), threads(1):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch accelerators too
        yield
