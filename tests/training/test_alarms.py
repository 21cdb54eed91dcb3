"""What a training says of itself where nothing fails and yet nothing is learnt; and that it never says so wrongly."""

import json
import re
from dataclasses import replace

import pytest

from tests.tiny import write_tiny
from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import chance_rsum
from uwml_lib.losses import InfoNCELoss, PolynomialLoss, TripletLoss
from uwml_lib.runs.run import stands_still
from uwml_lib.support.files import read_json
from uwml_lib.support.paths import CHECKOUT
from uwml_lib.training import build_loss, train, trainer
from uwml_lib.training.alarms import alarms

CONFIG = ExperimentConfig(epochs=8, warmup_epochs=2)
EQUAL = {"epoch": 3, "loss": 25.72, "positive_score": 0.296, "hardest_negative_score": 0.297, "gradient_norm": 3.8}


def of(steps, loss=None, rsum=98.9, config=CONFIG):
    return [*alarms(config, loss or TripletLoss(), steps, rsum, 10.6)]


def test_equal_scores_are_said_with_what_chance_gives_and_what_to_do():
    (said,) = of([{**EQUAL, "loss": 25.70}, {**EQUAL, "loss": 25.74}], TripletLoss(reduction="sum"))
    assert said == (
        "the loss is that of equal scores (25.72; positives 0.296, hardest negatives 0.297), the rsum 98.9, chance "
        "10.6: if the rsum does not go on rising, the training has collapsed; then raise warmup_epochs, now 2 (8 takes "
        "all informative negatives to the end), or lower learning_rate, or "
        'take "reduction": "mean" in loss_options, whose gradient is clipped less'
    )
    for dense in (of([EQUAL], InfoNCELoss()), of([EQUAL], PolynomialLoss(), config=replace(CONFIG, warmup_epochs=8))):
        assert dense[0].endswith("the training has collapsed; then lower learning_rate")


def test_no_alarm_in_the_first_epoch_nor_with_a_good_rsum_nor_with_scores_apart():
    assert of([{**EQUAL, "epoch": 0}]) == []
    assert of([EQUAL], rsum=351.0) == []
    assert of([{**EQUAL, "positive_score": 0.31}]) == []


@pytest.mark.parametrize("norm", [0.0, None])
def test_steps_without_a_gradient_are_said(norm):
    (said,) = of([{**EQUAL, "gradient_norm": norm}], rsum=351.0)
    assert said.startswith("no step of this epoch had a gradient that is finite and not zero (loss 25.72): nothing was")
    assert of([{**EQUAL, "gradient_norm": norm}, EQUAL], rsum=351.0) == []


@pytest.mark.parametrize(("rsum", "still"), [(246.0, True), (247.0, False)])
def test_still_is_less_than_two_fifths_of_the_way_from_chance(rsum, still):
    assert stands_still(-0.004, rsum, 10.6) == still


def test_the_published_trainings_raise_no_false_alarm():
    alarmed, count = {}, 0
    for path in sorted((CHECKOUT / "reports/reference").rglob("metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        config = ExperimentConfig.from_dict(read_json(path.with_name("config.json"))["config"])
        results, count = read_json(path.with_name("results.json")), count + 1
        images = config.selection_images or results["features"]["dev"][0]
        chance, loss = chance_rsum(images, results["captions_per_image"]), build_loss(config)
        for epoch in (line for line in lines if line["kind"] == "epoch"):
            steps = [line for line in lines if line["kind"] == "step" and line["epoch"] == epoch["epoch"]]
            for _ in alarms(config, loss, steps, epoch["dev_rsum"], chance):
                alarmed.setdefault(path.parent.name, []).append(epoch["epoch"] + 1)
    assert count > 100
    without_warmup = ["polynomial-seed0-nowarmup-dea3be0a", "triplet-seed0-nowarmup-a08cfd57"]
    collapsed = ["polynomial-seed1-81b05a2d", "triplet-seed6-b2040be2"]  # VSE∞ and SCAN, to the end
    slow = {"polynomial-seed2-f0d00ef5": [2]}  # dual encoding, which rises from there: "if the rsum does not"
    assert alarmed == dict.fromkeys(without_warmup, [2, 3, 4]) | dict.fromkeys(collapsed, [3, 4, 5, 6, 7, 8]) | slow


def test_a_training_says_its_alarms_after_every_epoch(tmp_path, monkeypatch):
    def every(config, loss, steps, rsum, chance):
        yield f"steps {[step['step'] for step in steps]} of epoch {steps[0]['epoch']}, rsum {rsum:.1f}, {chance:.2f}"

    monkeypatch.setattr(trainer, "alarms", every)
    write_tiny(tmp_path / "tiny", {"train": 8, "dev": 12})
    small = {"embed_size": 4, "word_dim": 4, "epochs": 2, "batch_size": 8, "log_every": 1, "device": "cpu"}
    said = []
    train(ExperimentConfig("tiny", str(tmp_path), **small), tmp_path / "run", said.append)
    for epoch, (line, alarm) in enumerate(zip(said[1:5:2], said[2:5:2], strict=True)):
        rsum = re.search(r"dev rsum ([0-9.]+)", line)[1]
        expected = f"steps [1, 2] of epoch {epoch}, rsum {rsum}, {chance_rsum(12, 2):.2f}"
        assert alarm == f"polynomial seed 0, no warm-up: {expected}"
