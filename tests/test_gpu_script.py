"""`benchmarks/gpu.sh` in tiny sizes on the CPU, in an interpreter that has torch and little else."""

import importlib
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.test_environment import HIDE, with_dependencies
from tests.tiny import write_tiny
from uwml_lib.losses import LOSSES
from uwml_lib.reports.report import plain_markdown
from uwml_lib.studies import build_pages
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_files, read_json, read_sealed_json, write_json
from uwml_lib.support.paths import CHECKOUT

THERE = (
    "torch", "numpy", "pandas", "matplotlib", "seaborn", "scipy", "scikit-learn", "accelerate", "safetensors", "tqdm",
    "psutil", "filelock", "pytest", "hypothesis", "triton", "uwml-kit",
)  # fmt: skip
"""What the script may rely on, with what these need themselves."""
ABSENT = {"tyro", "nltk", "IPython", "ipykernel", "ipywidgets", "papermill", "nbconvert", "nbformat", "jupyterlab"}
ABSENT |= {"kagglehub", "vl_convert", "tabulate"}
PARTS = ("checks", "steps", "scoring", "epoch", "runs", "kernels")


@pytest.fixture
def little(tmp_path) -> dict[str, str]:
    """An environment in which Python finds only what a bare machine with torch has."""
    there = with_dependencies(*THERE)
    owners = metadata.packages_distributions()
    hidden = {module for module, names in owners.items() if there.isdisjoint(map(canonicalize_name, names))}
    assert hidden >= ABSENT
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(HIDE.replace('set(sys.argv[1].split(","))', repr(hidden)), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in ("DATA", "OUT", "UWML_HOME")}
    return kept | {"PYTHONPATH": str(shim), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Import a module of the benchmarks afresh, with a root of its own."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (CHECKOUT / "benchmarks" / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.slow
def test_everything_in_tiny_sizes(little, script, tmp_path, monkeypatch, unmade):
    data = write_tiny(tmp_path / "data of mine" / "tiny8k", {"train": 40, "dev": 12})
    out = tmp_path / "out"
    done = subprocess.run(
        ["bash", CHECKOUT / "benchmarks/gpu.sh", "out"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=little | {"GPU_SMOKE": "1", "DATA": "data of mine/tiny8k"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_files_of(out, done.stdout)
    check_numbers(out)
    monkeypatch.setenv("UWML_HOME", str(tmp_path))
    check_published(script("gpu_figures"), out, tmp_path, monkeypatch)
    assert data.is_dir()


def check_files_of(out: Path, printed: str) -> None:
    files = {path.name: path.stat().st_size for path in out.iterdir()}
    assert set(files) == {*(f"{part}.json" for part in PARTS), "kernels.txt", "summary.txt"}
    assert len(files) <= 8
    assert max(files.values()) < 1e6
    summary = (out / "summary.txt").read_text(encoding="utf-8")
    assert printed.endswith(f"\n{summary}")
    assert len(summary.splitlines()) <= 60
    for words in ("CPU", "tiny sizes", "torch 2", ": met", ": missed", "bound"):
        assert words in summary
    for part in PARTS:
        assert f"\n{part}: " in summary
    for path in out.iterdir():
        assert str(out.parent) not in path.read_text(encoding="utf-8"), "a path of the machine that measured"


def check_numbers(out: Path) -> None:
    found = {part: read_json(out / f"{part}.json") for part in PARTS}
    for name, part in found.items():
        assert part["outcome"] == "finished", (name, part)
        assert part["tables"], name
        assert all(rows for rows in part["tables"].values()), name
        assert part["provenance"]["command"] == "bash benchmarks/gpu.sh"
    assert found["checks"]["tests"] == {"passed": 0, "failed": 0, "skipped": found["checks"]["tests"]["skipped"]}
    assert found["checks"]["tests"]["skipped"] >= 2 * len(LOSSES), "half precision and no waiting, for every loss"
    steps, forms = found["steps"], ("floor", "kit", "plain", "loop, kit's loss", "loop")
    for direction in ("i2t", "t2i"):
        for numbers in (steps[f"attention_{direction}"][precision] for precision in ("float32", "tf32", "bf16")):
            assert all(numbers["milliseconds"][form] > 0 for form in forms)
            assert numbers["launches"] > 0 and numbers["kernel_milliseconds"] > 0
        assert steps[f"training_{direction}"]["milliseconds"]["bf16"] > 0
        assert steps[f"large_{direction}"]["milliseconds"]["tf32"] > 0
        assert f"{direction}, bf16" in found["scoring"]["evaluation"]
        assert found["scoring"][f"scoring_{direction}"]["loop"] > 0
    assert {"kit", "reductions", "loop"} <= set(steps["loss"]["64"])
    assert len(steps["embeddings"]) == 6
    for numbers in steps["embeddings"].values():
        assert all(numbers[name] > 0 for name in ("product", "kit", "infonce"))
    assert found["epoch"]["tf32"]["steps"] == found["epoch"]["tf32"]["of_steps"] > 0
    assert all(len(rows) == 10 for rows in found["kernels"]["tables"].values())
    runs = [(run["results"]["config"]["loss"], run["results"]["config"]["seed"]) for run in found["runs"]["runs"]]
    assert runs == [(loss, seed) for seed in (0, 1) for loss in ("triplet", "polynomial")]
    assert [*found["runs"]["tables"]] == ["tiny8k on CPU"]
    assert found["runs"]["runs"][0]["metrics"]
    assert "polynomial − triplet, rsum: " in found["runs"]["bounds"]


def check_published(figures, out: Path, tmp_path: Path, monkeypatch) -> None:
    performance = tmp_path / "reference/performance"
    monkeypatch.setattr(paths, "PERFORMANCE", performance)
    folder = figures.publish(out)
    assert folder == performance / "cpu-smoke"
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures == {"steps", "scoring", "runs", "kernels"}
    trainings = read_json(out / "runs.json")["runs"]
    assert sorted(path.name for path in (folder / "runs").iterdir()) == sorted(run["name"] for run in trainings)
    for training in trainings:
        run = folder / "runs" / training["name"]
        assert read_sealed_json(run / "results.json")["metrics"] == training["results"]["metrics"]
        digests = read_sealed_json(run / "results.json")["files"]
        check_files(run, {name: digests[name] for name in ("config.json", "metrics.jsonl")})
    for name, value in (("REPORTS", tmp_path), ("RUNS", tmp_path / "runs"), ("PERFORMANCE", performance)):
        monkeypatch.setattr(paths, name, value)
    build_pages()
    page = (tmp_path / "_made/performance.md").read_text(encoding="utf-8")
    assert "## cpu-smoke" in page
    for part in PARTS:
        assert f"### {plain_markdown(read_json(out / f'{part}.json')['title'])}" in page
        assert (f"(/_pictures/{part}-" in page) == (part in pictures)
    assert "tiny8k on CPU" in page


def test_what_a_stopped_part_had_is_published(script, tmp_path, monkeypatch):
    figures = script("gpu_figures")
    monkeypatch.setattr(paths, "PERFORMANCE", tmp_path / "performance")
    words = {"device": "A Card 80GB", "smoke": False, "targets": [], "bounds": "", "provenance": {}}
    words |= {"title": "A title", "outcome": "stopped: over its limit", "tables": {"t": [{"a": "1"}]}}
    took = {"kit": 2.0, "loop": None}
    write_json(tmp_path / "steps.json", words | {"attention_t2i": {"tf32": {"milliseconds": took}}, "loss": {}})
    write_json(tmp_path / "scoring.json", words)
    write_json(tmp_path / "epoch.json", {"title": "An epoch", "tables": {}, "outcome": "failed"})
    folder = figures.publish(tmp_path)
    assert folder == tmp_path / "performance/a-card-80gb"
    assert {path.name for path in folder.iterdir()} == {"steps.json", "steps.png", "scoring.json", "scoring.png"}


def test_a_folder_without_numbers_is_refused(script, tmp_path):
    figures = script("gpu_figures")
    write_json(tmp_path / "steps.json", {"title": "steps", "tables": {}, "outcome": "stopped"})
    with pytest.raises(UWMLError, match="holds no numbers that `bash benchmarks/gpu.sh` wrote"):
        figures.publish(tmp_path)


def test_imports_need_nothing_that_a_bare_machine_lacks(little):
    modules = [
        f"uwml_lib.{name}" for name in ("reports.figures.trainings", "training", "evaluation", "runs", "reports.tables")
    ]
    modules += ["tests.test_cuda", "tests.losses.test_losses"]
    of_studies = ("precision",)  # trains with a study's settings, on a CPU
    modules += [path.stem for path in sorted((CHECKOUT / "benchmarks").glob("*.py")) if path.stem not in of_studies]
    program = "\n".join(f"import {name}" for name in modules)
    places = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "benchmarks"), little["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=little | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------ what goes wrong

PART = """
import subprocess, sys, time
from uwml_lib.support.files import write_json
from uwml_lib.support.paths import ROOT
name, found = sys.argv[1], {"title": "A part", "tables": {}, "targets": ["a: 1, wanted at least 1: met"], "bounds": ""}
print("at work")
if name == "checks":
    raise RuntimeError("this card is broken")
write_json(ROOT / "out" / f"{name}.json", found)
if name == "steps":
    (ROOT / "out" / ".steps.json.part").touch()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write_json(ROOT / "out" / f"{name}.json", found | {"child": child.pid})
    time.sleep(60)
write_json(ROOT / "out" / f"{name}.json", found | {"outcome": "finished", "seconds": 1})
"""


def test_a_part_that_fails_or_takes_too_long_is_noted_and_passed_over(script, tmp_path, monkeypatch, capsys):
    gpu = script("gpu")
    (tmp_path / "part.py").write_text(PART, encoding="utf-8")
    monkeypatch.setattr(gpu, "SCRIPT", tmp_path / "part.py")
    monkeypatch.setattr(gpu, "LIMITS", {"checks": 30, "steps": 4, "scoring": 30})
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    out = tmp_path / "out"
    out.mkdir()
    gpu.measure(out, "", [[name] for name in gpu.LIMITS])
    found = {name: read_json(out / f"{name}.json") for name in gpu.LIMITS}
    assert found["checks"]["outcome"] == "failed: ended with status 1: RuntimeError: this card is broken"
    assert found["steps"]["outcome"] == "stopped: over its limit of 4 s"
    assert found["steps"]["targets"], "what it had found is kept"
    assert found["scoring"]["outcome"] == "finished"
    assert {path.name for path in out.iterdir()} == {f"{name}.json" for name in gpu.LIMITS}
    assert ends(found["steps"]["child"])
    summary = gpu.summary(out)
    for words in ("this card is broken", "over its limit", "scoring: A part: finished, 1 s", "No part got as far"):
        assert words in summary


def ends(process: int) -> bool:
    """Whether a process is gone within seconds, or nothing but its exit status is left."""
    for _ in range(100):
        status = Path(f"/proc/{process}/status")
        if not status.exists() or "State:\tZ" in status.read_text(encoding="utf-8"):
            return True
        time.sleep(0.05)
    return False


def test_nothing_is_begun_when_the_time_is_over(script, tmp_path, monkeypatch):
    gpu = script("gpu")
    monkeypatch.setattr(gpu, "WHOLE", 0)
    gpu.measure(tmp_path, "", [["kernels"]])
    assert read_json(tmp_path / "kernels.json")["outcome"] == "passed over: no time was left"


def test_the_limits_make_eight_minutes(script):
    gpu = script("gpu")
    assert tuple(gpu.LIMITS) == PARTS
    assert sum(gpu.LIMITS.values()) <= gpu.WHOLE < 480
    assert gpu.LIMITS["checks"] <= 90
    assert gpu.LIMITS["runs"] <= 150


def test_a_summary_is_short_whatever_was_found(script, tmp_path):
    gpu = script("gpu")
    rows = [{"what": "x" * 300}] * 100
    for name in PARTS:
        part = {
            "title": name,
            "tables": {"t": rows},
            "targets": ["t"] * 30,
            "bounds": "b " * 2000,
            "outcome": "finished",
        }
        write_json(tmp_path / f"{name}.json", part)
    lines = gpu.summary(tmp_path).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 180


def test_what_fails_is_noted_and_the_rest_is_measured(script, tmp_path, monkeypatch):
    notes = script("gpu_notes")
    monkeypatch.setattr(notes, "OUT", tmp_path)
    part = notes.Part("steps", "Steps", time.time() + 60)

    def fails() -> None:
        raise RuntimeError("CUDA out of memory")

    found = part.medians({"a": lambda: time.sleep(0.01), "b": fails}, seconds=0.05)
    assert found["a"] >= 10
    assert found["b"] is None
    assert read_json(tmp_path / "steps.json")["errors"] == ["b: RuntimeError: CUDA out of memory"]
    assert notes.cell(found["b"]) == "–"
    assert 0 < part.left <= 60


def test_what_bounds_a_step(script):
    notes = script("gpu_notes")
    seen = notes.Seen({"matmul": (2, 6.0), "add": (10, 2.0)})
    assert (seen.launches, seen.milliseconds, seen.largest(1)) == (12, 8.0, [("matmul", 2, 6.0)])
    assert "starting kernels bounds it, the device waits 60% of the time" in notes.what_bounds("a", 20.0, seen, 6.0)
    assert "the products bound it" in notes.what_bounds("a", 9.0, seen, 6.0)
    assert "most of them passes over memory" in notes.what_bounds("a", 9.0, seen, 1.0)
    assert notes.what_bounds("a", 9.0, notes.Seen({}), 1.0) == "a: no kernel was seen."
    assert json.dumps(seen.kernels)
