"""What a training reads: captions as numbers, and batches of caption-image pairs."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uwml_lib.datasets.vocabulary import PAD


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

    (Reading a list of Python writes into it, its count of references, and so each worker would get a copy of its own.)
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
