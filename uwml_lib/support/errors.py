"""The one error class of the kit: a sentence that says what was found and what was expected."""

import contextlib
import re
from collections.abc import Iterator


class UWMLError(ValueError):
    """Something the user gave cannot be used; the message alone must be enough to mend it."""

    def _render_traceback_(self) -> list[str]:
        """Show the sentence alone in a notebook (IPython asks an exception for this)."""
        return [f"{type(self).__name__}: {self}"]


def expect(holds: object, where: object, found: object, expected: str) -> None:
    """Raise UWMLError unless something holds. The words are made either way: this is not for inner loops."""
    if not holds:
        raise UWMLError(f"{where}: found {found}, expected {expected}")


def first_words(error: Exception) -> str:
    """Return the first sentence of what an error says."""
    return re.split(r"\.?(?:\s*\n|\.\s|$)", str(error).strip())[0] or type(error).__name__


@contextlib.contextmanager
def reading(where: object, expected: str) -> Iterator[None]:
    """Turn what Python says of data of another shape into a UWMLError that names where they are."""
    try:
        yield
    except UWMLError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise UWMLError(f"{where}: found something else ({error!r}), expected {expected}") from error
