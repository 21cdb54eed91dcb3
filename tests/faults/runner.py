"""Tests of a copy of the checkout, each time in a fork of one process that has imported torch and its like already."""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.places import Place

PRELOADED = (
    "torch", "numpy", "pandas", "scipy.stats", "accelerate", "safetensors.torch", "hypothesis", "matplotlib.pyplot",
    "tyro",
)  # fmt: skip
"""Slow to import, and the same whatever the library does; neither of the library nor of its tests."""
MEMORY = 12 * 2**30
"""Bytes that a test process may take, for a fault may ask for any number."""


class Outcome(NamedTuple):
    """What came of some tests. failed: the test that did, or in words how they ended; "" if all passed."""

    failed: str
    seconds: float


class NoTests(Exception):
    """What was asked for is no test, or none that is quick."""


def preload() -> None:
    """Import what the tests import, on one thread, for others would not survive a fork."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()


def copy_checkout(source: Path, target: Path) -> None:
    """Copy what is committed or about to be; of the data only what the tokenizer needs."""
    command = ["git", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=source, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
    if (tokenizer := source / "data" / "nltk_data").exists():
        (target / "data" / "nltk_data").symlink_to(tokenizer)


@contextlib.contextmanager
def changed(place: Place, after: str) -> Iterator[None]:
    """Put another text in a place of the copy, and the old one back."""
    before = place.file.read_text(encoding="utf-8")
    _write(place.file, place.replace(after))
    try:
        yield
    finally:
        _write(place.file, before)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    Path(cache_from_source(str(path))).unlink(missing_ok=True)  # compiled code is told apart by size and second alone


def run_tests(copy: Path, tests: Sequence[str], limit: float) -> Outcome:
    """Run tests of the copy until the first fails; those that take longer than `limit` seconds hang."""
    began = time.monotonic()
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        _be_pytest(copy, tests, write)
    os.close(write)
    said = b""
    while (left := began + limit - time.monotonic()) > 0 and select.select([read], [], [], left)[0]:
        if not (chunk := os.read(read, 2**16)):
            break
        said += chunk
    os.close(read)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # it has said all, or hangs; what it started goes with it
    os.waitpid(child, 0)
    answer = json.loads(said) if said else {"code": None, "failed": ""}
    if answer["code"] in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise NoTests(f"pytest found no tests in {' '.join(tests)}; see tests/faults/areas.py")
    seconds = time.monotonic() - began
    if answer["code"] is None:
        return Outcome("a hang" if left <= 0 else "a crash", seconds)
    return Outcome(answer["failed"] or ("" if answer["code"] == 0 else f"pytest's exit code {answer['code']}"), seconds)


class _Witness:
    """A plugin of pytest that notes the first test, or file of tests, that fails."""

    failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        self.pytest_runtest_logreport(report)


def _be_pytest(copy: Path, tests: Sequence[str], write: int) -> None:
    """In the fork: run pytest in the copy, say what came of it, and end without returning."""
    witness, code = _Witness(), 3
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.chdir(copy)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "uwml_lib")]:
            del sys.modules[name]
        sys.path[0] = os.environ["PYTHONPATH"] = str(copy)
        tempfile.tempdir = os.environ["TMPDIR"] = str(copy.parent)
        with open(copy.with_name("log"), "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", f"--basetemp={copy.with_name('tmp')}"]
        code = int(pytest.main([*options, *tests], plugins=[witness]))
    finally:
        os.write(write, json.dumps({"code": code, "failed": witness.failed}).encode())
        os._exit(0)
