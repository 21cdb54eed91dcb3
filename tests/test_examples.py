"""The examples run, learn something, and printed what is committed."""

import os
import re
import runpy
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from tests.tables import cells
from uwml_lib.config import preset
from uwml_lib.losses import PolynomialLoss
from uwml_lib.support.paths import CHECKOUT
from uwml_lib.weighting import one_anchor, pair_weights

CHAPTER = (CHECKOUT / "uwml_lib/reports/site/chapters/pages/use_the_loss.md").read_text(encoding="utf-8")
PRINTED = (CHECKOUT / "examples" / "digits_retrieval.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def digits_retrieval():
    return runpy.run_path(str(CHECKOUT / "examples" / "digits_retrieval.py"))


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a Markdown table by the names of their columns."""
    columns, _, *rows = cells(text)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def table(text):
    """The table's rows: name -> cells."""
    return {name: values for name, *values in cells(text)[2:]}


def test_every_loss_learns(digits_retrieval):
    short, published = table(digits_retrieval["main"](seeds=[0], steps=30)), table(PRINTED)
    assert short.keys() == published.keys()
    assert short["pixels"] == published["pixels"]
    untrained = float(short["network, untrained"][0])
    for name in digits_retrieval["LOSSES"]:
        assert float(short[name][0]) > untrained + 10, name


def test_what_is_searched_was_never_seen(digits_retrieval):
    (_, seen), (images, searched) = digits_retrieval["written_numbers"]()
    assert set(seen.tolist()).isdisjoint(searched.tolist())
    assert len(set(seen.tolist()) | set(searched.tolist())) == 100
    assert images.min() >= 0
    assert images.max() == 1


def test_recalls_by_plain_loops(digits_retrieval):
    angles = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 85.0, 88.0, 90.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 1, 0, 1, 2, 2, 3, 4, 4, 4])
    found = {1: 0, 2: 0, 4: 0, 8: 0}
    for i in range(10):
        others = sorted((abs(float(angles[i] - angles[j])), int(labels[j])) for j in range(10) if j != i)
        for k in found:
            found[k] += int(labels[i]) in [label for _, label in others[:k]]
    assert digits_retrieval["recalls"](embeddings, labels) == pytest.approx([10 * n for n in found.values()])


def test_the_chapter_quotes_what_was_printed():
    for name, recalls in table(PRINTED).items():
        if name in ("pixels", "polynomial", "triplet", "multi-similarity"):
            assert f"{recalls[0]} {name}" in CHAPTER
    verdicts = [line for line in PRINTED.splitlines() if line.startswith("- ")]
    assert len(verdicts) == 4
    assert all(line.endswith(", undecided") for line in verdicts)


def test_the_chapters_coefficients_for_cosines_pull_and_push_the_right_way():
    (block,) = (
        block for block in re.findall(r"```python\n(.*?)```", CHAPTER, flags=re.DOTALL) if "polynomials" in block
    )
    names = {}
    exec(block, names)
    loss = PolynomialLoss(**names["polynomials"], positive_ceiling=None)
    for p in torch.linspace(-0.99, 0.99, 12).tolist():
        for n in torch.linspace(p - 0.19, 0.99, 12).tolist():
            weights = pair_weights(loss, one_anchor(p, n))
            assert weights.positive[0] > 0
            assert (weights.negative[0, 1] > 0) == (n > -1)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", CHAPTER, flags=re.DOTALL))
def test_what_the_chapter_shows_runs(block):
    extras = {
        "losses.open_clip": "open_clip",
        "losses.sentence": "sentence_transformers",
        "losses.pml": "pytorch_metric_learning",
    }
    for module in (module for word, module in extras.items() if word in block):
        try:
            import_module(module)
        except (ImportError, RuntimeError) as error:  # torchvision without its compiled operators
            pytest.skip(f"{module}: {error}")
    exec(block, {})


