"""Processes in a ring, each with its own images, whose captions travel from one to the next.

With P processes of n pairs of d numbers each, a pass over all pairs sends (P - 1) n d numbers from each, and P times
what belongs to a caption and changes on the way, a few numbers each or its gradient. Gathering the captions would send
as many, and hold P n d of them where the ring holds 2 n d.
"""

from __future__ import annotations  # some builds of torch have no processes to join, and no names for them

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ring:
    """The processes of a group, or this one alone for None; whoever is in the group calls the same things in turn."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if group is not None and not isinstance(group, dist.ProcessGroup):
            expected = "a group of torch.distributed that this process is in, such as torch.distributed.group.WORLD"
            raise ValueError(f"process_group: found {group!r:.80}, expected {expected}")
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    def rounds(self, fixed: Sequence[Tensor], changing: Sequence[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield whose tensors are here, and these, until all have been; first this process's own, then its neighbour's.

        What is done to the `changing` ones in place goes on with them; when the loop ends, they are as all have left
        them. The `fixed` ones are on their way while the caller computes.
        """
        here, own = [*fixed, *changing], list(changing)
        for step in range(self.size):
            owner = (self.rank - step) % self.size
            jobs, coming = self._pass_on(here[: len(fixed)]) if step + 1 < self.size else ([], [])
            yield owner, here
            if self.size > 1:
                changed, arriving = self._pass_on(here[len(fixed) :])
                for job in jobs + changed:
                    job.wait()
                here = coming + arriving
        if self.size > 1:
            for tensor, returned in zip(own, here, strict=True):  # in the last round nothing fixed was passed on
                tensor.copy_(returned)

    def _pass_on(self, tensors: Sequence[Tensor]) -> tuple[list[dist.Work], list[Tensor]]:
        """Begin to send tensors to the next process; return what to wait for, and what then holds the neighbour's."""
        after, before = (self._global((self.rank + step) % self.size) for step in (1, -1))
        coming = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]
        calls = []
        for tag, (tensor, received) in enumerate(zip(tensors, coming, strict=True)):
            calls.append(dist.P2POp(dist.isend, tensor.contiguous(), after, self.group, tag))
            calls.append(dist.P2POp(dist.irecv, received, before, self.group, tag))
        return (dist.batch_isend_irecv(calls) if calls else []), coming

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self.group, rank)  # type: ignore[arg-type]  # asked only where there is a group

    def gather(self, x: Tensor) -> Tensor:
        """Put the processes' tensors, of one shape, one after the other in their first dimension; without gradient."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, x.detach().contiguous(), self.group)
        return torch.cat(parts)

    def total(self, x: Tensor) -> Tensor:
        """Sum over all processes. Its gradient is P times that of x, which the average over processes that torch's
        data-parallel wrapper takes of the parameters' gradients makes right.
        """
        return x if self.size == 1 else Total.apply(x, self)


class Total(torch.autograd.Function):
    """`Ring.total`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ring: Ring) -> Tensor:
        ctx.size = ring.size
        total = x.clone()
        dist.all_reduce(total, group=ring.group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.size, None
