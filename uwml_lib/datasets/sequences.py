"""Items of unequal length, such as the frames of videos: their rows in one file, and where each item's begin."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import load_array


class Sequences:
    """Looks like an array (n, longest, dim) that is zero past an item's end, and reads only what is asked for.

    rows: (all, dim), memory-mapped, an item's rows one after the other. starts, counts: (n,) int64, where an item's
    rows begin and how many they are.
    """

    def __init__(self, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> None:
        self.rows, self.starts, self.counts = rows, starts, counts

    @classmethod
    def load(cls, rows: Path, offsets: Path) -> "Sequences":
        """Read two .npy files, (all, dim) and (n + 1,): rows offsets[i] to offsets[i + 1] - 1 are item i's.

        Raises UWMLError, naming the file, for what is no such pair.
        """
        array, ends = load_array(rows, 2), np.array(load_array(offsets, 1))
        if ends.dtype.kind not in "iu" or len(ends) < 2 or ends[0] != 0 or ends[-1] != len(array):
            found = f"{len(ends)} numbers from {ends[0]} to {ends[-1]}, {ends.dtype}"
            expected = f"whole ones from 0 to the {len(array)} rows of {rows.name}"
            raise UWMLError(f"{offsets}: found {found}, expected {expected}")
        counts = np.diff(ends.astype(np.int64))
        if len(bad := np.flatnonzero(counts < 1)):
            raise UWMLError(f"{offsets}: item {bad[0]} (counted from 0) has {counts[bad[0]]} rows, expected at least 1")
        return cls(array, ends[:-1].astype(np.int64), counts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Items, rows of the longest, numbers per row."""
        return len(self), int(self.counts.max(initial=0)), self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, items: slice) -> "Sequences":
        return Sequences(self.rows, self.starts[items], self.counts[items])

    def first(self, count: int) -> "Sequences":
        """The first rows of every item alone."""
        return Sequences(self.rows, self.starts, self.counts.clip(max=count))

    def padded(self, numbers: Sequence[int]) -> np.ndarray:
        """Rows of some items, (n, longest of these, dim) of the rows' own type, zero past an item's end."""
        counts = self.counts[list(numbers)]
        padded = np.zeros((len(counts), int(counts.max(initial=0)), self.rows.shape[1]), self.rows.dtype)
        for item, number, count in zip(padded, numbers, counts, strict=True):
            item[:count] = self.rows[self.starts[number] :][:count]
        return padded