def test_weights_of_no_loss_train(capsys):
    example = runpy.run_path(str(CHECKOUT / "examples" / "weights_of_your_own.py"))
    pull, push = example["pull"], example["push"]
    for p, n in ((0.6, 0.5), (0.2, 0.7)):
        weights = pair_weights(example["LOSSES"]["weights of NCA and linear"], one_anchor(p, n))
        chance = 1 / (1 + 2.718281828459045 ** (10 * (p - n)))
        assert weights.positive[0].item() == pytest.approx(chance * (1 - p) / 2)  # the mean over two anchors
        assert weights.negative[0, 1].item() == pytest.approx(chance * n / 2)
    p, n = torch.tensor(0.6, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    (across,) = torch.autograd.grad(-pull(p, n), n)
    (back,) = torch.autograd.grad(push(p, n), p)
    assert abs(across - back) > 0.1  # of a loss the two would be its one mixed derivative
    example["main"](steps=40)
    printed = capsys.readouterr().out
    recalls = [float(recall) for recall in re.findall(r"R@1 ([\d.]+) of 0.5 by chance", printed)]
    assert len(recalls) == 2
    assert min(recalls) > 20


def run(name, **settings):
    return runpy.run_path(str(CHECKOUT / "examples" / f"{name}.py"))["main"](**settings)


def test_in_pytorch_metric_learning():
    for before, after in run("with_pytorch_metric_learning").values():
        assert after > before + 20


def test_in_sentence_transformers():
    before, after = run("with_sentence_transformers")
    assert before < 10
    assert after > 80


def test_in_open_clip():
    before, after = run("with_open_clip", steps=150)
    assert before < 10
    assert after > 50


def in_small(home, name: str, *arguments) -> list[list[dict[str, str]]]:
    """Run an example that trains, on tiny data, and return the rows of each of its tables."""
    call = f"import runpy; runpy.run_path({str(CHECKOUT / 'examples' / name)!r})['main']{('scenes_smoke', *arguments)}"
    environment = {**os.environ, "UWML_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [rows_of(table) for table in done.stdout.strip().split("\n\n")]


@pytest.mark.slow
def test_the_level_of_scores_is_counted_over_seeds(tmp_path):
    changes = ("triplet loss, the preset", "polynomial loss")
    short, full = in_small(tmp_path, "two_levels.py", (0, 1), changes, (0,))
    for found in short:
        assert re.fullmatch(r"[012] of 2", found["seeds that go down"])
        assert bool(found["their positives"]) == (found["seeds that go down"] != "0 of 2")
        assert re.fullmatch(r"\d+ steps", found["decided after at most"])
    assert len(full) == 7
    for found in full:
        assert re.fullmatch(r"[01] of 1", found["seeds that end below 0"])
        assert found["lowest to highest"] == "{0} to {0}".format(found["dev rsum"])


@pytest.mark.slow
def test_the_setting_for_both_losses_is_the_best_of_the_worse(tmp_path):
    (found,) = in_small(tmp_path, "one_setting_for_both.py", 2, (1000,), 1, (1003, 1004))
    assert len(found) == 4  # two that were drawn, and two beyond
    for row in found:
        means = [float(row[f"{loss}, dev rsum"].split(" ")[0]) for loss in ("triplet", "polynomial")]
        assert float(row["the worse"]) == min(means)
    in_full, [short] = found[:3], found[3:]
    assert min(float(row["the worse"]) for row in in_full) >= float(short["the worse"])
    assert short["worst in full"] == ""
    worst = [float(row["worst in full"]) for row in in_full]
    assert worst == sorted(worst, reverse=True)
    for row in in_full:
        lowest = [float(row[f"{loss}, in full"].split(" to ")[0]) for loss in ("triplet", "polynomial")]
        assert float(row["worst in full"]) == min(lowest)


def test_scenes_have_the_setting_that_serves_both_losses():
    chosen, *_ = rows_of((CHECKOUT / "examples" / "one_setting_for_both.md").read_text(encoding="utf-8"))
    config = preset("scenes")
    names = ("embed_size", "batch_size", "learning_rate", "lambda_softmax", "warmup_epochs")
    assert [float(chosen[name]) for name in names] == [getattr(config, name) for name in names]
