"""Training and evaluation on data of MSCOCO's size, in little memory: benchmarks/scale.py, shortened."""

import json
import multiprocessing
import resource
import runpy
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.tables import cells
from uwml_lib.support.paths import CHECKOUT

SCRIPT = CHECKOUT / "benchmarks" / "scale.py"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def hold(megabytes, enough):
    kept = np.ones(megabytes * 10**6, dtype=np.uint8)
    assert enough.wait(60)
    assert kept.all()


@LINUX
def test_the_memory_of_a_process_and_of_its_children_is_seen(tmp_path):
    """In a process that has no other children, as those of other tests would be counted too."""
    call = f"from tests.test_scale import watch_a_child; watch_a_child({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", call], cwd=CHECKOUT, check=True)


def watch_a_child(folder):
    scale = runpy.run_path(str(SCRIPT))
    mapped = np.lib.format.open_memmap(f"{folder}/mapped.npy", "w+", np.uint8, (2 * 10**8,))
    rows = []
    with scale["measured"](rows, "child", repeats=2) as row:
        spawn = multiprocessing.get_context("spawn")
        enough = spawn.Event()
        child = spawn.Process(target=hold, args=(150, enough), daemon=True)
        child.start()
        kept = np.ones(10**8, dtype=np.uint8)
        assert mapped.sum() == 0  # read from disk, and in memory now
        end = time.monotonic() + 30
        while row["peak_gb"] - row["before_gb"] < 0.25 and time.monotonic() < end:
            time.sleep(0.01)
        enough.set()
        child.join()
    assert rows == [row]
    assert child.exitcode == 0
    assert 0.25 <= row["peak_gb"] - row["before_gb"] < 0.4
    assert kept.all() and row["seconds"] > 0


def test_the_chapter_quotes_what_was_printed():
    text = (CHECKOUT / "benchmarks" / "scale.md").read_text(encoding="utf-8")
    *training, score, rank = [[float(cell) for cell in row] for _, *row in cells(text)[2:]]
    load, step = training[1], training[-1]
    chapter = " ".join(
        (CHECKOUT / "uwml_lib/reports/site/chapters/pages/your_data/training.md")
        .read_text(encoding="utf-8")
        .lower()
        .split()
    )
    assert f"training took at most {max(peak for _, _, peak in training):.1f} gb" in chapter
    assert f"25,000 captions at most {max(score[2], rank[2]):.1f} gb" in chapter
    assert f"loading a batch took {100 * load[0] / step[0]:.0f} % of a training step" in chapter


@LINUX
@pytest.mark.slow
def test_data_of_mscocos_size_in_little_memory(tmp_path):
    output = tmp_path / "scale.json"
    options = ["--steps", "50", "--workers", "2", "--width", "64", "--dev-images", "1000", "--output", str(output)]
    most = 8 * 10**9  # bytes: a training that read all features would fail here, and not take the machine with it
    ended = subprocess.run(
        [sys.executable, SCRIPT, *options],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
    )
    assert ended.returncode == 0, ended.stderr
    start, load, step, score, rank = json.loads(output.read_text())
    assert max(row["peak_gb"] for row in (start, load, step)) < 2.5
    one_copy = 1000 * 36 * 2048 * 4 / 1e9
    assert score["images_embedded"] == 1000
    assert score["peak_gb"] - score["before_gb"] < one_copy
    assert rank["peak_gb"] - rank["before_gb"] < 0.1
    assert len([line for line in ended.stdout.splitlines() if line.startswith("|")]) == 7
