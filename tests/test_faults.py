"""A disk that is full, a folder that is not to be written, a file in the way: one sentence, and nothing is lost."""

import errno
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.command_line import uwml, uwml_anew
from tests.made import write_study
from uwml_lib.cli import main
from uwml_lib.runs import read_metrics
from uwml_lib.support import paths
from uwml_lib.support.files import read_json

pytest.importorskip("resource", reason="limits of a process are POSIX's")

SMOKE = ("--dataset", "scenes_smoke")
TRAIN = ("train", *SMOKE, "--epochs", "2")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
# What lets root write anywhere is taken away.
AS_ANYBODY = ("setpriv", "--bounding-set=-dac_override") if ROOT else ()
# A small disk of its own at $1. What the command wrote there until the disk was full goes to $2/before; then there is
# room, and what the same command made of it goes to $2/after. The disk itself is gone when the script ends.
FILLS_UP = """
disk=$1 copy=$2; shift 2
mount -t tmpfs -o size=3m tmpfs "$disk" || exit 99
"$@" > "$copy/output" 2> "$copy/errors"; echo $? > "$copy/code"
cp -r "$disk/run" "$copy/before" || exit 99
mount -o remount,size=200m "$disk" || exit 99
"$@" && cp -r "$disk/run" "$copy/after"
"""
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


def can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not can_mount(), reason="no file systems of one's own here (unshare -rm)")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    assert uwml(home, "data", *SMOKE).returncode == 0
    return home


