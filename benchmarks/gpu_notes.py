"""What the parts of `gpu.py` share: a file that grows with what is found, and how calls are timed and looked into."""

import functools
import gc
import os
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from measuring import DEVICE, Call, Row, Target, once, take_turns, wait
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from uwml_lib.config import Precision
from uwml_lib.runs.provenance import device_name, provenance
from uwml_lib.support.files import write_json
from uwml_lib.support.paths import ROOT

OUT = ROOT / "out"
"""`gpu.py` gives its parts a root of their own, in which this leads to the folder of the numbers."""
SMOKE = bool(os.environ.get("GPU_SMOKE"))
"""Tiny sizes, to see that everything works."""
CARD = device_name(DEVICE)
DIRECTIONS = ("i2t", "t2i")
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
NOT_SEEN = "–"
ANNOTATIONS = ("Memcpy", "Memset", "Optimizer.", "ProfilerStep")
"""Beginnings of what a profiler lists among the kernels though it is none."""

Result = TypeVar("Result")


class Part:
    """What one part found: a JSON file that is written anew whenever there is more, for the part may be stopped.

    ends: when the part is to be done, in seconds since the epoch.
    """

    def __init__(self, name: str, title: str, ends: float) -> None:
        self.path, self.ends = OUT / f"{name}.json", ends
        come_from = provenance(DEVICE) | {"command": "bash benchmarks/gpu.sh", "cuda": torch.version.cuda}
        self.found: dict[str, Any] = {
            "title": title, "device": CARD, "smoke": SMOKE, "tables": {}, "targets": [], "bounds": "",
            "errors": [], "threads": torch.get_num_threads(), "provenance": come_from,
        }  # fmt: skip
        self.add()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.time()

    def add(self, **found: Any) -> None:
        """Keep numbers."""
        self.found |= found
        write_json(self.path, self.found)

    def row(self, table: str, row: Row) -> None:
        """Keep a line of a table."""
        self.found["tables"].setdefault(table, []).append(row)
        self.add()

    def aim(self, what: str, found: float, bound: float, at_most: bool = False) -> None:
        """Keep what was to be reached, and whether it was."""
        self.add(targets=[*self.found["targets"], str(Target(what, found, bound, at_most))])

    def say(self, sentence: str) -> None:
        """Keep a sentence on what bounds the numbers."""
        self.add(bounds=f"{self.found['bounds']} {sentence}".strip())

    def attempt(self, what: str, call: Callable[[], Result]) -> Result | None:
        """Call; note an error, such as too little memory, and return None, so that the rest is measured still."""
        try:
            return call()
        except Exception as error:
            traceback.print_exc()
            words = textwrap.shorten(f"{what}: {type(error).__name__}: {error}", 200, placeholder=" ...")
            self.add(errors=[*self.found["errors"], words])
        forget()  # what failed may have left much
        return None

    def medians(self, calls: Mapping[str, Call], seconds: float = 1.0, most: int = 30) -> dict[str, float | None]:
        """Return the median milliseconds of every call over turns that take about so long; None for what failed."""
        first = {name: self.attempt(name, functools.partial(_warm, call)) for name, call in calls.items()}
        fit = {name: calls[name] for name, took in first.items() if took is not None}
        rounds = int((0.03 if SMOKE else 1.0) * seconds / max(sum(filter(None, first.values())), 1e-6))
        found = take_turns(fit, rounds=max(2, min(most, rounds)))
        return {name: 1e3 * found[name] if name in found else None for name in calls}


def _warm(call: Call) -> float:
    """Return the seconds of the second call."""
    call()
    return once(call)


def warm_up(seconds: float = 1.0) -> None:
    """Keep a card busy, so that its clock is up and its libraries are loaded when something is timed."""
    ends = time.monotonic() + (seconds if DEVICE.type != "cpu" else 0)
    x = torch.rand(2048, 2048, device=DEVICE) if DEVICE.type != "cpu" else torch.ones(1, 1)
    while time.monotonic() < ends:
        for _ in range(10):
            x @ x
        wait()


def forget() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


class Seen(NamedTuple):
    """What a profiler saw of one call: kernels by name, how often each was started and its milliseconds in all."""

    kernels: dict[str, tuple[int, float]]

    @property
    def launches(self) -> int:
        """How many kernels were started."""
        return sum(times for times, _ in self.kernels.values())

    @property
    def milliseconds(self) -> float:
        """How long they ran."""
        return sum(milliseconds for _, milliseconds in self.kernels.values())

    def largest(self, count: int = 10) -> list[tuple[str, int, float]]:
        """The kernels that took most of the time: name, how often, milliseconds."""
        ordered = sorted(self.kernels.items(), key=lambda item: -item[1][1])
        return [(name, times, milliseconds) for name, (times, milliseconds) in ordered[:count]]


def profiled(call: Call) -> Seen:
    """Look into one call, after one that is not looked at; on a CPU torch's operators stand in for kernels."""
    call()
    wait()
    on_card = DEVICE.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    with profile(activities=activities) as profiler:
        call()
        wait()
    kernels: dict[str, tuple[int, float]] = {}
    for event in profiler.events():
        if event.device_type != (DeviceType.CUDA if on_card else DeviceType.CPU):
            continue
        if on_card and (event.name.startswith(ANNOTATIONS) or getattr(event, "is_user_annotation", False)):
            continue
        microseconds = event.time_range.elapsed_us() if on_card else event.self_cpu_time_total
        times, milliseconds = kernels.get(event.name, (0, 0.0))
        kernels[event.name] = (times + 1, milliseconds + microseconds / 1e3)
    return Seen(kernels)


def what_bounds(what: str, took: float | None, seen: Seen, products: float | None) -> str:
    """Say in a sentence what bounds a call: starting kernels, the bare products, or what lies between these."""
    if took is None or not seen.launches:
        return f"{what}: no kernel was seen."
    busy = min(1.0, seen.milliseconds / took)
    words = f"{what}: {seen.launches:,} launches, kernels {seen.milliseconds:.3g} ms of {took:.3g} ms"
    words += f", bare products {products:.3g} ms" if products else ""
    if busy < 0.7:
        return f"{words}: starting kernels bounds it, the device waits {1 - busy:.0%} of the time."
    if products and products > seen.milliseconds / 2:
        return f"{words}: the products bound it."
    return f"{words}: the kernels bound it, most of them passes over memory."


def waits(call: Call) -> int | None:
    """Count how often a call makes the host wait for the device; None where torch cannot tell."""
    if DEVICE.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def cell(value: float | None, digits: int = 3) -> str:
    """Write a number for a table."""
    return NOT_SEEN if value is None else f"{value:.{digits}g}" if value < 1000 else f"{value:,.0f}"


def ratio(a: float | None, b: float | None) -> float | None:
    """Divide, where both are there."""
    return a / b if a is not None and b else None
