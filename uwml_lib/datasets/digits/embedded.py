"""What the embedded data sets share: a classifier whose activations are features, a folder that describes itself."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.datasets.digits.drawing import COLOURS, NUMBERS, SPLITS, chunks
from uwml_lib.datasets.embeddings import caption_vectors
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import atomic_folder, read_json, sha256_of, write_json, write_lines
from uwml_lib.support.numerics import threads
from uwml_lib.support.progress import Say

CAPTIONS_PER_IMAGE = 5
FEATURE_SIZE = 128
CROP_SIZE = 16
PURPOSES = ("pictures", "boxes", "clips")


class Shown(NamedTuple):
    """N items as drawn, and what is truly in them: up to K digits each, which an item with fewer does not show."""

    contents: list[list[Any]]  # of each item, for its captions
    kinds: np.ndarray  # (2, N, K) int64, each one's digit and colour
    source: np.ndarray  # (N, K) int64, rows of scikit-learn's digits
    frames: np.ndarray  # (N, K) int64, on how many pictures a digit is, one after the other
    place: np.ndarray  # (N, K, 4) or (all frames, 3) float32, where it is
    pixels: np.ndarray  # (pictures, height, width, 3) uint8


class Regions(NamedTuple):
    """R regions of every picture, as a detector would find them."""

    boxes: np.ndarray  # (pictures, R, 4) float32, x1, y1, x2, y2 as shares of width and height
    labels: np.ndarray  # (2, pictures * R) int64, the digit and the colour in each
    geometry: np.ndarray  # (..., k) float32, pictures * R rows in all: what features say of where a region is
    array: np.ndarray  # the further file


@dataclass(frozen=True)
class EmbeddedSettings:
    """What determines a data set; equal settings give byte-equal files on the same machine and versions."""

    train: int = 160  # items for training
    dev: int = 40  # items for choosing the best epoch
    test: int = 40  # items for the final scores
    seed: int = 0  # of everything that is drawn
    classifier_epochs: int = 8  # of the classifier whose activations are the features, over crops of the train split

    kind: ClassVar[str]  # the data set's name
    background: ClassVar[bool]  # whether crops may show no digit, which is a class of its own, the last one
    format_version: ClassVar[int]  # raised whenever the same settings would give other files, to have them built anew
    array: ClassVar[str]  # name of a further file
    draw: ClassVar[Callable[..., Shown]]  # a split
    find: ClassVar[Callable[..., Regions]]  # regions of what is shown, by a random stream
    told: ClassVar[Callable[..., str]]  # one true sentence about an item's contents, by a `random.Random`

    def __post_init__(self) -> None:
        for name, least in (("train", 2), ("dev", 1), ("test", 1), ("seed", 0), ("classifier_epochs", 1)):
            value = getattr(self, name)
            expect(value >= least, f"{self.kind}, {name}", value, f"at least {least}")

    def generator(self, split: str, purpose: str) -> np.random.Generator:
        """Return the random stream of a split and a purpose; 0 in place of a split is that of the digits' pools."""
        return np.random.default_rng([self.seed, 1 + SPLITS.index(split), PURPOSES.index(purpose)])

    def caption(self, content: Any, rng: random.Random) -> str:
        """Return a caption with a capital and a full stop, or without, as people write them."""
        text = self.told(content, rng)
        if rng.random() < 0.5:
            text = text[0].upper() + text[1:]
        return text + (" ." if rng.random() < 0.6 else "")

    def write(self, folder: Path, progress: Say) -> dict[str, float]:
        """Write the files of every split; return the classifier's accuracy on dev. Draws from torch's random state.

        `_ims.npy` float32: post-ReLU activations and then the geometry, 128 numbers; `_caps.txt`; `_caps.npy`, vectors
        of these; `_ids.txt`; `_pictures.npy`, the pixels; and the further file.
        """
        progress(f"{self.kind}: drawing {self.train + self.dev + self.test} items with handwritten digits")
        shown = [self.draw(split) for split in SPLITS]
        regions = [self.find(x, self.generator(split, "boxes")) for split, x in zip(SPLITS, shown, strict=True)]
        crops = [crop(x.pixels, found.boxes) for x, found in zip(shown, regions, strict=True)]
        hidden, right = self._learn(crops, regions, progress)
        progress("the classifier on dev: " + ", ".join(f"{name} {share:.1%}" for name, share in right.items()))
        scale = 0.5 / hidden[0].square().mean().sqrt()  # else the geometry would be too small to matter
        told = []
        for split, x in zip(SPLITS, shown, strict=True):
            rng = random.Random(f"{self.seed} {split}")
            told.append([self.caption(item, rng) for item in x.contents for _ in range(CAPTIONS_PER_IMAGE)])
        vectors = caption_vectors(*told)
        for i, split in enumerate(SPLITS):
            _, _, geometry, array = regions[i]
            ims = np.concatenate([(hidden[i] * scale).numpy().reshape(*geometry.shape[:-1], -1), geometry], axis=-1)
            arrays = {"ims": ims, "caps": vectors[i], "pictures": shown[i].pixels, self.array: array}
            for name, values in arrays.items():
                np.save(folder / f"{split}_{name}.npy", values)
            write_lines(folder / f"{split}_caps.txt", told[i])
            write_lines(folder / f"{split}_ids.txt", (f"{split}_{item:05d}" for item in range(getattr(self, split))))
        return right

    def _learn(
        self, crops: list[Tensor], regions: list[Regions], progress: Say
    ) -> tuple[list[Tensor], dict[str, float]]:
        """Train a small network on the first split to name the digit and the colour in a region.

        Returns the hidden activations (n, hidden) float32 of every split, and the shares of right answers in the
        second: digit and colour where there is a digit, else that there is none ("background").
        """
        hidden = FEATURE_SIZE - regions[0].geometry.shape[-1]
        body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (CROP_SIZE // 4) ** 2, hidden), nn.ReLU(),
        )  # fmt: skip
        heads = nn.ModuleList(nn.Linear(hidden, len(names) + self.background) for names in (NUMBERS, COLOURS))
        optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=2e-3)
        epochs, labels, total = self.classifier_epochs, torch.from_numpy(regions[0].labels), len(crops[0])
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for epoch in range(epochs):
            losses = 0.0
            for rows in torch.randperm(total).split(128):
                active = body(crops[0][rows])
                digit, colour = map(F.cross_entropy, (head(active) for head in heads), labels[:, rows])
                loss = digit + colour
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses += loss.item() * len(rows)
            scheduler.step()
            progress(f"training the classifier: epoch {epoch + 1} of {epochs}, loss {losses / total:.2f}")
        with torch.no_grad():
            activations = [torch.cat([body(part) for part in split.split(1024)]) for split in crops]
            answers = np.stack([head(activations[1]).argmax(1).numpy() for head in heads])
        right, empty = answers == regions[1].labels, regions[1].labels[0] == len(NUMBERS)
        shares = {"digit": right[0, ~empty], "colour": right[1, ~empty], "background": right[0, empty]}
        return activations, {name: round(float(of.mean()), 4) for name, of in shares.items() if len(of)}

    def file_names(self) -> list[str]:
        """Return the names of all files but the manifest."""
        ends = ("ims.npy", "caps.npy", "pictures.npy", f"{self.array}.npy", "caps.txt", "ids.txt")
        return [f"{split}_{end}" for split in SPLITS for end in ends]


