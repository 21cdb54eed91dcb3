"""The comparison of all losses: fair by construction."""

from dataclasses import replace

import pytest

from uwml_lib.config import preset
from uwml_lib.losses import LOSSES, PolynomialLoss
from uwml_lib.studies.compare import GRID, NO_DEAD_ZONE, best
from uwml_lib.studies.engine import check_seeds
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import check_config


def test_every_loss_gets_the_same_number_of_settings_and_its_defaults_first():
    assert set(GRID) == set(LOSSES)
    for loss, settings in GRID.items():
        assert len(settings) == 3
        assert settings[0] == {}
        for options in settings:
            check_config(replace(preset("scenes"), loss=loss, loss_options=options))
        built = {repr(LOSSES[loss](**options)) for options in settings}
        assert len(built) == 3, f"{loss}: two settings are the same loss"


def test_the_best_is_by_dev_and_the_first_of_equals():
    class Done:
        def __init__(self, dev_rsum, options):
            self.results, self.config = (
                {"dev_rsum": dev_rsum, "metrics": {"rsum": -dev_rsum}},
                {"loss_options": options},
            )

    runs = [Done(1.0, "a"), Done(3.0, "b"), Done(3.0, "c"), Done(2.0, "d")]
    assert best(runs) == "b"


def test_without_a_dead_zone():
    assert PolynomialLoss(**NO_DEAD_ZONE).negative == (0.0, 0.0, 0.9)


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds(seeds):
    with pytest.raises(UWMLError, match="seeds: found"):
        check_seeds(seeds)
