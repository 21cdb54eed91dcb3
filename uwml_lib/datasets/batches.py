"""What a training reads: items of unequal length, captions as numbers, and batches of caption-image pairs."""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.vocabulary import PAD, UNKNOWN
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import load_array


class Batch(NamedTuple):
    """Caption-image pairs: features (n, regions, dim) float32, tokens (n, words) int64; the others are (n,) int64.

    counts: regions (or frames) of each image, beyond which its features are zero. Of captions that are vectors, tokens
    are (n, caption dim) float32 and lengths 1. sentences: (n, 1 + captions an image), a number for every sentence: that
    of the pair's caption, then those of all captions of its image.
    """

    features: Tensor
    tokens: Tensor
    lengths: Tensor
    image_ids: Tensor
    counts: Tensor
    sentences: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move all but lengths and counts, which a GRU wants on the CPU."""
        there = ("features", "tokens", "image_ids", "sentences")
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in there})


def may_be_negatives(sentences: Tensor, image_ids: Tensor, captions: Tensor, caption_images: Tensor) -> Tensor:
    """Return which captions may be negatives of which images, (n, m) boolean, images in rows.

    A caption may not whose very sentence the image has among its own captions, although it was written for another.
    sentences (n, 1 + captions an image), image_ids (n,): of the images, see `Batch`. captions, caption_images (m,): the
    captions' sentences and whose they are.
    """
    has_it = torch.stack([own[:, None] == captions for own in sentences[:, 1:].T]).any(dim=0)
    return ~has_it | (image_ids[:, None] == caption_images)  # of one image: that is what `siblings` is about


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
        fits = ends.dtype.kind in "iu" and len(ends) > 1 and ends[0] == 0 and ends[-1] == len(array)
        found = f"{len(ends)} numbers from {ends[0]} to {ends[-1]}, {ends.dtype}"
        expect(fits, offsets, found, f"whole ones from 0 to the {len(array)} rows of {rows.name}")
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

    def __getitem__(self, key: slice | tuple[slice, slice]) -> "Sequences":
        """Some items, and of each the first rows alone: `[start:stop]` or `[start:stop, :rows]`."""
        items, rows = key if isinstance(key, tuple) else (key, slice(None))
        return Sequences(self.rows, self.starts[items], self.counts[items].clip(0, rows.stop))

    def padded(self, numbers: Sequence[int]) -> np.ndarray:
        """Rows of some items, (n, longest of these, dim) of the rows' own type, zero past an item's end."""
        counts = self.counts[list(numbers)]
        padded = np.zeros((len(counts), int(counts.max(initial=0)), self.rows.shape[1]), self.rows.dtype)
        for item, number, count in zip(padded, numbers, counts, strict=True):
            item[:count] = self.rows[self.starts[number] :][:count]
        return padded


class EncodedCaptions(Sequence):
    """Captions as lists of numbers, kept in one array: a third of the memory, and worker processes share it."""

    def __init__(self, captions: Iterable[list[int]]) -> None:
        self._numbers, self._starts = array("i"), array("q", [0])
        for caption in captions:
            self._numbers.extend(caption)
            self._starts.append(len(self._numbers))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Numbers of every caption, (n,) int64."""
        return np.diff(self._starts)

    @property
    def share_known(self) -> float:
        """Share of the words, `<start>` and `<end>` not counted, that are not `<unk>`."""
        words = len(self._numbers) - 2 * len(self)
        return 1 - self._numbers.count(UNKNOWN) / max(1, words)

    def __getitem__(self, index: Any) -> Any:
        """The list of one caption, or for a slice a list of them."""
        items = range(len(self))[index]
        if isinstance(items, range):
            return [self[item] for item in items]
        return self._numbers[self._starts[items] : self._starts[items + 1]].tolist()


def sentence(caption: str) -> str:
    """What makes two captions the same: their very words and marks, however many blanks are between them."""
    return " ".join(caption.split())


def pad_captions(tokens: Sequence[Tensor | list[int]]) -> tuple[Tensor, Tensor]:
    """Return the captions as one (n, words) int64 tensor, padded with `<pad>`, and their lengths (n,)."""
    tensors = [torch.as_tensor(caption) for caption in tokens]
    lengths = torch.tensor([len(caption) for caption in tensors])
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD), lengths


def finite_float32(rows: np.ndarray, where: str, numbers: Sequence[int] | None = None, first: int = 0) -> Tensor:
    """Return rows, (n, ...) of any real type, as float32; raises UWMLError naming the first that is not finite.

    where: what errors begin with, such as "FILE: row". numbers: what each row's number is, less `first`.
    """
    with np.errstate(over="ignore"):
        x = torch.from_numpy(rows.astype(np.float32, copy=False))
    # The sum tells nearly as well, in a twentieth of the time; it alone may overflow.
    if not x.sum().isfinite() and len(wrong := (~x.isfinite()).flatten(1).any(dim=1).nonzero()):
        number = first + (int(wrong[0]) if numbers is None else numbers[int(wrong[0])])
        found = "NaN, infinity or what is too large for float32"
        raise UWMLError(f"{where} {number} (counted from 0) holds {found}, expected finite numbers")
    return x