def crop(pixels: np.ndarray, boxes: np.ndarray) -> Tensor:
    """Cut out regions with bilinear sampling: (N * R, 3, 16, 16) float32, in about -1..1.

    pixels: (N, height, width, 3) uint8. boxes: (N, R, 4) float32, x1, y1, x2, y2 as shares of width and height.
    """
    steps = torch.linspace(0.5 / CROP_SIZE, 1 - 0.5 / CROP_SIZE, CROP_SIZE)
    low, high = torch.from_numpy(boxes)[..., None].split(2, dim=2)
    x, y = (low + (high - low) * steps).unbind(dim=2)
    grid = torch.stack(torch.broadcast_tensors(x[:, :, None], y[..., None]), dim=-1) * 2 - 1
    crops = []
    for rows in chunks(len(pixels), 1024):
        picture = torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
        crops.append(F.grid_sample(picture, grid[rows].flatten(1, 2), padding_mode="border", align_corners=False))
    return torch.cat(crops).unflatten(2, (boxes.shape[1], CROP_SIZE)).transpose(1, 2).flatten(0, 1)


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
        expect(folder.is_dir(), folder, "a file", "a folder for the data set")
        if foreign := {file.name for file in folder.iterdir()} - {"manifest.json", *settings.file_names()}:
            found = f"found {min(foreign)}, which is not of this data set"
            raise UWMLError(f"{folder}: {found}; move it, or choose another folder")
    start = time.perf_counter()
    # Results depend on the number of threads.
    with torch.random.fork_rng(devices=[]), threads(1), atomic_folder(folder) as target:
        torch.default_generator.manual_seed(settings.seed)  # torch.manual_seed would touch accelerators too
        accuracy = settings.write(target, progress)
        seconds = round(time.perf_counter() - start, 1)
        versions = {package: version(package) for package in ("numpy", "torch", "scikit-learn")}
        made = {"classifier_accuracy": accuracy, "seconds": seconds, "versions": versions}
        write_json(target / "manifest.json", {**_identity(target, settings), **made})
    progress(f"wrote {folder} in {seconds:.0f} s")
    return True


def is_current(folder: Path, settings: EmbeddedSettings) -> bool:
    """Tell whether `folder` holds these settings in this format, with every file as it was written."""
    try:
        manifest = read_json(folder / "manifest.json")
        return manifest == {**manifest, **_identity(folder, settings)}
    except (UWMLError, OSError):
        return False


def _identity(folder: Path, settings: EmbeddedSettings) -> dict[str, Any]:
    """What a manifest says that tells one data set from another."""
    files = {name: folder / name for name in sorted(settings.file_names())}
    described = {name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for name, file in files.items()}
    return {"format_version": settings.format_version, "settings": asdict(settings), "files": described}
