"""Arrays of float32 that grow on the disk, with a journal of how many images are done: a kill costs a few images."""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import load_array, read_sealed_json, write_sealed_json, writing
from uwml_lib.support.progress import Say

JOURNAL = ".features.json"

Filled = tuple[Sequence[tuple[str, int]], np.ndarray, np.ndarray]
"""An image's splits and its row in each, its features (regions, dim) and its boxes (regions, 4)."""


def refuse_foreign(folder: Path, splits: Iterable[str]) -> None:
    """Raise UWMLError if there are arrays and no journal: they were downloaded, say, and are to be left alone."""
    if not (folder / JOURNAL).exists():
        _refuse_finished(folder, splits)


def _refuse_finished(folder: Path, splits: Iterable[str]) -> None:
    for split in splits:
        for path in (folder / f"{split}_ims.npy", folder / f"{split}_boxes.npy"):
            if path.exists():
                raise UWMLError(f"{path}: is there already; move it away to have it made from these files and ids")


class Growing:
    """`{split}_ims.npy` (n, regions, dim) and `{split}_boxes.npy` (n, regions, 4) until they are whole.

    They grow under hidden names. A journal says how many images are done, and of which inputs; it stays, so that
    finished work is known again. Hold the folder's lock.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int], shape: tuple[int, int], inputs: Any, total: int):
        """Find what an earlier call left, or begin.

        counts: split -> its images. shape: regions and dim. inputs: JSON that says all that the numbers depend on.
        total: images, `done` of which are done. Raises UWMLError for arrays of other inputs, or for want of room.
        """
        regions, dim = shape
        self.folder, self.total, self.done, self._counts = folder, total, 0, counts
        self._inputs = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        self._shapes = {f"{split}_ims": (n, regions, dim) for split, n in counts.items()}
        self._shapes |= {f"{split}_boxes": (n, regions, 4) for split, n in counts.items()}
        journal = folder / JOURNAL
        record = read_sealed_json(journal) if journal.exists() else {}
        finished = record == {"inputs": self._inputs, "done": total}
        goes_on = record.get("inputs") == self._inputs and all(map(self._is_there, self._shapes))
        if not (finished and goes_on):
            _refuse_finished(folder, counts)
        if goes_on:
            self.done = record["done"]
        else:
            journal.unlink(missing_ok=True)
            self._create()
            self._note(0)

    def fill(self, images: Iterable[Filled], step: int, say: Say) -> None:
        """Take the images that are not done, noting how far it is after every `step`; give the arrays their names."""
        if self.done < self.total:
            with contextlib.ExitStack() as stack:
                files = {name: stack.enter_context(open(self._part(name), "r+b")) for name in self._shapes}
                for done, (places, features, boxes) in enumerate(images, self.done + 1):
                    with writing(self.folder):
                        for split, row in places:
                            _write_row(files[f"{split}_ims"], row - self._counts[split], features)
                            _write_row(files[f"{split}_boxes"], row - self._counts[split], boxes)
                        if done % step == 0 or done == self.total:
                            for file in files.values():  # the journal may say only what is surely on the disk
                                file.flush()
                                os.fsync(file.fileno())
                            self._note(done)
        for name, shape in self._shapes.items():
            if (part := self._part(name)).exists():  # else it got its name in an earlier call
                os.replace(part, self.folder / f"{name}.npy")
            say(f"{self.folder / name}.npy: {' x '.join(map(str, shape))}")

    def _note(self, done: int) -> None:
        self.done = done
        write_sealed_json(self.folder / JOURNAL, {"inputs": self._inputs, "done": done})

    def _part(self, name: str) -> Path:
        """Where an array grows until it is whole."""
        return self.folder / f".{name}.npy.part"

    def _is_there(self, name: str) -> bool:
        """Tell whether an array is there to go on with; one that is finished has its name."""
        for path in (self._part(name), self.folder / f"{name}.npy"):
            with contextlib.suppress(UWMLError):
                if load_array(path, 3).shape == self._shapes[name]:
                    return True
        return False

    def _create(self) -> None:
        parts = {self._part(name): shape for name, shape in self._shapes.items()}
        for part in parts:
            part.unlink(missing_ok=True)
        needed, free = 4 * sum(map(math.prod, parts.values())), shutil.disk_usage(self.folder).free
        if needed > free:
            found = f"found {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} for the features"
            raise UWMLError(f"{self.folder}: {found}")
        for part, shape in parts.items():
            with writing(part):
                np.lib.format.open_memmap(part, mode="w+", dtype="<f4", shape=shape)


def _write_row(file: IO[bytes], row: int, numbers: np.ndarray) -> None:
    """Write a row, counted backwards from the end: -1 is the last. A map would end the process on a full disk."""
    content = numbers.astype("<f4").tobytes()
    file.seek(row * len(content), os.SEEK_END)
    file.write(content)
