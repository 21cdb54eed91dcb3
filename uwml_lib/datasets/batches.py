"""What a training reads: captions as numbers, and batches of caption-image pairs."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.vocabulary import PAD
from uwml_lib.support.errors import UWMLError


class Batch(NamedTuple):
    """Caption-image pairs: features (n, regions, dim) float32, tokens (n, words) int64; the others are (n,) int64.

    counts: regions (or frames) of each image, beyond which its features are zero. Of captions that are vectors, tokens
    are (n, caption dim) float32 and lengths 1.
    """

    features: Tensor
    tokens: Tensor
    lengths: Tensor
    image_ids: Tensor
    counts: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move all but lengths and counts, which a GRU wants on the CPU."""
        there = ("features", "tokens", "image_ids")
        return self._replace(**{name: getattr(self, name).to(device, non_blocking=True) for name in there})


class EncodedCaptions(Sequence):
    """Captions as lists of numbers, kept in one array: a third of the memory, and worker processes share it.

    (Lists they would not share: reading a Python object changes its reference count, and so copies its memory page.)
    """

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

    def __getitem__(self, index: Any) -> Any:
        """The list of one caption, or for a slice a list of them."""
        if isinstance(index, slice):
            return [self[item] for item in range(len(self))[index]]
        item = range(len(self))[index]
        return self._numbers[self._starts[item] : self._starts[item + 1]].tolist()


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
        bad = int(wrong[0])
        raise UWMLError(
            f"{where} {first + (bad if numbers is None else numbers[bad])} (counted from 0) holds NaN, infinity or "
            "what is too large for float32, expected finite numbers"
        )
    return x
