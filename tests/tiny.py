"""A tiny data set in the SCAN layout: quick to write, and easy enough to learn in seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

COLOURS = ("red", "green", "blue", "pink")
SHAPES = ("ball", "box", "ring", "star", "cone")
PHRASES = ("a {colour} {shape} .", "there is one {colour} {shape} here .", "{shape} in {colour} .")
SIZES = MappingProxyType({"train": 40, "dev": 12, "test": 14})


def write_split(folder: Path, split: str, features: np.ndarray, captions: Sequence[str]) -> None:
    """Write one split, image-major."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{split}_ims.npy", features)
    (folder / f"{split}_caps.txt").write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8")


def write_tiny(folder: Path, sizes: Mapping[str, int] = SIZES, captions_per_image: int = 2) -> Path:
    """Write images of one coloured shape each: one region tells the colour, one the shape, one nothing."""
    generator = np.random.default_rng(0)
    for split, size in sizes.items():
        colours, shapes = generator.integers(len(COLOURS), size=size), generator.integers(len(SHAPES), size=size)
        features = generator.normal(0, 0.2, (size, 3, 9)).astype(np.float32)
        features[np.arange(size), 0, colours] += 2
        features[np.arange(size), 1, 4 + shapes] += 2
        captions = [
            phrase.format(colour=COLOURS[colour], shape=SHAPES[shape])
            for colour, shape in zip(colours, shapes, strict=True)
            for phrase in PHRASES[:captions_per_image]
        ]
        write_split(folder, split, features, captions)
    return folder


def make_varying(folder: Path) -> None:
    """Take regions away, so that image i has i % 3 + 1 of its three."""
    for path in folder.glob("*_ims.npy"):
        features = np.load(path)
        items = [image[: i % 3 + 1] for i, image in enumerate(features)]
        np.save(path, np.concatenate(items))
        np.save(path.with_name(path.name.replace("_ims", "_offsets")), np.cumsum([0, *map(len, items)]))


def write_caption_vectors(folder: Path) -> None:
    """Write vectors of eleven numbers for the captions: which of the tiny words occur."""
    for path in folder.glob("*_caps.txt"):
        words = [caption.split() for caption in path.read_text(encoding="utf-8").splitlines()]
        vectors = [[word in caption for word in (*COLOURS, *SHAPES, "a", "there")] for caption in words]
        np.save(path.with_suffix(".npy"), np.array(vectors, np.float32))
