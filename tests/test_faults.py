"""A disk that is full, a folder that is not to be written, a file in the way: one sentence, and nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

resource = pytest.importorskip("resource", reason="limits of a process are POSIX's")

TRAIN = ("train", "--dataset", "scenes_smoke", "--epochs", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    assert uwml(home, "data", "--dataset", "scenes_smoke").returncode == 0
    return home


def uwml(home: Path, *arguments: str, largest_file: int = -1) -> subprocess.CompletedProcess:
    """Run a command; a file larger than `largest_file` bytes fails to grow, as on a full disk."""
    return subprocess.run(
        [sys.executable, "-m", "uwml_lib.cli", *arguments], env={**os.environ, "UWML_HOME": str(home)},
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY)),
    )  # fmt: skip


def one_sentence(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_no_room_for_the_data(tmp_path):
    sentence = one_sentence(uwml(tmp_path, "data", "--dataset", "scenes_smoke", largest_file=100_000))
    assert sentence.startswith("uwml data: ")
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("largest_file", [100, 20_000, 200_000])
def test_no_room_for_a_checkpoint(home, tmp_path, largest_file):
    run = tmp_path / "run"
    sentence = one_sentence(uwml(home, *TRAIN, "--run-folder", str(run), largest_file=largest_file))
    assert sentence.startswith("uwml train: ")
    assert not (run / "results.json").exists()
    again = uwml(home, *TRAIN, "--run-folder", str(run))
    assert again.returncode == 0, again.stderr
    assert (run / "results.json").exists()


def test_a_file_where_the_run_folder_should_be(home, tmp_path):
    (tmp_path / "run").write_text("precious")
    sentence = one_sentence(uwml(home, *TRAIN, "--run-folder", str(tmp_path / "run")))
    assert f"{tmp_path / 'run'}: cannot make this folder" in sentence
    assert (tmp_path / "run").read_text() == "precious"


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_to_be_written(home, tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot" in one_sentence(uwml(home, *TRAIN, "--run-folder", str(tmp_path / "run")))
