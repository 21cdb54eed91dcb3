"""Several processes as one: the same losses, gradients, metrics and weights as a single process."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import write_tiny
from uwml_lib.checkpoints import read_metrics
from uwml_lib.config import ExperimentConfig
from uwml_lib.distributed import gather, gather_captions, launched, process_count
from uwml_lib.errors import UWMLError
from uwml_lib.training import check_config

SETTINGS = (
    "--embed-size", "8", "--word-dim", "6", "--batch-size", "8", "--learning-rate", "0.01", "--warmup-epochs", "1",
    "--gradient-clip", "0.5", "--log-every", "1",
)  # fmt: skip


def command(base, run, processes, *options):
    options = ("--dataset", "tiny", "--data-root", str(base), "--run-folder", str(base / run), *options)
    return [sys.executable, "-m", "uwml_lib.cli", "train", *SETTINGS, *options, "--processes", str(processes)]


def train(*arguments):
    result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def metrics(folder):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(folder)]


def assert_same(one, other, **tolerance):
    """Metrics of every step, among them the length of the gradient, and of every epoch; and the best weights."""
    for a, b in zip(metrics(one), metrics(other), strict=True):
        assert a.pop("kind") == b.pop("kind")
        assert a == pytest.approx(b, **tolerance)
    weights = [load_file(folder / "checkpoint" / "best.safetensors") for folder in (one, other)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=tolerance["abs"], rtol=tolerance["rel"])
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, other)]
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    write_tiny(folder / "tiny")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", ["scan", "vse_infinity"])
@pytest.mark.parametrize("loss", ["polynomial", "infonce"])
def test_two_processes_train_as_one(base, model, loss):
    options = ("--epochs", "3", "--model", model, "--loss", loss)
    for processes in (1, 2):
        printed = train(base, f"{model}-{loss}-{processes}", processes, *options)
        assert printed.count("test split, best epoch") == 1  # one of them speaks for all
    alone, together = (base / f"{model}-{loss}-{processes}" for processes in (1, 2))
    assert_same(alone, together, abs=1e-3, rel=1e-3)  # Adam makes much of the last bits of float32
    (first, *_), (other, *_) = metrics(alone), metrics(together)
    assert first["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-5)
    assert first["loss"] == pytest.approx(other["loss"], rel=1e-6)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_a_sentence_and_the_run_goes_on(base):
    options = ("--epochs", "20")
    train(base, "whole", 2, *options)
    job = subprocess.Popen(
        command(base, "killed", 2, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not any(line["kind"] == "epoch" for line in read_metrics(base / "killed")):
            assert time.monotonic() < deadline, "no epoch was finished"
            time.sleep(0.05)
        workers = [child for child in psutil.Process(job.pid).children(recursive=True) if "train" in child.cmdline()]
        assert len(workers) == 2
        os.kill(workers[1].pid, signal.SIGKILL)
        _, said = job.communicate(timeout=120)
    finally:
        job.kill()
    assert job.returncode == 1
    assert "was killed by signal 9, and the others were stopped; the same command goes on after the last" in said
    assert "Traceback" not in said
    assert "goes on after epoch" in train(base, "killed", 2, *options)
    assert_same(base / "whole", base / "killed", abs=0, rel=0)


def test_alone_there_is_nothing_to_gather():
    x, lengths = torch.rand(3, 4, 5), torch.tensor([4, 2, 1])
    assert (process_count(), launched()) == (1, 1)
    assert gather(x) is x
    assert gather_captions(x, lengths) == (x, lengths)


def test_a_batch_must_have_equal_shares(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UWMLError, match="batch_size: found 128, expected a multiple of the 3 processes that share it"):
        check_config(ExperimentConfig())
