"""SIGKILL at random moments: the same command goes on and ends with exactly what an uninterrupted one ends with."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uwml_lib.checkpoints import load_state
from uwml_lib.training import read_metrics

KILLS = int(os.environ.get("UWML_KILLS", "5"))
TRAIN = ("train", "--dataset", "scenes_smoke", "--epochs", "6", "--loss", "polynomial", "--run-folder")
DATA = ("data", "--dataset", "scenes_smoke")

pytestmark = pytest.mark.slow


def start(home: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "uwml_lib.cli", *arguments], env={**os.environ, "UWML_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(home: Path, *arguments: str) -> None:
    process = start(home, *arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def kill_at_random(home: Path, seconds: float, generator: random.Random, *arguments: str) -> bool:
    """Start a command, kill it with all its processes within `seconds`; return whether it was still at work."""
    process = start(home, *arguments)
    time.sleep(generator.uniform(0.3, 1) * seconds)
    at_work = process.poll() is None
    if at_work:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return at_work


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def outcome(run: Path) -> dict:
    """All that a run leaves but the times."""
    metrics = [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(run)]
    results = json.loads((run / "results.json").read_text())
    weights = load_state(run / "checkpoint" / "last.pt")["model"]
    return {
        "metrics": metrics,
        "best": digest(run / "checkpoint" / "best.safetensors"),
        "last": {name: tensor.tolist() for name, tensor in weights.items()},
        "results": {name: results[name] for name in ("metrics", "ranks", "best_epoch", "dev_rsum")},
    }


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".old"))]


def test_killed_trainings_end_as_if_they_had_not_been(tmp_path):
    finish(tmp_path, *DATA)
    began = time.monotonic()
    finish(tmp_path, *TRAIN, str(tmp_path / "whole"))
    seconds = time.monotonic() - began
    expected, generator, killed, attempt = outcome(tmp_path / "whole"), random.Random(0), 0, 0
    while killed < KILLS:
        run = tmp_path / f"run{attempt}"
        attempt += 1
        assert attempt < 3 * KILLS, "the kills come too late"
        # Several kills of one run: what a kill leaves must survive the next.
        killed += sum(kill_at_random(tmp_path, seconds, generator, *TRAIN, str(run)) for _ in range(2))
        finish(tmp_path, *TRAIN, str(run))
        assert outcome(run) == expected


def test_killed_data_is_built_anew_and_the_same(tmp_path):
    began = time.monotonic()
    finish(tmp_path / "whole", *DATA)
    seconds, generator, killed = time.monotonic() - began, random.Random(1), 0
    expected = {path.name: digest(path) for path in (tmp_path / "whole/data/scenes_smoke").glob("*_*")}
    for attempt in range(2 * KILLS):
        home = tmp_path / str(attempt)
        killed += kill_at_random(home, seconds, generator, *DATA)
        finish(home, *DATA)
        assert {path.name: digest(path) for path in (home / "data/scenes_smoke").glob("*_*")} == expected
        assert leftovers(home) == []
        if killed >= KILLS:
            break
    assert killed >= KILLS
