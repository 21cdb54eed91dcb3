"""The yardsticks of the benchmarks give the kit's numbers, and what they report is what they found."""

import json
import re
import sys

import matplotlib.pyplot as plt
import pytest
import torch

from tests.models.test_cross_attention import random_inputs
from uwml_lib.config import preset
from uwml_lib.evaluation import Interval
from uwml_lib.losses import PolynomialLoss
from uwml_lib.models import cross_attention_scores
from uwml_lib.reports.site.results import BENCHMARKS
from uwml_lib.support.paths import CHECKOUT, PERFORMANCE

DIRECTIONS = ("i2t", "t2i")


@pytest.fixture
def benchmarks(monkeypatch, tmp_path):
    """The folder of the benchmarks on the path, so that they find each other; reports go elsewhere."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    names = ("loops", "measuring", "step", "evaluation", "training", "precision")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    modules = {name: __import__(name) for name in names}
    monkeypatch.setattr(modules["measuring"], "FOLDER", tmp_path)
    yield modules
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_loop_has_the_scores_of_the_kit(benchmarks, direction):
    images, captions, lengths = random_inputs(1, 5, 6, 4, 7, 8)
    expected = cross_attention_scores(images, captions, lengths, direction, implementation="plain")
    torch.testing.assert_close(benchmarks["loops"].loop_scores(images, captions, lengths, direction), expected)


def test_the_loop_has_the_loss_of_the_kit(benchmarks):
    scores = torch.rand(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    forms = (benchmarks["loops"].loop_loss, PolynomialLoss())
    (ours, ours_grad), (theirs, theirs_grad) = (
        (value.detach(), torch.autograd.grad(value, scores)[0]) for value in (form(scores) for form in forms)
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours_grad, theirs_grad)
    assert theirs_grad.abs().max() > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_candidate_of_the_step_has_the_same_gradients(benchmarks, direction):
    step = benchmarks["step"]
    batch = step.inputs(batch=6, regions=5, words=(3, 7), width=16)
    expected, *others = (
        torch.cat([gradient.flatten() for gradient in call()])
        for name, call in step.calls(direction, batch).items()
        if name != "floor"
    )
    for found, tolerance in zip(others, (0.1, 1e-4, 1e-4, 1e-4), strict=True):  # bfloat16 products first
        assert (found - expected).norm() <= tolerance * expected.norm()
    error = step.accuracy(direction, batch, "bf16")
    assert 0 < error["scores"] < 0.02
    assert 0 < error["gradients"] < 0.1


def test_the_floor_is_the_products_of_valid_words(benchmarks, monkeypatch):
    step = benchmarks["step"]
    batch = step.inputs(batch=4, regions=3, words=(2, 5), width=8)
    shapes = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: shapes.append((*a.shape, b.shape[1])) or product(a, b))
    step.floor(batch)()
    words = int(batch[2].sum())
    assert shapes == [(12, 8, words), (12, words, 8), (words, 12, 8)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_scored_is_what_the_loop_would_score(benchmarks, direction):
    evaluation = benchmarks["evaluation"]
    model, split = evaluation.Embedded(direction), evaluation.Split(3)
    found = evaluation.score_matrix(model, split)
    tokens, lengths = evaluation.pad_captions(split.encoded)
    expected = benchmarks["loops"].loop_scores(split.images(0, 3), model.words(tokens), lengths, direction)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_candidates_take_turns(benchmarks):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = benchmarks["measuring"].take_turns(calls, rounds=2)
    assert order == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def test_what_is_reported(benchmarks, tmp_path, capsys):
    measuring = benchmarks["measuring"]
    targets = [measuring.Target("fast", 12, 10), measuring.Target("slow", 1.5, 1.4, at_most=True)]
    rows = [{"what": "kit", "seconds": "1"}, {"what": "loop", "seconds": "12"}]
    measuring.report("name", "A title", rows, plt.figure(), "in words", "what limits it", targets, seconds={"kit": 1})
    printed = capsys.readouterr().out
    assert "| what | seconds |\n| --- | --- |\n| kit | 1 |\n| loop | 12 |" in printed
    assert "fast: 12, wanted at least 10: met" in printed
    assert "slow: 1.5, wanted at most 1.4: missed" in printed
    found = json.loads((tmp_path / "name.json").read_text())
    assert found["seconds"] == {"kit": 1}
    assert found["rows"] == rows
    assert {"commit", "machine", "command"} <= set(found["provenance"])
    assert (tmp_path / "name.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_at_the_peak(benchmarks):
    kept = []
    found = benchmarks["measuring"].peak_beyond_now(lambda: kept.append(torch.ones(60 * 10**6)))
    assert 200e6 < found < 600e6


def test_losses_from_embeddings_are_measured(benchmarks, monkeypatch):
    monkeypatch.delitem(sys.modules, "embeddings", raising=False)
    script = __import__("embeddings")
    monkeypatch.setattr(script, "ROWS", 8)
    calls = script.candidates(20)
    plain, kit = (torch.cat([each.flatten() for each in calls[name]()]) for name in ("plain", "kit"))
    assert (plain - kit).norm() <= 1e-4 * plain.norm()
    multiplied = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: multiplied.append(len(a) * b.shape[1]) or product(a, b, out=out))
    calls["product"]()
    assert multiplied == [8 * 20, 8 * 20, 4 * 20]
    monkeypatch.setattr(script, "peak_memory", lambda name, n: 1e6)
    monkeypatch.setattr(script, "MEMORY_FROM", 40)
    rows, seconds, megabytes = script.measure((16, 40))
    assert [row["pairs"] for row in rows] == ["16", "40"]
    assert seconds[16].keys() == {"product", "kit", "infonce", "plain"}
    assert megabytes[16] == {}
    assert megabytes[40]["kit"] == pytest.approx(1 - 2 * 40 * 512 * 4 / 1e6)
    assert float(rows[0]["polynomial / product"]) == pytest.approx(
        seconds[16]["kit"] / seconds[16]["product"], abs=0.01
    )
    sys.modules.pop("embeddings")


def test_the_page_shows_whatever_is_measured():
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    (measured,) = re.findall(r"for part in ([a-z ]+); do .*benchmarks/", makefile)
    assert set(measured.split()) <= set(BENCHMARKS)
    assert {path.stem for path in PERFORMANCE.glob("*/*.json")} <= set(BENCHMARKS)


def test_every_seed_is_trained_in_both_precisions(benchmarks, monkeypatch):
    precision = benchmarks["precision"]
    monkeypatch.setattr(precision, "train_all", lambda configs: configs)
    found = precision.trainings(preset("scenes"), seeds=2)
    assert {name: [(run.mixed_precision, run.seed) for run in runs] for name, runs in found.items()} == {
        "float32": [("no", 0), ("no", 1)], "bf16": [("bf16", 0), ("bf16", 1)],
    }  # fmt: skip


@pytest.mark.parametrize(("low", "high", "seeds"), [(-5.0, 0.9, 5), (-1.0, 5.1, 10)])
def test_an_interval_that_is_too_wide_is_given_more_seeds(benchmarks, monkeypatch, low, high, seeds):
    precision = benchmarks["precision"]
    monkeypatch.setattr(precision, "train_all", lambda configs: configs)
    monkeypatch.setattr(precision, "apart", lambda runs: Interval(0.0, low, high))
    runs = precision.trained_enough(preset("scenes"))
    assert {name: [run.seed for run in of] for name, of in runs.items()} == dict.fromkeys(runs, [*range(seeds)])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-2.9, 1.0, "2.9, wanted at most 3: met"), (-0.5, 3.2, "3.2, wanted at most 3: missed")],
)
def test_a_difference_lies_within_only_as_a_whole(benchmarks, low, high, words):
    assert str(benchmarks["precision"].within(Interval(0.0, low, high))).endswith(words)


def test_a_step_in_bf16_is_timed_beside_one_in_float32(benchmarks):
    found = benchmarks["precision"].times((8,), batch=4, regions=3, features=5, vocabulary=9, words=(3, 5))
    assert found[8].keys() == {"float32", "bf16"} and min(found[8].values()) > 0
