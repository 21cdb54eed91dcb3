"""Progress bars where somebody is looking at one, and plain words for durations."""

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")
Say = Callable[[str], None]
say: Say = functools.partial(print, flush=True)
"""Print a line at once, even into a pipe."""
_quiet = contextvars.ContextVar("quiet", default=False)


def headless() -> bool:
    """Say whether nobody is looking: UWML_HEADLESS is set where notebooks, or several trainings, run unattended."""
    return bool(os.environ.get("UWML_HEADLESS"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no bar, whoever looks."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Show a bar over `items` if they take more than a second: in a notebook a person has open, or on a terminal.

    A bar in a notebook that is executed headlessly would stay frozen in the saved copy.
    """
    if headless() or _quiet.get() or find_spec("tqdm") is None:  # the losses and models come without it
        return items
    if _in_notebook():
        from tqdm.notebook import tqdm

        return tqdm(items, desc=description, leave=False, delay=1)
    from tqdm import tqdm

    return tqdm(items, desc=description, leave=False, delay=1, disable=None)  # None: only on a terminal


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def duration(seconds: float) -> str:
    """Say a duration as a person would: 4 s, 2 min 10 s, 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
