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

from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import atomic_path, load_array, read_sealed_json, write_sealed_json, writing
from uwml_lib.support.progress import Say, counted

JOURNAL = ".features.json"

Filled = tuple[Sequence[tuple[str, int]], np.ndarray, np.ndarray]
"""An image's splits and its row in each, its features (regions, dim) and its boxes (regions, 4)."""


def refuse_finished(folder: Path, splits: Iterable[str]) -> None:
    """Raise UWMLError if a split has arrays: without a journal they were downloaded, say, and are to be left alone."""
    for path in (folder / f"{split}_{kind}.npy" for split in splits for kind in ("offsets", "ims", "boxes")):
        if path.exists():
            raise UWMLError(f"{path}: is there already; move it away to have it made from these files and ids")


class Growing:
    """`{split}_ims.npy` (n, regions, dim) and `{split}_boxes.npy` (n, regions, 4), under hidden names until whole.

    Where images have unequal numbers of regions they are (all regions, dim) and (all regions, 4), and
    `{split}_offsets.npy` (n + 1,) int64 says where each image's begin. A journal says how many images are done, and of
    which inputs; it stays, so that finished work is known again. Hold the folder's lock.
    """

    def __init__(
        self,
        folder: Path,
        counts: Mapping[str, int],
        shape: tuple[int, int],
        inputs: Any,
        total: int,
        offsets: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Find what an earlier call left, or begin.

        counts: split -> its images. shape: regions and dim. inputs: JSON that says all that the numbers depend on.
        total: images, `done` of which are done; `before` says it, or how many of other inputs are lost.
        offsets: split -> (n + 1,) int64, instead of the regions of shape.
        Raises UWMLError for arrays of other inputs, or for want of room.
        """
        self.folder, self.total = folder, total
        self._inputs = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        self._offsets = offsets or {}
        self._begins = offsets or {split: np.arange(n + 1) * shape[0] for split, n in counts.items()}
        self._shapes = {
            f"{split}_{kind}": ((int(offsets[split][-1]),) if offsets else (n, shape[0])) + (size,)
            for kind, size in (("ims", shape[1]), ("boxes", 4))
            for split, n in counts.items()
        }
        journal = folder / JOURNAL
        record = read_sealed_json(journal) if journal.exists() else {}
        goes_on = record.get("inputs") == self._inputs and all(map(self._is_there, self._shapes))
        done: int = record.get("done", 0)
        words = "were done before" if goes_on else "done of other inputs are done anew"
        self.done, self.before = done if goes_on else 0, f"; {counted(done, 'image')} {words}" if done else ""
        if self.done < total:
            refuse_finished(folder, counts)
        if goes_on:
            return
        journal.unlink(missing_ok=True)
        parts = {self._part(name): shape for name, shape in self._shapes.items()}
        for part in parts:
            part.unlink(missing_ok=True)
        needed, free = 4 * sum(map(math.prod, parts.values())), shutil.disk_usage(folder).free
        expect(needed <= free, folder, f"{free / 1e9:.1f} GB free", f"{needed / 1e9:.1f} for the features")
        for part, part_shape in parts.items():
            with writing(part):
                np.lib.format.open_memmap(part, mode="w+", dtype="<f4", shape=part_shape)
        self._note(0)

    def fill(self, images: Iterable[Filled], step: int, say: Say) -> None:
        """Take the images that are not done, noting how far it is after every `step`; give the arrays their names."""
        if self.done < self.total:
            with contextlib.ExitStack() as stack:
                files = {name: stack.enter_context(open(self._part(name), "r+b")) for name in self._shapes}
                for done, (places, features, boxes) in enumerate(images, self.done + 1):
                    with writing(self.folder):
                        for split, row in places:
                            regions_left = int(self._begins[split][-1] - self._begins[split][row])
                            _write_rows(files[f"{split}_ims"], regions_left, features)
                            _write_rows(files[f"{split}_boxes"], regions_left, boxes)
                        if done % step == 0 or done == self.total:
                            for file in files.values():  # the journal may say only what is surely on the disk
                                file.flush()
                                os.fsync(file.fileno())
                            self._note(done)
        for split, offsets in self._offsets.items():  # first, for rows without them would be read as images
            path = self.folder / f"{split}_offsets.npy"
            with atomic_path(path) as temporary, open(temporary, "wb") as offsets_file:
                np.save(offsets_file, offsets)
        for name, shape in self._shapes.items():
            if (part := self._part(name)).exists():  # else it got its name in an earlier call
                os.replace(part, self.folder / f"{name}.npy")
            say(f"{self.folder / name}.npy: {' x '.join(map(str, shape))}")

    def _note(self, done: int) -> None:
        self.done = done
        write_sealed_json(self.folder / JOURNAL, {"inputs": self._inputs, "done": done})

    def _part(self, name: str) -> Path:
        return self.folder / f".{name}.npy.part"

    def _is_there(self, name: str) -> bool:
        path = part if (part := self._part(name)).exists() else self.folder / f"{name}.npy"
        with contextlib.suppress(UWMLError):
            return load_array(path, 2, 3).shape == self._shapes[name]
        return False


def _write_rows(file: IO[bytes], regions_left: int, numbers: np.ndarray) -> None:
    """Write rows so many regions before the file's end. A map would end the process on a full disk."""
    content = numbers.astype("<f4").tobytes()
    file.seek(-regions_left * len(content) // len(numbers), os.SEEK_END)
    file.write(content)
