"""Progress bars where somebody is looking at one, and plain words for durations."""

import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")
Say = Callable[[str], None]


def say(line: str) -> None:
    """Print a line at once, even into a pipe, and whole, even where several threads speak."""
    print(f"{line}\n", end="", flush=True)


def headless() -> bool:
    """Say whether nobody is looking: where notebooks or trainings run unattended, and in all of torchrun's but one."""
    return bool(os.environ.get("UWML_HEADLESS")) or os.environ.get("RANK", "0") != "0"


def progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Show a bar over `items` if they take more than a second: in a notebook a person has open, or on a terminal.

    A bar in a notebook that is executed headlessly would stay frozen in the saved copy.
    """
    if headless() or find_spec("tqdm") is None:  # the losses and models come without it
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=description, leave=False, delay=1, disable=None)  # None: not into a pipe or a file


def counted(number: int, noun: str) -> str:
    """Say how many there are: 1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Say a duration as a person would: 4 s, 2 min 10 s, 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
