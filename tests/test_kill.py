"""SIGKILL at random moments: the same command goes on and ends with exactly what an uninterrupted one ends with."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uwml_lib.checkpoints import load_state
from uwml_lib.training import read_metrics

KILLS = int(os.environ.get("UWML_KILLS", "5"))
TRAIN = ("train", "--dataset", "scenes_smoke", "--epochs", "6", "--loss", "polynomial")
DATA = ("data", "--dataset", "scenes_smoke")
REPRODUCE = ("reproduce", "--profile", "smoke", "--seeds", "0")
REPORT = ("report", "--dataset", "scenes_smoke", "--publish")

pytestmark = pytest.mark.slow


def start(home: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "uwml_lib.cli", *arguments], env={**os.environ, "UWML_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(home: Path, *arguments: str) -> float:
    """Run a command to its end; return the seconds it took."""
    began = time.monotonic()
    process = start(home, *arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.monotonic() - began


def kill_at_random(home: Path, seconds: float, generator: random.Random, *arguments: str) -> bool:
    """Start a command, kill it with all its processes within `seconds`; return whether it was still at work."""
    process = start(home, *arguments)
    time.sleep(generator.uniform(0.1, 1) * seconds)
    at_work = process.poll() is None
    if at_work:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return at_work


def torment(kills, whole, outcome, new_home, command, record_property, at_most=2) -> None:
    """Kill a command `kills` times, up to `at_most` times in one home, finish it, and compare with the whole one.

    What one kill leaves must survive the next. `new_home(number)` makes a folder to start in.
    """
    seconds, expected = finish(whole, *command), outcome(whole)
    generator, killed, lost, number = random.Random(0), 0, [], 0
    while killed < kills:
        assert number < 5 * kills + 5, "the kills come too late"
        home = new_home(number)
        number += 1
        killed += sum(kill_at_random(home, seconds, generator, *command) for _ in range(min(at_most, kills - killed)))
        finish(home, *command)
        if outcome(home) != expected:
            lost.append(home)
        else:
            shutil.rmtree(home)
    record_property("kills", {"command": command[0], "killed": killed, "lost": len(lost)})
    assert not lost


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


def test_training(tmp_path, record_property):
    finish(tmp_path, *DATA)

    def outcome(home):
        return run_outcome(next((home / "reports/runs/scenes_smoke").glob("*/")))

    def home(name):
        (tmp_path / str(name)).mkdir()
        (tmp_path / str(name) / "data").symlink_to(tmp_path / "data")
        return tmp_path / str(name)

    torment(max(1, 2 * KILLS // 5), home("whole"), outcome, home, TRAIN, record_property)


def test_data(tmp_path, record_property):
    def outcome(home):
        return digests(home / "data/scenes_smoke", "*_*"), leftovers(home)

    torment(max(1, KILLS // 5), tmp_path / "whole", outcome, lambda name: tmp_path / str(name), DATA, record_property)


def test_pipeline_and_report(tmp_path, record_property):
    whole = tmp_path / "whole"

    def outcome(home):
        reports = home / "reports"
        found = [json.loads(path.read_text()) for path in sorted((reports / "scenes_smoke/metrics").glob("*.json"))]
        runs = [run_outcome(path.parent) for path in sorted(reports.glob("runs/scenes_smoke/*/results.json"))]
        pages = [path.name for path in sorted(reports.rglob("*.html"))]
        return found, runs, pages, digests(reports, "*.png"), leftovers(home)

    torment(max(1, KILLS // 5), whole, outcome, lambda name: tmp_path / str(name), REPRODUCE, record_property, 5)

    def copy(name):
        shutil.copytree(whole, tmp_path / f"report{name}")
        return tmp_path / f"report{name}"

    def pages(home):
        return digests(home / "reports", "*.html", "*.md", "reference/*", "reference/runs/*/*"), leftovers(home)

    torment(max(1, KILLS // 5), copy("-whole"), pages, copy, REPORT, record_property)
