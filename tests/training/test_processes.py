"""Several processes as one: the same losses, gradients, metrics and weights as a single process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import write_tiny
from uwml_lib.cli import main
from uwml_lib.config import ExperimentConfig
from uwml_lib.models import SCAN, VSE
from uwml_lib.runs import read_metrics
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import check_config
from uwml_lib.training.processes import ScoresOfAll, gather, gather_captions, launched, process_count

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
@pytest.mark.parametrize(
    ("model", "loss", "batches"),
    [
        ("scan", "polynomial", "shuffled"),
        ("scan", "infonce", "shuffled"),
        ("vse_infinity", "polynomial", "shuffled"),
        ("vse_infinity", "infonce", "shuffled"),
        ("scan", "polynomial", "no_duplicates"),
    ],
)
def test_two_processes_train_as_one(base, model, loss, batches):
    # A small rate, for Adam makes much of the last bits of float32.
    options = ("--epochs", "3", "--model", model, "--loss", loss, "--batches", batches, "--learning-rate", "0.003")
    name = f"{model}-{loss}-{batches}"
    for processes in (1, 2):
        printed = train(base, f"{name}-{processes}", processes, *options)
        assert printed.count("test split, best epoch") == 1  # one of them speaks for all
    alone, together = (base / f"{name}-{processes}" for processes in (1, 2))
    assert_same(alone, together, abs=1e-3, rel=1e-3)
    (first, *_), (other, *_) = metrics(alone), metrics(together)
    assert first["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-5)
    assert first["loss"] == pytest.approx(other["loss"], rel=1e-6)


@pytest.mark.slow
def test_torchrun_trains_the_same(base):
    train(base, "ours", 2, "--epochs", "2")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    _, _, *arguments = command(base, "torchruns", 2, "--epochs", "2")[:-2]  # without --processes 2
    subprocess.run([sys.executable, "-m", *torchrun, "-m", *arguments], check=True)
    assert_same(base / "ours", base / "torchruns", abs=0, rel=0)


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "after"), [("1", "epoch"), ("0", "(step|epoch)")])
def test_a_killed_process_ends_the_others_with_a_sentence_and_the_run_goes_on(base, minutes, after):
    options = ("--epochs", "20", "--checkpoint-minutes", minutes)
    whole, killed = f"whole{minutes}", f"killed{minutes}"
    train(base, whole, 2, *options)
    job = subprocess.Popen(
        command(base, killed, 2, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not any(line["kind"] == "epoch" for line in read_metrics(base / killed)):
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
    assert re.search(f"goes on after {after}", train(base, killed, 2, *options))
    assert_same(base / whole, base / killed, abs=0, rel=0)


MEASURE = """
import json, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode
from uwml_lib.losses import InfoNCELoss
from uwml_lib.models import SCAN
from uwml_lib.training.processes import ScoresOfAll

def sent():
    lines = open("/proc/net/dev").read().splitlines()
    return sum(int(line.split(":")[1].split()[8]) for line in lines[2:])

