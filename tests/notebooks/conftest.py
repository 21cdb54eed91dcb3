"""The pipeline in smoke size, each of its commands once for all tests."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests.command_line import uwml

REPRODUCE = ("reproduce", "--profile", "smoke", "--seeds", "0,1", "--epochs", "1")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> tuple[Path, str]:
    """A folder in which the pipeline has run, and what it printed; shared by all test processes."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    return home, run_once(home, *REPRODUCE)


def run_once(home: Path, command: str, *options: str) -> str:
    """Run a command in a folder unless another test process has, and return what it printed."""
    with FileLock(home.with_suffix(f".{command}.lock")):
        log = home / f"{command}.txt"
        if not log.exists():
            result = uwml(home, command, *options)
            assert result.returncode == 0, result.stdout + result.stderr
            log.write_text(result.stdout + result.stderr)
        return log.read_text()


@pytest.fixture(scope="session")
def compared(smoke) -> tuple[Path, str]:
    """The same folder once all losses have been compared in it, and what that printed."""
    return smoke[0], run_once(smoke[0], "compare", "--profile", "smoke", "--epochs", "1")


@pytest.fixture(scope="session")
def faithful(smoke) -> tuple[Path, str]:
    """The same folder once the release's habits have been measured in it, and what that printed."""
    return smoke[0], run_once(smoke[0], "fidelity", "--profile", "smoke", "--epochs", "1")


@pytest.fixture(scope="session")
def modelled(smoke) -> tuple[Path, str]:
    """The same folder once every model has been trained in it, and what that printed."""
    return smoke[0], run_once(smoke[0], "models", "--profile", "smoke", "--epochs", "1")


@pytest.fixture(scope="session")
def filmed(smoke) -> tuple[Path, str]:
    """The same folder once the models for videos have been trained in it, and what that printed."""
    return smoke[0], run_once(smoke[0], "videos", "--profile", "smoke", "--epochs", "1")
