"""How torch computes, for a while: settings of the whole process that decide the last bits, put back afterwards."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads of the CPU; sums are split among them, so results depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Let a graphics card round the factors of float32 matrix products to TF32, or forbid it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
