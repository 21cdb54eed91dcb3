"""Embeddings of a split by a run's best model, computed once and kept in the run's folder."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib import models
from uwml_lib.datasets import PrecomputedDataset
from uwml_lib.models import Matcher
from uwml_lib.support.errors import expect
from uwml_lib.support.files import (
    atomic_folder,
    check_files,
    load_array,
    lock,
    read_json,
    read_sealed_json,
    sha256_of,
    write_sealed_json,
)
from uwml_lib.support.progress import Say, progress, say

Side = Literal["images", "captions"]
MADE_OF = ("config.json", "vocabulary.json", "checkpoint/best.safetensors")
"""Files of a run that embeddings depend on; the first has the fingerprint of the data, too."""
BLOCK = 128
"""Items that are embedded, or scored, at once."""
Shape = list[int]


class Embeddings(NamedTuple):
    """Embeddings of every image, or of every caption, of a split, without padding: in groups of equal length.

    numbers: (all,) float32, memory-mapped, item after item. items: (n,) int64, which item is where. groups: of each its
    length (captions: in words; images: 1), how many items it has, and the shape of one's embedding.
    """

    numbers: np.ndarray
    items: np.ndarray
    groups: list[tuple[int, int, Shape]]

    def blocks(self) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Yield the numbers of some items, their embeddings (b, ...) and their lengths (b,), until all have come."""
        place = first = 0
        for length, count, shape in self.groups:
            for size in _sizes(count):
                stop = place + size * math.prod(shape)
                rows = torch.from_numpy(np.array(self.numbers[place:stop])).reshape(size, *shape)
                yield self.items[first : first + size], rows, torch.full((size,), length)
                place, first = stop, first + size


def kept_embeddings(model: Matcher, dataset: PrecomputedDataset, side: Side, run: Path, say: Say = say) -> Embeddings:
    """Return what the run folder keeps of a split; where that is not there or of something else, make it anew.

    The run must be finished, and its data what they were: see `member_of`. Raises UWMLError for want of room, and for a
    file that was changed.
    """
    folder = run / "embeddings" / f"{dataset.split}_{side}"
    code = [Path(__file__), *sorted(Path(models.__file__).parent.glob("*.py"))]
    of = {
        "data": read_json(run / "config.json")["data"], "run": [sha256_of(run / name) for name in MADE_OF],
        "code": [sha256_of(path) for path in code],
    }  # fmt: skip
    with lock(folder, say):
        about = folder / "about.json"
        if not about.exists() or read_sealed_json(about)["of"] != of:
            _keep(model, dataset, side, folder, of, say)
        found = read_sealed_json(about)
        check_files(folder, found["files"])
        return Embeddings(load_array(folder / "numbers.npy", 1), load_array(folder / "items.npy", 1), found["groups"])


def _keep(model: Matcher, dataset: PrecomputedDataset, side: Side, folder: Path, of: dict, say: Say) -> None:
    lengths = dataset.caption_lengths if side == "captions" else np.ones(len(dataset.features), np.int64)
    items = lengths.argsort(kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    firsts = items[np.cumsum(counts) - counts]
    shapes = [list(_embed(model, dataset, side, [first]).shape[1:]) for first in firsts.tolist()]
    groups = list(zip(sizes.tolist(), counts.tolist(), shapes, strict=True))
    total = sum(count * math.prod(shape) for _, count, shape in groups)
    what = f"embeddings of {len(items):,} {dataset.split} {side}"
    say(f"{folder.parents[1].resolve().name}: keeping {what} in this run's folder: {4 * total / 1e6:,.1f} MB")
    free = shutil.disk_usage(folder.parent).free
    expect(4 * total <= free, folder, f"{free / 1e6:,.1f} MB free", f"{4 * total / 1e6:,.1f} for the embeddings")
    parts = np.split(items, np.cumsum([size for count in counts.tolist() for size in _sizes(count)])[:-1])
    with atomic_folder(folder) as new:
        np.save(new / "items.npy", items)
        with open(new / "numbers.npy", "wb") as file:  # a memory map would end the process on a full disk
            header = {"descr": "<f4", "fortran_order": False, "shape": (total,)}
            np.lib.format.write_array_header_1_0(file, header)
            for part in progress(parts, f"embedding {side}"):
                file.write(_embed(model, dataset, side, part.tolist()).astype("<f4").tobytes())
        files = {name: sha256_of(new / name) for name in ("items.npy", "numbers.npy")}
        write_sealed_json(new / "about.json", {"of": of, "groups": groups, "files": files})


def _sizes(count: int) -> list[int]:
    """Cut a group into blocks."""
    return [min(BLOCK, count - start) for start in range(0, count, BLOCK)]


@torch.no_grad()
def _embed(model: Matcher, dataset: PrecomputedDataset, side: Side, items: list[int]) -> np.ndarray:
    """Embed some images, which follow one another, or captions of one length: (n, ...) float32."""
    device = next(model.parameters()).device
    if side == "images":
        rows = range(items[0], items[-1] + 1)
        embedded = model.embed_images(dataset.images(rows.start, rows.stop).to(device), dataset.counts(rows))
    else:
        tokens, lengths = dataset.read_captions(items)
        embedded = model.embed_captions(tokens.to(device), lengths)
    return embedded.float().cpu().numpy()
