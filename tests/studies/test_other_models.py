"""Both losses on every model: which runs make a row, and what the row says."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation import paired_bootstrap, paired_interval
from uwml_lib.models import MODELS
from uwml_lib.reports import figures
from uwml_lib.reports import text as reporting
from uwml_lib.reports.tables import models_table
from uwml_lib.runs import Run, by_model
from uwml_lib.runs.groups import Experiment, evaluation_file, scan_pairs
from uwml_lib.studies.models import SETTINGS
from uwml_lib.support import paths
from uwml_lib.support.files import write_sealed_json
from uwml_lib.training import check_config

N_IMAGES, K = 6, 2


def results(config: ExperimentConfig, rsum: float, **others) -> dict:
    generator = np.random.default_rng(int(rsum))
    ranks = {
        "image_to_text_ranks": generator.integers(0, 12, N_IMAGES).tolist(),
        "text_to_image_ranks": generator.integers(0, 12, N_IMAGES * K).tolist(),
    }
    return {"config": config.to_dict(), "split": "test", "metrics": {"rsum": rsum}, "ranks": ranks, **others}


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Experiment:
    """Two seeds of both losses on SCAN's two directions and on VSE++, in no order; one ensemble of four was scored."""
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path)
    settings = [{"model": "scan"}, {"model": "scan", "direction": "t2i"}, {"model": "vse"}]
    configs = [
        ExperimentConfig(loss=loss, seed=seed, **setting)
        for seed, setting, loss in product((1, 0), settings, ("triplet", "polynomial"))
    ]
    runs = [Run(Path(config.run_name("x")), results(config, 400 + 7 * i)) for i, config in enumerate(configs)]
    first = scan_pairs(runs)[0]
    both = results(configs[0], 600, members=[{"run": run.folder.name} for run in first])
    write_sealed_json(evaluation_file("scenes", [run.folder.name for run in first], "test"), both)
    return Experiment("scenes", tuple(runs))


def test_scans_directions_are_paired_by_loss_and_seed(experiment):
    pairs = scan_pairs(experiment.runs)
    assert len(pairs) == 4
    for one, other in pairs:
        assert (one.config["direction"], other.config["direction"]) == ("i2t", "t2i")
        assert {name for name in one.config if one.config[name] != other.config[name]} == {"direction"}


def test_runs_are_found_by_model_and_loss_in_order_of_the_seed(experiment):
    found = by_model(experiment)
    assert list(found) == ["SCAN, i2t Mean", "SCAN, t2i Mean", "VSE++", "SCAN, ensemble"]
    assert [run.config["seed"] for run in found["VSE++"]["triplet"]] == [0, 1]
    assert [len(runs) for runs in found["SCAN, ensemble"].values()] == [1]


def test_a_row_is_what_its_runs_say(experiment):
    whole = replace(experiment, runs=tuple(run for run in experiment.runs if run.config["model"] == "vse"))
    row = models_table(whole).loc["VSE++"]
    of = {(run.config["loss"], run.config["seed"]): run.metrics["rsum"] for run in whole.runs}
    triplet, polynomial = ([of[loss, seed] for seed in (0, 1)] for loss in ("triplet", "polynomial"))
    assert row["triplet rsum"] == f"{np.mean(triplet):.1f} ± {np.std(triplet, ddof=1):.1f}"
    assert row["polynomial − triplet, over seeds"] == str(paired_interval(polynomial, triplet))
    found = by_model(whole)["VSE++"]
    a, b = (np.mean([run.rsum_by_image for run in found[loss]], axis=0) for loss in ("polynomial", "triplet"))
    assert row["over images"] == str(paired_bootstrap(a, b))
    assert float(row["over images"].split()[0]) == pytest.approx((a - b).mean(), abs=0.05)
    assert row["seeds"] == 2


def test_the_figure_draws_every_run(experiment):
    figure, values = figures.models_compared(
        replace(experiment, dataset="elsewhere")
    )  # where nothing was scored together
    assert sorted(values["rsum"]) == sorted(run.metrics["rsum"] for run in experiment.runs)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(values["model"].unique())
    drawn = [tuple(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "-"]
    spread = values.groupby(["model", "loss"])["rsum"].agg(["min", "max", "count"]).query("count > 1")
    assert {span for span in drawn if np.isfinite(span).all()} == set(zip(spread["min"], spread["max"], strict=True))
    means = [x for line in axis.lines if line.get_linestyle() == "None" for x in line.get_xdata()]
    assert sorted(means) == pytest.approx(sorted(values.groupby(["model", "loss"])["rsum"].mean()))


def test_films_of_unequal_length_are_drawn_frame_beside_frame():
    films = [np.random.default_rng(0).integers(0, 255, (count, 4, 5, 3), np.uint8) for count in (3, 7)]
    _, strips = figures.filmstrips(films, ["one", "two"])
    for film, strip in zip(films, strips, strict=True):
        assert strip.shape == (4, 5 * len(film), 3)
        for number, frame in enumerate(film):
            assert np.array_equal(strip[:, 5 * number : 5 * number + 5], frame)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_setting_can_be_trained_and_has_a_name_of_its_own(name):
    titles = set()
    for setting in SETTINGS[name]:
        config = ExperimentConfig(**setting)
        check_config(config)
        titles.add(Run(Path("x"), {"config": config.to_dict()}).model)
    assert len(titles) == len(SETTINGS[name])
    assert all(MODELS[setting["model"]].varying for setting in SETTINGS["videos"])


def test_an_unscored_pair_is_no_row(experiment, monkeypatch):
    monkeypatch.setattr(reporting, "evaluation_file", lambda *names: Path("nowhere"))
    assert "SCAN, ensemble" not in by_model(experiment)
