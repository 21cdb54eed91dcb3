"""Arrays of float32 that grow on the disk, with a journal of how many rows are done: a kill costs a few rows."""

import errno
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from uwml_lib.datasets.precomputed import load_array
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_sealed_json, write_sealed_json
from uwml_lib.support.progress import Say

JOURNAL = ".features.json"

Shapes = dict[str, tuple[int, int, int]]
"""Array, such as train_ims -> its shape."""


def refuse_foreign(folder: Path, splits: Iterable[str]) -> None:
    """Raise UWMLError if there are arrays and no journal: they were downloaded, say, and are to be left alone."""
    if not (folder / JOURNAL).exists():
        _refuse_finished(folder, splits)


def _refuse_finished(folder: Path, splits: Iterable[str]) -> None:
    for split in splits:
        for path in (folder / f"{split}_ims.npy", folder / f"{split}_boxes.npy"):
            if path.exists():
                raise UWMLError(f"{path}: is there already; move it away to have it made from these files and ids")


def begin(folder: Path, splits: Iterable[str], shapes: Shapes, inputs: str, total: int) -> int:
    """Return how many of `total` rows are done, of these inputs, known by a digest; hold the folder's lock.

    Where none are, the arrays are made, with their room on the disk. Raises UWMLError for arrays of other inputs.
    """
    journal = folder / JOURNAL
    record = read_sealed_json(journal) if journal.exists() else {}
    finished = record == {"inputs": inputs, "done": total}
    goes_on = record.get("inputs") == inputs and _are_there(folder, shapes, finished)
    if not (finished and goes_on):
        _refuse_finished(folder, splits)
    if not goes_on:
        journal.unlink(missing_ok=True)
        _create(folder, shapes)
        record = {"inputs": inputs, "done": 0}
        write_sealed_json(journal, record)
    return record["done"]


def open_arrays(folder: Path, shapes: Shapes) -> dict[str, np.memmap]:
    """Open the growing arrays for writing."""
    return {name: np.lib.format.open_memmap(_part(folder, name), mode="r+") for name in shapes}


def note(folder: Path, arrays: Mapping[str, np.memmap], inputs: str, done: int) -> None:
    """Note in the journal how many rows are done, once they are surely on the disk.

    The journal stays: by it, finished work is known again.
    """
    for array in arrays.values():
        array.flush()
    write_sealed_json(folder / JOURNAL, {"inputs": inputs, "done": done})


def finish(folder: Path, shapes: Shapes, say: Say) -> None:
    """Give the arrays their names, and say what they are."""
    for name in shapes:
        if (part := _part(folder, name)).exists():  # else it got its name in an earlier call
            os.replace(part, folder / f"{name}.npy")
    for name, shape in shapes.items():
        say(f"{folder / name}.npy: {' x '.join(map(str, shape))}")


def _part(folder: Path, name: str) -> Path:
    """Where an array grows until it is whole."""
    return folder / f".{name}.npy.part"


def _are_there(folder: Path, shapes: Shapes, finished: bool) -> bool:
    """Tell whether every array is there to go on with; finished ones may have their names."""

    def holds(path: Path, shape: tuple[int, int, int]) -> bool:
        try:
            return load_array(path, 3).shape == shape
        except UWMLError:
            return False

    return all(
        holds(_part(folder, name), shape) or (finished and holds(folder / f"{name}.npy", shape))
        for name, shape in shapes.items()
    )


def _create(folder: Path, shapes: Shapes) -> None:
    """Make the arrays and take their room on the disk: were it full later, writing to a map would end the process."""
    parts = {_part(folder, name): shape for name, shape in shapes.items()}
    needed = sum(4 * math.prod(shape) for shape in shapes.values())
    for part in parts:
        part.unlink(missing_ok=True)
    if needed > (free := shutil.disk_usage(folder).free):
        raise UWMLError(f"{folder}: found {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} for the features")
    for part, shape in parts.items():
        np.lib.format.open_memmap(part, mode="w+", dtype="<f4", shape=shape)
        if hasattr(os, "posix_fallocate"):
            try:
                with open(part, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot promise room
                    continue
                for each in parts:
                    each.unlink(missing_ok=True)
                raise UWMLError(
                    f"{part}: cannot be written ({error.strerror}); {needed / 1e9:.1f} GB are needed in all"
                ) from error
