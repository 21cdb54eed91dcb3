"""Ranges of what is tuned: a loss's own, edges, and what lies beyond."""

import pytest

from uwml_lib import config
from uwml_lib.losses import LOSSES
from uwml_lib.studies import ranges

PLACES = {"learning_rate": 1.5e-3, "batch_size": 64, "warmup_epochs": 1, "lambda_softmax": 9.0, "loss.margin": 0.2}
ENDS = ranges.ends_of(10_000)


def test_every_loss_has_ranges_that_it_takes_and_its_defaults_lie_within():
    assert ranges.OWN.keys() == LOSSES.keys()
    for loss in LOSSES:
        space = ranges.space_of(config.ExperimentConfig(loss=loss))
        assert space.keys() >= {"learning_rate", "batch_size", "warmup_epochs", "lambda_softmax"}
        defaults = {name: getattr(LOSSES[loss](), name.removeprefix("loss.")) for name in ranges.OWN[loss]}
        for name, value in defaults.items():
            assert space[name]["low"] <= value <= space[name]["high"], (loss, name)
    assert "lambda_softmax" not in ranges.space_of(config.ExperimentConfig(model="vse_infinity"))


@pytest.mark.parametrize(
    ("name", "value", "wider"),
    [
        ("learning_rate", 5.9e-3, (3e-4, 0.0268)),
        ("learning_rate", 3.1e-4, (6.71e-5, 6e-3)),
        ("learning_rate", 2e-3, None),
        ("lambda_softmax", 30.0, (3.0, 94.9)),
        ("warmup_epochs", 2, (0, 3)),
        ("warmup_epochs", 0, None),
        ("batch_size", 128, [32, 64, 128, 256]),
        ("batch_size", 32, [16, 32, 64, 128]),
        ("batch_size", 64, None),
    ],
)
def test_a_range_is_widened_where_its_edge_is_chosen(name, value, wider):
    space = {**ranges.SHARED, **ranges.MARGIN}
    values = {**PLACES, name: value}
    assert ranges.edges(space, values, ENDS) == ([name] if wider else [])
    found = ranges.widened(space, values, ENDS)
    expected = wider if not isinstance(wider, tuple) else {**space[name], "low": wider[0], "high": wider[1]}
    assert found == (space if wider is None else {**space, name: expected})


def test_a_range_ends_where_nothing_lies_beyond():
    space = {"warmup_epochs": {"low": 0, "high": 3}, "loss.base": {"low": 0.0, "high": 0.9}}
    values = {"warmup_epochs": 3, "loss.base": 0.9}
    space = ranges.widened(space, values, ENDS)
    assert space == {"warmup_epochs": {"low": 0, "high": 4}, "loss.base": {"low": 0.0, "high": 1.0}}
    assert ranges.edges(space, {"warmup_epochs": 4, "loss.base": 1.0}, ENDS) == []
    assert ranges.edges(space, {"warmup_epochs": 3, "loss.base": 0.0}, ENDS) == ["loss.base"]


@pytest.mark.parametrize(("captions", "wider"), [(255, False), (256, True)])
def test_batches_are_widened_as_far_as_the_captions_go(captions, wider):
    ends, values = ranges.ends_of(captions), {**PLACES, "batch_size": 128}
    space = {**ranges.SHARED, **ranges.MARGIN}
    assert ranges.edges(space, values, ends) == ["batch_size"] * wider
    assert ranges.widened(space, values, ends)["batch_size"] == [32, 64, 128] + [256] * wider


@pytest.mark.parametrize(
    ("name", "value", "beyond"),
    [
        ("learning_rate", 5.25528e-3, 0.0111),
        ("learning_rate", 3e-4, 1.42e-4),
        ("learning_rate", 0.05, 0.106),  # of another tuning
        ("batch_size", 128, 256),
        ("batch_size", 32, 16),
        ("warmup_epochs", 2, 3),
        ("warmup_epochs", 4, 4),
        ("loss.base", 0.9, 1.0),
    ],
)
def test_a_step_beyond_an_edge(name, value, beyond):
    space = {**ranges.SHARED, **ranges.OWN["multi_similarity"]}
    found = ranges.beyond(space, name, value, ENDS)
    assert found == beyond and type(found) is type(value)