def one_sentence(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def mounted(script: str, *places: Path) -> tuple[str, ...]:
    return ("unshare", "-rm", "sh", "-c", script, "sh", *map(str, places))


# ------------------------------------------------------------------------------------------------ a full disk, a quota


def test_no_room_for_the_data(tmp_path):
    sentence = one_sentence(uwml(tmp_path, "data", *SMOKE, largest_file=100_000))
    assert sentence.startswith(f"uwml data: {tmp_path / 'data' / 'scenes_smoke'}: cannot be written (")
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("largest_file", [100, 20_000])
def test_no_room_for_a_checkpoint(home, tmp_path, largest_file):
    run = tmp_path / "run"
    sentence = one_sentence(uwml(home, *TRAIN, "--run-folder", str(run), largest_file=largest_file))
    assert sentence.startswith(f"uwml train: {run}")
    assert "cannot be written (" in sentence
    assert not (run / "results.json").exists()
    again = uwml(home, *TRAIN, "--run-folder", str(run))
    assert again.returncode == 0, again.stderr
    assert (run / "results.json").exists()


@needs_mounts
@pytest.mark.parametrize(("embed_size", "epochs_kept"), [(256, 0), (128, 1)])
@pytest.mark.slow
def test_a_disk_that_fills_up(home, tmp_path, embed_size, epochs_kept):
    """What was finished before the disk was full is kept, and with room the same command ends as if nothing was."""
    disk, copy, whole = tmp_path / "disk", tmp_path / "copy", tmp_path / "whole"
    disk.mkdir()
    copy.mkdir()
    settings = ("train", *SMOKE, "--epochs", "3", "--embed-size", str(embed_size))
    again = uwml_anew(home, *settings, "--run-folder", str(disk / "run"), wrapper=mounted(FILLS_UP, disk, copy))
    output, errors, code = ((copy / name).read_text() for name in ("output", "errors", "code"))
    sentence = one_sentence(subprocess.CompletedProcess(settings, int(code), output, errors))
    assert sentence.startswith(f"uwml train: {disk / 'run'}")
    assert "cannot be written (is the disk full?" in sentence or "No space left on device" in sentence
    assert not (copy / "before/results.json").exists()
    assert (copy / "before/checkpoint/last.pt").exists() == bool(epochs_kept)
    assert output.count(": epoch ") == epochs_kept

    assert again.returncode == 0, again.stderr
    assert ("goes on after epoch 1" in again.stdout) == bool(epochs_kept)
    assert again.stdout.count(": epoch ") == 3 - epochs_kept
    assert uwml(home, *settings, "--run-folder", str(whole)).returncode == 0
    assert outcome(copy / "after") == outcome(whole)


def outcome(run: Path) -> tuple:
    """What a training found, without times and places; the best weights byte for byte."""
    results = read_json(run / "results.json")
    lines = [{**line, "seconds": None} for line in read_metrics(run)]
    return lines, (run / "checkpoint/best.safetensors").read_bytes(), results["metrics"], results["ranks"]


def test_a_quota(home, tmp_path, monkeypatch, capsys):
    def full(_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        arguments = [*TRAIN, "--data-root", str(home / "data"), "--run-folder", str(tmp_path / "run")]
        assert main(arguments) == 1
    assert "cannot be written (Disk quota exceeded); what was there before is kept" in capsys.readouterr().err
    assert main(arguments) == 0


# ------------------------------------------------------------------------------------------------ no permission


def test_a_file_where_the_run_folder_should_be(home, tmp_path):
    (tmp_path / "run").write_text("precious")
    sentence = one_sentence(uwml(home, *TRAIN, "--run-folder", str(tmp_path / "run")))
    assert f"{tmp_path / 'run'}: cannot make this folder" in sentence
    assert (tmp_path / "run").read_text() == "precious"


def test_a_file_where_the_data_folder_should_be(tmp_path):
    (tmp_path / "data").write_text("precious")
    assert f"{tmp_path / 'data'}: cannot make this folder" in one_sentence(uwml(tmp_path, "data", *SMOKE))
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/scenes_smoke").write_text("precious")
    assert f"{tmp_path / 'data/scenes_smoke'}: " in one_sentence(uwml(tmp_path, "data", *SMOKE))
    assert (tmp_path / "data/scenes_smoke").read_text() == "precious"


@pytest.mark.skipif(ROOT and not shutil.which("setpriv"), reason="root may write anywhere")
@pytest.mark.parametrize(
    "arguments",
    [TRAIN, pytest.param(("reproduce", "--profile", "smoke"), marks=pytest.mark.slow)],
    ids=lambda words: words[0],
)
def test_a_folder_that_is_not_to_be_written(home, tmp_path, arguments):
    (tmp_path / "data").symlink_to(home / "data")
    (tmp_path / "reports").mkdir(mode=0o500)
    sentence = one_sentence(uwml_anew(tmp_path, *arguments, wrapper=AS_ANYBODY))
    assert "reports" in sentence
    assert "Permission denied" in sentence


@pytest.mark.skipif(ROOT and not shutil.which("setpriv"), reason="root may read anything")
def test_data_that_is_not_to_be_read(home, tmp_path):
    shutil.copytree(home / "data", tmp_path / "data")
    for file in ("train_caps.txt", "train_ims.npy"):
        path = tmp_path / "data/scenes_smoke" / file
        path.chmod(0o000)
        wrapper = (*AS_ANYBODY[:1], "--bounding-set=-dac_override,-dac_read_search") if AS_ANYBODY else ()
        arguments = (*TRAIN, "--data-root", str(tmp_path / "data"))
        sentence = one_sentence(uwml_anew(tmp_path, *arguments, wrapper=wrapper))
        assert sentence.startswith(f"uwml train: {path}: not readable")
        assert "Permission denied" in sentence
        path.chmod(0o600)


@needs_mounts
@pytest.mark.parametrize(
    "command", [TRAIN, pytest.param(("data", *SMOKE), marks=pytest.mark.slow), ("report", "--dataset", "scenes")]
)
def test_a_file_system_that_is_read_only(home, tmp_path, monkeypatch, command):
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    if command[0] == "data":
        shutil.rmtree(tmp_path / "data/scenes_smoke")
    elif command[0] == "report":
        monkeypatch.setattr(paths, "RUNS", tmp_path / "reports/runs")
        write_study([0, 1])
    sentence = one_sentence(uwml_anew(tmp_path, *command, wrapper=mounted(READ_ONLY, tmp_path)))
    assert "Read-only file system" in sentence


# ------------------------------------------------------------------------------------------------ two at once


@pytest.mark.slow
def test_two_pipelines_at_once(tmp_path):
    """Data, runs and report are shared; the second waits for the first and finds everything done."""
    arguments = ("fidelity", "--profile", "smoke", "--seeds", "0", "--epochs", "1")
    with ThreadPoolExecutor() as pool:
        results = [*pool.map(lambda _: uwml_anew(tmp_path, *arguments), range(2))]
    assert [result.returncode for result in results] == [0, 0], results
    texts = [result.stdout for result in results]
    assert sum("another process is at work here; waiting for it" in text for text in texts) == 1
    waited = next(text for text in texts if "waiting for it" in text)
    assert waited.count("finished before") + waited.count("executed before") >= 1
    tables = [text[text.index("## scenes_smoke") : text.index("\nDone in")] for text in texts]
    assert tables[0] == tables[1]
