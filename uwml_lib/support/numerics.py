"""Where and how torch computes; settings of the whole process that decide the last bits are put back afterwards."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


def this_device() -> torch.device:
    """Return the accelerator of this machine, or the CPU where there is none."""
    # A build for CUDA names CUDA even where no card is.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def has_bf16_instructions() -> bool:
    """Say whether this CPU multiplies in bf16 by itself; without, torch emulates it, which is slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for either
    return any(getattr(torch.cpu, check, bool)() for check in checks)


QUICK_WIDTH = 256
"""Least width of the common space at which products in bf16 make up for the conversions; `benchmarks/precision.py`."""


def quick_precision(device: str, width: int = QUICK_WIDTH) -> str:
    """Return what mixed_precision "auto" stands for where a training is on a device, "auto" or "cpu"."""
    on_cpu = device == "cpu" or this_device().type == "cpu"
    return "bf16" if on_cpu and width >= QUICK_WIDTH and has_bf16_instructions() else "no"


@contextlib.contextmanager
def for_now(get: Callable[[], Any], put: Callable[[Any], Any], value: Any) -> Iterator[None]:
    """Put a setting of the whole process to a value; afterwards it is what it was."""
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def threads(count: int) -> contextlib.AbstractContextManager[None]:
    """Compute with so many threads of the CPU; sums are split among them, so results depend on their number."""
    return for_now(torch.get_num_threads, torch.set_num_threads, count)


def tf32_products(allowed: bool) -> contextlib.AbstractContextManager[None]:
    """Let a graphics card round the factors of float32 matrix products to TF32, or forbid it."""
    precision = "high" if allowed else "highest"
    return for_now(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, precision)
