"""Who may be a negative: ids of images and of captions, and what the caller allows."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from uwml_lib.losses.ring import Ring

Ids = Tensor | Sequence[int] | None


class Negatives:
    """Which of (N, M) pairs may be negatives, without holding that many numbers unless `negatives` does.

    image_ids (N,) and caption_ids (M,): whole numbers; equal ones are never negatives of each other. negatives: (N, M),
    boolean. With other processes in the ring, N images and M captions are this process's, and the columns are P M: the
    first process's captions, then the second's. Raises ValueError for another shape or dtype.
    """

    def __init__(
        self,
        n: int,
        m: int,
        device: torch.device,
        image_ids: Ids = None,
        caption_ids: Ids = None,
        negatives: Tensor | None = None,
        ring: Ring | None = None,
    ) -> None:
        ring = ring or Ring()
        self.n, self.m, self.first = n, m, ring.rank * m
        self.all, self.beyond, self.ids = ring.size * m, None, []
        place = torch.arange(self.all, device=device)
        if image_ids is not None:
            ids = _ids("image_ids", image_ids, n, device)
            self.ids.append((ids, ring.gather(torch.nn.functional.pad(ids, (0, m - n)))))
            self.beyond = place % m >= n if m > n else None  # no image is theirs
        if caption_ids is not None:
            ids = _ids("caption_ids", caption_ids, m, device)
            self.ids.append((ids[:n], ring.gather(ids)))
        self.plain = not self.ids and negatives is None  # all but the positives
        if not self.ids:
            self.ids.append((place[self.first : self.first + n], place))
        self.allowed = None if negatives is None else _allowed(negatives, (n, self.all), device)

    def mask(self, rows: slice | Tensor | None = None, columns: slice | Tensor | None = None) -> Tensor:
        """Return the boolean mask of some rows and columns, by default all: may the column be a negative of the row?"""
        rows = slice(0, self.n) if rows is None else rows
        columns = slice(0, self.all) if columns is None else columns
        if self.plain and isinstance(rows, slice) and isinstance(columns, slice):
            shape = rows.stop - rows.start, columns.stop - columns.start
            mask = torch.ones(shape, dtype=torch.bool, device=self.ids[0][1].device)
            return self._without_positives(mask, rows, columns, False)
        mask, *others = (of_rows[rows][:, None] != of_columns[columns] for of_rows, of_columns in self.ids)
        if self.beyond is not None:
            mask = mask | self.beyond[columns]
        others += [] if self.allowed is None else [self.allowed[rows][:, columns]]
        return functools.reduce(torch.logical_and, others, mask)

    def hide_others(self, scores: Tensor, rows: slice, columns: slice) -> None:
        """Put -inf where scores of some rows and columns are those of no negatives."""
        if self.plain:
            self._without_positives(scores, rows, columns, -torch.inf)
        else:
            scores.masked_fill_(~self.mask(rows, columns), -torch.inf)

    def _without_positives(self, values: Tensor, rows: slice, columns: slice, instead: float) -> Tensor:
        """Put something else where some rows meet their own columns, in place."""
        if -len(values) < (offset := self.first + rows.start - columns.start) < values.shape[1]:
            values.diagonal(offset).fill_(instead)
        return values


def _ids(name: str, ids: Ids, size: int, device: torch.device) -> Tensor:
    """Ids as a tensor (size,) on the scores' device; raises ValueError."""
    try:
        found = torch.as_tensor(ids, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: found {ids!r:.80}, expected whole numbers, one for each pair") from None
    if found.shape != (size,):
        raise ValueError(f"{name}: found shape {tuple(found.shape)}, expected ({size},), one for each pair")
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"{name}: found dtype {found.dtype}, expected whole numbers")
    return found


def _allowed(negatives: Tensor, shape: tuple[int, int], device: torch.device) -> Tensor:
    """The mask `negatives` on the scores' device; raises ValueError."""
    try:
        found = torch.as_tensor(negatives, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"negatives: found {negatives!r:.80}, expected booleans {shape}") from None
    if found.shape != shape or found.dtype != torch.bool:
        what = f"{found.dtype} of shape {tuple(found.shape)}"
        raise ValueError(f"negatives: found {what}, expected booleans {shape}, as the scores")
    return found
