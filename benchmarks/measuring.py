"""What the benchmarks share: candidates that take turns, memory at the peak, and one form for what was found.

Only ratios of one run are worth comparing: what slows the machine slows every candidate of a turn.
"""

import argparse
import gc
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from uwml_lib.reports.figures import STYLE
from uwml_lib.runs.provenance import device_name, provenance, this_device
from uwml_lib.support.files import write_json
from uwml_lib.support.paths import PERFORMANCE


def folder_name(device: str) -> str:
    """Return the folder of a device's numbers, named after it: NVIDIA H100 80GB HBM3 is nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


DEVICE = this_device()
FOLDER = PERFORMANCE / folder_name(device_name(DEVICE))
LOOK = {
    "loop": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    "kit": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "floor": {"color": "#000000", "marker": "^", "linestyle": ":"},
    "plain": {"color": "#56B4E9", "marker": "D", "linestyle": "-."},
}

Row = dict[str, str]
Call = Callable[[], Any]


class Target(NamedTuple):
    """What was to be reached: a ratio, at least or at most."""

    what: str
    found: float
    bound: float
    at_most: bool = False

    def __str__(self) -> str:
        met = self.found <= self.bound if self.at_most else self.found >= self.bound
        wanted = f"{'at most' if self.at_most else 'at least'} {self.bound:g}"
        return f"{self.what}: {self.found:.3g}, wanted {wanted}: {'met' if met else 'missed'}"


def arguments(description: str, full: bool = False) -> argparse.Namespace:
    """Read a script's options: peak, what this process is to find the peak memory of, and, if it has one, full."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", nargs="+", help=argparse.SUPPRESS)  # for `peak_memory`
    if full:
        parser.add_argument("--full", action="store_true", help="take the larger size")
    return parser.parse_args()


def take_turns(candidates: Mapping[str, Call], rounds: int = 5) -> dict[str, float]:
    """Return the median seconds of every candidate over `rounds` turns, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, call in candidates.items():
            if turn:
                seconds[name].append(once(call))
            else:
                call()
    return {name: statistics.median(values) for name, values in seconds.items()}


def once(call: Call) -> float:
    """Return the seconds of a single call."""
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """Wait until the device has done all it was given."""
    if DEVICE.type != "cpu":
        torch.accelerator.synchronize()


def peak_memory(*arguments: str) -> float:
    """Return the bytes that `python SCRIPT --peak ARGUMENTS`, this script, prints: found in a process of its own."""
    command = [sys.executable, sys.argv[0], "--peak", *arguments]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def peak_beyond_now(call: Call) -> float:
    """Return the bytes a call takes at its peak beyond what is held now; on a CPU as Linux alone says it."""
    gc.collect()
    if DEVICE.type != "cpu":
        device = torch.get_device_module(DEVICE)
        device.reset_peak_memory_stats()
        before = device.memory_allocated()
        call()
        return device.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far is forgotten
    before = _status("VmHWM")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def report(
    name: str,
    title: str,
    rows: Sequence[Row],
    figure: Figure,
    alt: str,
    bounds: str,
    targets: Sequence[Target] = (),
    **found: Any,
) -> None:
    """Print what was found, and write it as NAME.json and NAME.png into the folder of this device.

    alt: the figure in words. bounds: what limits this part. found: the numbers behind the rows.
    """
    targets_met = [str(target) for target in targets]
    print(f"\n{title}\n\n{markdown(rows)}\n")
    for line in (*targets_met, bounds):
        print(line)
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{name}.png")
    plt.close(figure)
    words = {"title": title, "rows": list(rows), "alt": alt, "targets": targets_met, "bounds": bounds}
    machine = {"threads": torch.get_num_threads(), "provenance": provenance(DEVICE)}
    write_json(FOLDER / f"{name}.json", {**words, **found, **machine})


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw_by_size(axis: Axes, unit: str, title: str, lines: Mapping[str, tuple[str, Mapping[int, float]]]) -> None:
    """Draw values by batch size, both logarithmic; lines: label -> key of `LOOK`, and the value of each size."""
    axis.set(xlabel="pairs in a batch", ylabel=unit, title=title)
    for label, (look, points) in lines.items():
        if points:
            axis.plot([*points.keys()], [*points.values()], label=label, **LOOK[look])
    if axis.lines:
        axis.set_yscale("log")
        axis.set_xscale("log", base=2)
        axis.legend()


def plain_logarithm(axis: Axes) -> None:
    """Make a logarithmic axis of seconds, marked at 1, 2 and 5 times powers of ten, in plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def style() -> Any:
    """Return the look of all figures, as a context."""

    return plt.style.context(STYLE)
