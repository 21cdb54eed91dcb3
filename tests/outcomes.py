"""What came of an input that was damaged: a right result, a clear error, or what should not have come."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from uwml_lib.support.errors import UWMLError

SECONDS = 60  # a mutation may take; more is a hang


class Wrong(Exception):
    """Something was accepted, and is not what was given."""


class Hung(BaseException):
    """Still at work after all the time there was; no `except Exception` of the kit takes it for an error."""


@contextlib.contextmanager
def no_hang(seconds: float = SECONDS) -> Iterator[None]:
    def stop(*_):
        raise Hung(f"still at work after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again and again, in case that one is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(work: Callable[[], object], seconds: float = SECONDS) -> tuple[str, str]:
    """Do some work; return what came of it, and words about what should not have."""
    try:
        with no_hang(seconds):
            work()
    except UWMLError:
        return "clear error", ""
    except Wrong as error:
        return "wrong", str(error)
    except Hung as error:
        return "hung", str(error)
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {error!s:.200}"
    return "right", ""
