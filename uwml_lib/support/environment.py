"""Environment variables for child processes, set for as long as a block lasts."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def environment_variables(**variables: str) -> Iterator[None]:
    """Set environment variables, which processes started in this block inherit; afterwards all is as before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
