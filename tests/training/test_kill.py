"""SIGKILL at random moments: the same command goes on and ends with exactly what an uninterrupted one ends with.

Every other kill hits the command's own process alone: what it had started must then go by itself, and must not be in
the way of the next call, which comes at once.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import psutil
import pytest

from uwml_lib.runs import read_metrics
from uwml_lib.runs.checkpoints import load_state

KILLS = int(os.environ.get("UWML_KILLS", "5"))
COMMANDS = ("train", "train --workers 2", "data", "reproduce", "report")  # the kills are shared among these
SECONDS_TO_GO = 60  # for what a killed process leaves running, which first may have its imports to do
INSIDE = ("--checkpoint-minutes", "0")  # keep the state after every step, so that kills strike inside epochs too
TRAIN = ("train", "--dataset", "scenes_smoke", "--epochs", "6", "--loss", "polynomial", *INSIDE)
DATA = ("data", "--dataset", "scenes_smoke")
WITH_WORKERS = ("train", "--dataset", "scenes_smoke", "--epochs", "3", "--workers", "2", *INSIDE)
REPRODUCE = ("reproduce", "--profile", "smoke", "--seeds", "0")
RATIO_OF_TIMES = "direct_over_cheap"  # of notebook 3
REPORT = ("report", "--dataset", "scenes_smoke", "--publish")

pytestmark = pytest.mark.slow


def start(home: Path, *arguments: str) -> tuple[subprocess.Popen, IO[str]]:
    """Start a command; its errors go to a file, for a pipe would wait for all that the command has started too."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read by whoever waits)
    process = subprocess.Popen(
        [sys.executable, "-m", "uwml_lib.cli", *arguments], env={**os.environ, "UWML_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
    )  # fmt: skip
    return process, errors


def finish(home: Path, *arguments: str) -> float:
    """Run a command to its end; return the seconds it took."""
    began = time.monotonic()
    process, errors = start(home, *arguments)
    with errors:
        code = process.wait()
        errors.seek(0)
        assert code == 0, errors.read()
    return time.monotonic() - began


def kill_at_random(
    home: Path, seconds: float, generator: random.Random, alone: bool, *arguments: str
) -> list[psutil.Process] | None:
    """Start a command and kill it within `seconds`, `alone` or with its process group.

    Return the processes it had started, some of them in sessions of their own; None if it was at its end before.
    """
    process, errors = start(home, *arguments)
    with errors:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0.1, 1) * seconds)
            return None
        process.send_signal(signal.SIGSTOP)  # so that it starts none while they are listed
        started = psutil.Process(process.pid).children(recursive=True)
        if alone:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return started


def wait_until_gone(processes: list[psutil.Process]) -> list[str]:
    """Wait for processes to end by themselves; return the command lines of those that do not, and end them."""
    end = time.monotonic() + SECONDS_TO_GO
    while (left := [process for process in processes if at_work(process)]) and time.monotonic() < end:
        time.sleep(0.1)
    lines = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines.append(" ".join(process.cmdline()))
            process.kill()
    return lines


def at_work(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def torment(label, whole, outcome, new_home, command, record_property, at_most=2) -> None:
    """Kill a command its share of times, up to `at_most` times in one home, finish it, and compare with the whole one.

    What one kill leaves must survive the next. `new_home(number)` makes a folder to start in.
    """
    number_of_command = COMMANDS.index(label)
    kills = max(1, KILLS // len(COMMANDS) + (number_of_command < KILLS % len(COMMANDS)))
    seconds, expected = finish(whole, *command), outcome(whole)
    generator, killed, alone, lost, left, number = random.Random(number_of_command), 0, 0, [], [], 0
    while killed < kills:
        assert number < 5 * kills + 5, "the kills come too late"
        home, started = new_home(number), []
        number += 1
        for earlier in range(min(at_most, kills - killed)):
            parent_alone = (killed + number_of_command) % 2 == 1  # every other one, even if each command has but one
            processes = kill_at_random(home, seconds, generator, parent_alone, *command)
            if processes is None:  # at its end; if not for what was done before, the machine has become quicker
                seconds *= 1 if earlier else 0.8
                break
            killed, alone, started = killed + 1, alone + parent_alone, started + processes
        finish(home, *command)
        left += wait_until_gone(started)
        if outcome(home) != expected:
            lost.append(home)
        else:
            shutil.rmtree(home)
    record_property(
        "kills", {"command": label, "killed": killed, "alone": alone, "lost": len(lost), "left running": len(left)}
    )
    assert not lost
    assert not left


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """Relative path -> SHA-256 of every file that matches."""
    files = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def run_outcome(run: Path) -> dict:
    """All that a training leaves but times, places and machines."""
    results = json.loads((run / "results.json").read_text())
    return {
        "metrics": [{**line, "seconds": None} for line in read_metrics(run)],
        "best": digests(run, "best.safetensors"),
        "last": {name: tensor.tolist() for name, tensor in load_state(run / "checkpoint/last.pt")["model"].items()},
        "results": {name: results[name] for name in ("metrics", "ranks", "best_epoch", "dev_rsum")},
        "left over": leftovers(run),
    }


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".old")) or "new." in path.name]


@pytest.mark.parametrize(("label", "command"), [("train", TRAIN), ("train --workers 2", WITH_WORKERS)])
def test_training(tmp_path, record_property, label, command):
    finish(tmp_path, *DATA)

    def outcome(home):
        return run_outcome(next((home / "reports/runs/scenes_smoke").glob("*/")))

    def home(name):
        (tmp_path / str(name)).mkdir()
        (tmp_path / str(name) / "data").symlink_to(tmp_path / "data")
        return tmp_path / str(name)

    torment(label, home("whole"), outcome, home, command, record_property)


def test_data(tmp_path, record_property):
    def outcome(home):
        return digests(home / "data/scenes_smoke", "*_*"), leftovers(home)

    torment("data", tmp_path / "whole", outcome, lambda name: tmp_path / str(name), DATA, record_property)


def test_pipeline_and_report(tmp_path, record_property):
    whole = tmp_path / "whole"

    def outcome(home):
        reports = home / "reports"
        found = [json.loads(path.read_text()) for path in sorted((reports / "scenes_smoke/metrics").glob("*.json"))]
        for numbers in found:
            numbers.pop(RATIO_OF_TIMES, None)
        runs = [run_outcome(path.parent) for path in sorted(reports.glob("runs/scenes_smoke/*/results.json"))]
        pages = [path.name for path in sorted(reports.rglob("*.html"))]
        return found, runs, pages, digests(reports, "*.png"), leftovers(home)

    torment("reproduce", whole, outcome, lambda name: tmp_path / str(name), REPRODUCE, record_property, 5)

    def copy(name):
        shutil.copytree(whole, tmp_path / f"report{name}")
        return tmp_path / f"report{name}"

    def pages(home):
        return digests(home / "reports", "*.html", "*.md", "reference/*", "reference/runs/*/*"), leftovers(home)

    torment("report", copy("-whole"), pages, copy, REPORT, record_property)
