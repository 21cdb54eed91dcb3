"""Sentences about experiments: each follows from the numbers, whichever way they fall."""

from pathlib import Path

import pytest

from tests.test_other_models import results
from uwml_lib.config import FIDELITY, ExperimentConfig
from uwml_lib.findings import findings
from uwml_lib.reporting import Experiment, Run


def runs(rsums: dict[int, float], **settings) -> tuple[Run, ...]:
    """A run for each seed, with its rsum."""
    configs = {seed: ExperimentConfig(seed=seed, **settings) for seed in rsums}
    return tuple(Run(Path(config.run_name("x")), results(config, rsums[seed])) for seed, config in configs.items())


def test_two_losses():
    both = runs({0: 400.0, 1: 402.0}, loss="triplet") + runs({0: 410.0, 1: 412.0})
    (sentence,) = findings("reproduce", Experiment("scenes", both))
    assert sentence.startswith("On scenes (6 test images, SCAN, i2t Mean): triplet 401.0 ± 1.4, polynomial 411.0 ± 1.4")
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
    assert "is number 2 by the mean (410.5 ± 0.7); first is infonce (440.5 ± 0.7)" in rank
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


def test_models(monkeypatch):
    better = runs({0: 400.0, 1: 401.0}, loss="triplet") + runs({0: 420.0, 1: 421.5})
    worse = runs({0: 400.0, 1: 401.0}, loss="triplet", model="vse") + runs({0: 380.0, 1: 381.5}, model="vse")
    open_ = runs({0: 400.0, 1: 390.0}, loss="triplet", model="bfan") + runs({0: 395.0, 1: 401.5}, model="bfan")
    (sentence,) = findings("models", Experiment("scenes", better + worse + open_))
    expected = "polynomial with SCAN, i2t Mean; triplet with VSE++; neither with BFAN."
    assert sentence == f"Which loss is shown to be ahead on scenes, model by model: {expected}"