torch.set_num_threads(1)
dist.init_process_group("gloo")
processes, mine = dist.get_world_size(), dist.get_rank()
batch, regions, words, dim = json.loads(sys.argv[1])
torch.manual_seed(0)
model = DistributedDataParallel(ScoresOfAll(SCAN(5, 7, dim, 4)))
features, tokens = torch.rand(batch, regions, 5), torch.randint(7, (batch, words))
share = slice(mine * batch // processes, (mine + 1) * batch // processes)
lengths = torch.full((batch // processes,), words)

def step():
    InfoNCELoss(check_finite=False)(model(features[share], tokens[share], lengths)).backward()

step()
found = []
for _ in range(8):
    dist.barrier()
    before = sent()
    dist.barrier()
    step()
    dist.barrier()
    found.append(sent() - before)
    dist.barrier()
with torch.no_grad():
    model, lengths = model.module.model, torch.full((batch,), words)
    images, captions = model.embed_images(features[share]), model.embed_captions(tokens, lengths)
    with FlopCounterMode(display=False) as counter:
        model.scores(images, captions, lengths)
weights = sum(weight.numel() for weight in model.parameters())
if mine == 0:
    print(json.dumps([min(found), counter.get_total_flops(), weights]))
dist.barrier()
"""


class StepCosts(NamedTuple):
    """Of one of P processes and one step of SCAN i2t on N pairs, of R regions and at most W words of dim numbers.

    gathered: bytes sent for what is to be known to all, the embedded captions and the scores, G = 4 (N W dim + N^2)
    bytes: (P - 1) / P G in the forward pass, twice as many in the backward pass, where gradients are first added up and
    then handed out. averaged: for the gradients of the weights, 2 (P - 1) / P of their bytes. products: multiplications
    and additions of the attention in the forward pass, 2 N W (N / P R (dim + W) + W dim); the last of them is for the
    captions' Gram matrices, which every process needs whole.
    """

    gathered: float
    averaged: float
    products: float


def step_costs(processes: int, batch_size: int, regions: int, words: int, dim: int, weights: int) -> StepCosts:
    share, everything = (processes - 1) / processes, 4 * (batch_size * words * dim + batch_size**2)
    products = 2 * batch_size * words * (batch_size / processes * regions * (dim + words) + words * dim)
    return StepCosts(3 * share * everything, 2 * share * 4 * weights, products)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/net/dev"), reason="bytes are counted by Linux")
def test_bytes_sent_and_products_are_those_worked_out(tmp_path):
    """All bytes that this machine sends within a step, the fewest of several: others may send at the same time."""
    (script := tmp_path / "measure.py").write_text(MEASURE)
    batch, regions, words, dim = 64, 6, 20, 512
    found = {}
    for processes in (1, 2, 4):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        arguments = [*torchrun, str(script), json.dumps([batch, regions, words, dim])]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        found[processes] = json.loads(result.stdout.splitlines()[-1])
    for processes, (sent, products, weights) in found.items():
        costs = step_costs(processes, batch, regions, words, dim, weights)
        if processes > 1:
            assert sent == pytest.approx(processes * (costs.gathered + costs.averaged), rel=0.1)
        assert products == pytest.approx(costs.products, rel=0.01)


PAIR = """
import sys
import torch
import torch.distributed as dist
from uwml_lib.training.processes import gather, gather_captions

dist.init_process_group("gloo")
mine = dist.get_rank()
torch.manual_seed(0)
whole, other = torch.rand(4, 3, 5, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64)
whole.requires_grad_()
part = whole.detach()[2 * mine : 2 * mine + 2].requires_grad_()
captions, lengths = gather_captions(part[:, : 3 - mine], torch.tensor([3 - mine] * 2))
assert captions.shape == (4, 3, 5) and lengths.tolist() == [3, 3, 2, 2]
(gather(part).flatten(1).sum(1)[:, None] * other[:4]).square().sum().backward()
(whole.flatten(1).sum(1)[:, None] * other[:4]).square().sum().backward()
torch.testing.assert_close(part.grad, 2 * whole.grad[2 * mine : 2 * mine + 2])  # both differentiate the whole loss
dist.destroy_process_group()  # a process that ends while the other still talks may abort
"""


def test_gathered_gradients_are_those_of_the_whole(tmp_path):
    (script := tmp_path / "pair.py").write_text(PAIR)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    result = subprocess.run(torchrun, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ("0", "processes: found 0, expected at least 1"),
        ("-1", "processes: found -1, expected at least 1"),
        ("3", "batch_size: found 16, expected a multiple of the 3 processes that share it"),
    ],
)
def test_what_several_processes_cannot_do_is_said_before_any_is_started(processes, words, capsys):
    assert main(["train", "--dataset", "scenes_smoke", "--processes", processes]) == 1
    assert words in capsys.readouterr().err


def test_alone_there_is_nothing_to_gather():
    x, lengths = torch.rand(3, 4, 5), torch.tensor([4, 2, 1])
    assert (process_count(), launched()) == (1, 1)
    assert gather(x) is x
    assert gather_captions(x, lengths) == (x, lengths)


@pytest.mark.parametrize("kind", [SCAN, VSE])
def test_alone_the_scores_are_those_of_the_model(kind):
    model, tokens, lengths = kind(7, 20, 8, 6), torch.randint(1, 20, (5, 6)), torch.tensor([6, 2, 3, 6, 1])
    batch = torch.randn(5, 4, 7), tokens, lengths
    assert torch.equal(ScoresOfAll(model)(*batch), model(*batch))


def test_a_batch_must_have_equal_shares(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UWMLError, match="batch_size: found 128, expected a multiple of the 3 processes that share it"):
        check_config(ExperimentConfig())
