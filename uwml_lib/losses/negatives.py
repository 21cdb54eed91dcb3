"""Who may be a negative: ids of images and of captions, and what the caller allows."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

Ids = Tensor | Sequence[int] | None


class Negatives:
    """Which of (N, M) pairs may be negatives, without holding that many numbers unless `negatives` does.

    image_ids (N,) and caption_ids (M,): whole numbers; equal ones are never negatives of each other. negatives: (N, M),
    boolean. Raises ValueError for another shape or dtype.
    """

    def __init__(
        self, n: int, m: int, device: torch.device, image_ids: Ids, caption_ids: Ids, negatives: Tensor | None
    ) -> None:
        self.n, self.ids, self.beyond = n, [], None
        if image_ids is not None:
            ids = _ids("image_ids", image_ids, n, device)
            self.ids.append(torch.nn.functional.pad(ids, (0, m - n)) if m > n else ids)
            self.beyond = torch.arange(m, device=device) >= n if m > n else None  # no image is theirs
        if caption_ids is not None:
            self.ids.append(_ids("caption_ids", caption_ids, m, device))
        self.plain = not self.ids and negatives is None  # all but the positives
        if not self.ids:
            self.ids.append(torch.arange(m, device=device))
        self.allowed = None if negatives is None else _allowed(negatives, (n, m), device)

    def mask(self, rows: slice | Tensor | None = None, columns: slice | Tensor = slice(None)) -> Tensor:
        """Return the boolean mask of some rows and columns, by default all: may the column be a negative of the row?"""
        rows = slice(self.n) if rows is None else rows
        if self.plain and isinstance(rows, slice):
            mask = torch.ones(
                rows.stop - (rows.start or 0), len(self.ids[0]), dtype=torch.bool, device=self.ids[0].device
            )
            mask.diagonal(rows.start or 0).fill_(False)
            return mask[:, columns]
        mask, *others = (ids[rows][:, None] != ids[columns] for ids in self.ids)
        if self.beyond is not None:
            mask = mask | self.beyond[columns]
        others += [] if self.allowed is None else [self.allowed[rows][:, columns]]
        return functools.reduce(torch.logical_and, others, mask)

    def hide_others(self, scores: Tensor, rows: slice) -> None:
        """Put -inf where rows of scores (rows, M) are those of no negatives."""
        if self.plain:
            scores.diagonal(rows.start).fill_(-torch.inf)
        else:
            scores.masked_fill_(~self.mask(rows), -torch.inf)


def _ids(name: str, ids: Ids, size: int, device: torch.device) -> Tensor:
    """Ids as a tensor (size,) on the scores' device; raises ValueError."""
    try:
        found = torch.as_tensor(ids, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: found {ids!r:.80}, expected whole numbers, one for each pair") from None
    if found.shape != (size,):
        raise ValueError(f"{name}: found shape {tuple(found.shape)}, expected ({size},), one for each pair")
    if found.is_floating_point() or found.is_complex():
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
