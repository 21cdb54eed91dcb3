"""Sentences about experiments: each follows from the numbers, whichever way they fall."""

import json
from pathlib import Path

import pytest

from tests.studies.test_other_models import results
from uwml_lib.config import FIDELITY, ExperimentConfig
from uwml_lib.reports.findings import findings, in_short
from uwml_lib.reports.tables import models_table
from uwml_lib.runs import Run
from uwml_lib.runs.checkpoints import RECORDS
from uwml_lib.runs.groups import Experiment

N_IMAGES = 40


def ranks(rsum: float) -> dict[str, list[int]]:
    """The better, the more images are found at once; the others, by no cut."""
    found = [0 if image < (rsum - 370) / 2 else 20 for image in range(N_IMAGES)]
    return {"image_to_text_ranks": found, "text_to_image_ranks": found}


def runs(rsums: dict[int, float], folder: Path = Path(), **settings) -> tuple[Run, ...]:
    """A run for each seed, with its rsum."""
    configs = {seed: ExperimentConfig(seed=seed, **settings) for seed in rsums}
    return tuple(
        Run(folder / config.run_name("x"), {**results(config, rsums[seed]), "ranks": ranks(rsums[seed])})
        for seed, config in configs.items()
    )


def readings(runs, gap: float) -> None:
    """What a training noted in its last epoch: positives above their hardest negatives by this much."""
    for run in runs:
        run.folder.mkdir()
        line = {"kind": "step", **dict.fromkeys(RECORDS["step"], 7)}
        line |= {"positive_score": 0.5 + gap, "hardest_negative_score": 0.5}
        (run.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")


def test_two_losses():
    both = runs({0: 400.0, 1: 402.0}, loss="triplet") + runs({0: 410.0, 1: 412.0})
    (sentence,) = findings("reproduce", Experiment("scenes", both))
    assert sentence.startswith(
        "On scenes (40 test images, SCAN, i2t Mean): triplet 401.0 ± 1.4, polynomial 411.0 ± 1.4"
    )
    assert "not decided: the seeds do not differ" in sentence


@pytest.mark.parametrize(
    ("fitted", "words"),
    [
        ({0: 420.0, 1: 421.0}, "by +10.0 [-2.7, +22.7] against the released ones: no difference is shown."),
        ({0: 430.0, 1: 432.0}, "by +20.5 [+1.4, +39.6] against the released ones: a difference is shown."),
    ],
)
def test_all_losses(fitted, words):
    compared = runs({0: 440.0, 1: 441.0}, loss="infonce") + runs({0: 411.0, 1: 410.0})
    chosen = runs(fitted, loss_options={"negative": [0, 0, 0.9]})
    rank, coefficients = findings("compare", Experiment("scenes", compared, coefficients=chosen))
    assert "Among 2 losses on scenes" in rank
    assert "the highest means have infonce 440.5 ± 0.7, polynomial 410.5 ± 0.7. The polynomial loss" in rank
    assert "has 410.5 ± 0.7; shown to be ahead of it: infonce; behind it: none; undecided: the others." in rank
    assert words in coefficients
    assert findings("compare", Experiment("scenes", runs({0: 1.0}, loss="infonce"))) == []


def test_habits():
    plain, siblings = runs({0: 400.0, 1: 410.0}), runs({0: 390.0, 1: 400.5}, siblings="negatives")
    every = runs({0: 420.0, 1: 409.0}, **FIDELITY["released"])
    (sentence,) = findings("fidelity", Experiment("scenes", plain, released=siblings + every))
    assert "siblings as negatives -9.8 [-12.9, -6.6]; all four +9.5 [" in sentence
    assert sentence.endswith("an effect of siblings as negatives is shown.")
    (sentence,) = findings("fidelity", Experiment("scenes", plain, released=every))
    assert sentence.endswith("no effect is shown.")
    assert findings("fidelity", Experiment("scenes", plain)) == []


def test_models(tmp_path):
    better = runs({0: 400.0, 1: 401.0}, loss="triplet") + runs({0: 420.0, 1: 421.5})
    worse = runs({0: 400.0, 1: 401.0}, loss="triplet", model="vse") + runs({0: 380.0, 1: 381.5}, model="vse")
    open_ = runs({0: 400.0, 1: 390.0}, loss="triplet", model="bfan") + runs({0: 395.0, 1: 401.5}, model="bfan")
    settings = {"folder": tmp_path, "model": "frozen", "captions": "vectors"}
    equal = runs({0: 400.0, 1: 401.0}, loss="triplet", **settings) + runs({0: 380.0, 1: 381.5}, **settings)
    readings(equal[:2], gap=0.2)
    readings(equal[2:], gap=0.001)
    experiment = Experiment("scenes", better + worse + open_ + equal)
    (sentence,) = findings("models", experiment)
    assert sentence == (
        "Which loss is shown to be ahead on scenes, model by model: the polynomial loss with SCAN (i2t Mean); the "
        "triplet loss with VSE++; neither with BFAN; nothing to compare, as trainings collapsed to nearly equal "
        "scores, with Frozen embeddings (linear)."
    )
    assert list(models_table(experiment)["collapsed"]) == ["", "", "", "polynomial"]
    words = "is shown to be ahead in {}, the triplet loss in {}, neither in {}"
    counted = in_short([("models", experiment), ("reproduce", Experiment("scenes", better))])  # which is one of them
    assert "of 4 comparisons" in counted
    assert words.format(1, 1, 1) + "; in 1 trainings collapsed." in counted
    assert words.format(1, 0, 0) + "." in in_short([("reproduce", Experiment("scenes", better))])
    assert in_short([("fidelity", Experiment("scenes", better))]) == ""
