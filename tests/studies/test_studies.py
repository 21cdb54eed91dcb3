"""Every study: what it plans, and that its report follows from the numbers, whichever way they fall."""

import json
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.made import made_run, made_runs
from uwml_lib.config import FIDELITY, preset
from uwml_lib.evaluation import compare_all
from uwml_lib.losses import PolynomialLoss
from uwml_lib.models import MODELS
from uwml_lib.reports import figures
from uwml_lib.reports.report import in_short
from uwml_lib.reports.tables import models_table
from uwml_lib.runs import StudyRuns
from uwml_lib.runs.checkpoints import RECORDS
from uwml_lib.studies import STUDIES
from uwml_lib.studies.engine import read_seeds
from uwml_lib.studies.models import MODELS_OF_IMAGES, MODELS_OF_SEQUENCES, NEED_ALL_NEGATIVES
from uwml_lib.studies.notebooks import READ_NO_DATA, paths_of
from uwml_lib.studies.study import Request
from uwml_lib.studies.tuning import NO_DEAD_ZONE
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.paths import NOTEBOOKS
from uwml_lib.training import check_config


def study_of(runs, **groups):
    return StudyRuns("scenes", {"runs": runs, **groups})


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    monkeypatch.setattr("uwml_lib.reports.tables.sha256_of", lambda path: "0" * 64)


def readings(runs, gap: float, dev_rsum: float = 400.0) -> None:
    """What a training noted in its last epoch: positives above their hardest negatives by this much, and its rsum."""
    for run in runs:
        run.folder.mkdir(exist_ok=True)
        line = {"kind": "step", **dict.fromkeys(RECORDS["step"], 7)}
        line |= {"positive_score": 0.5 + gap, "hardest_negative_score": 0.5}
        epoch = {"kind": "epoch", "epoch": 7, "seconds": 1.0, "dev_rsum": dev_rsum}
        (run.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(epoch) + "\n")


# ------------------------------------------------------------------------------------------------------------- plans


def test_every_notebook_belongs_to_one_study():
    shown = [stem for study in STUDIES.values() for stem in study.notebooks]
    assert sorted(shown) == sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def test_notebooks_that_read_no_data_are_not_executed_for_other_data():
    executed, everything = (set(paths_of(STUDIES["reproduce"], name)) for name in ("mine", "scenes"))
    reads = re.compile(r"(preset|load_study|model_to_look_at)\([^)]*?\bDATASET")
    left_out = {path for path in everything if not reads.search(path.read_text(encoding="utf-8"))}
    assert everything - executed == left_out
    assert {path.stem for path in left_out} == set(READ_NO_DATA)


@pytest.mark.parametrize("name", STUDIES)
def test_every_planned_run_can_be_trained_and_is_planned_once(name, tmp_path):
    study, dataset = STUDIES[name], "clips" if STUDIES[name].sequences else "scenes"
    (tmp_path / dataset).mkdir()
    (tmp_path / dataset / "train_caps.npy").touch()
    request = Request(preset(dataset, data_root=str(tmp_path)), [3, 5], False, lambda line: None)
    plan = study.plan(request)
    configs = [config for group in plan.values() for config in group]
    for config in configs:
        check_config(config)
    names = [config.run_name("x") for config in configs]
    assert len(set(names)) == len(names)
    if "runs" in plan:
        assert {config.seed for config in plan["runs"]} == {3, 5}


def test_warm_up_is_left_out_once_and_only_where_it_costs_least():
    plan = STUDIES["reproduce"].plan
    request = Request(preset("scenes"), [1, 2], False, print)
    assert {(c.seed, c.warmup_epochs, c.epochs) for c in plan(request)["without_warmup"]} == {(1, 0, 4)}
    assert "without_warmup" not in plan(Request(preset("f8k_precomp"), [1], False, print))


def test_models_that_see_a_plain_mean_take_all_negatives_to_the_end(tmp_path):
    said = []
    plan = STUDIES["models"].plan(Request(preset("scenes", data_root=str(tmp_path)), [0], False, said.append))
    for config in plan["runs"]:
        assert (config.warmup_epochs == config.epochs) == (config.model in NEED_ALL_NEGATIVES)
    assert "frozen" not in {config.model for config in plan["runs"]}
    assert said[0].startswith("frozen: left out")


@pytest.mark.parametrize("settings", [MODELS_OF_IMAGES, MODELS_OF_SEQUENCES])
def test_every_model_has_a_name_of_its_own(settings):
    titles = {made_run(1.0, **setting).model for setting in settings}
    assert len(titles) == len(settings)
    assert all(MODELS[setting["model"]].varying for setting in MODELS_OF_SEQUENCES)


def test_without_a_dead_zone():
    assert PolynomialLoss(**NO_DEAD_ZONE).negative == (0.0, 0.0, 0.9)


@pytest.mark.parametrize("words", [",", "1 1", "0 x"])
def test_seeds(words):
    assert read_seeds("3, 1", (0,)) == (3, 1)
    assert read_seeds("", (0, 1)) == (0, 1)
    with pytest.raises(UWMLError, match=f"seeds: found '{words}'"):
        read_seeds(words, (0,))


# ----------------------------------------------------------------------------------------------------------- reports


def test_habits():
    report = STUDIES["fidelity"].report
    plain, siblings = made_runs({0: 400.0, 1: 410.0}), made_runs({0: 390.0, 1: 400.1}, siblings="negatives")
    every = made_runs({0: 420.0, 1: 409.0}, **FIDELITY["released"])
    found = report(study_of(plain, released=siblings + every))
    (sentence,) = found.findings
    assert "siblings as negatives -9.9 [-11.2, -8.7]; all four +9.5 [" in sentence  # corrected for two comparisons
    assert sentence.endswith("statistically significant: siblings as negatives.")
    assert list(found.table.index) == ["none", "siblings as negatives", "all four"]
    assert list(found.runs["habit"]) == ["none"] * 2 + ["siblings as negatives"] * 2 + ["all four"] * 2
    (sentence,) = report(study_of(plain, released=every)).findings
    assert sentence.endswith("none is statistically significant.")
    assert report(study_of(plain)).findings == ()
    without_all = report(study_of(plain, released=siblings))
    assert ["All four: " in of.about[0] for of in (found, without_all)] == [True, False]


def test_models(tmp_path):
    def both(triplet, polynomial, gap=0.2, dev_rsum=400.0, **settings):
        runs = made_runs(triplet, loss="triplet", folder=tmp_path, **settings)
        runs += made_runs(polynomial, folder=tmp_path, **settings)
        readings(runs, 0.2)
        readings(runs[2:], gap, dev_rsum)
        return runs

    better = both({0: 400.0, 1: 401.0}, {0: 420.0, 1: 421.05})
    worse = both({0: 400.0, 1: 401.0}, {0: 380.0, 1: 381.05}, model="vse")
    open_ = both({0: 400.0, 1: 390.0}, {0: 395.0, 1: 401.5}, gap=0.001, model="bfan")  # which says little by itself
    collapsed = {"gap": 0.001, "dev_rsum": 90.0}
    equal = both({0: 400.0, 1: 401.0}, {0: 380.0, 1: 381.5}, **collapsed, model="frozen", captions="vectors")
    study = study_of(better + worse + open_ + equal)
    report = STUDIES["models"].report(study)
    assert report.findings == (
        "Model by model on scenes: the polynomial loss is better with SCAN (i2t Mean); the triplet loss is better with "
        "VSE++; not decided with BFAN; nothing to compare, as trainings collapsed to nearly equal scores, with Frozen "
        "embeddings (linear) (corrected for 4 comparisons).",
    )
    assert list(report.table["better"]) == ["polynomial", "triplet", "not decided", "collapsed: polynomial"]
    seeds = "; ".join(
        f"Frozen embeddings, linear, polynomial, seed {run.seed} (rsum {run.rsum:.1f})" for run in equal[2:]
    )
    assert f"Collapsed (positives and hardest negatives score the same): {seeds}." in report.notes
    again = STUDIES["reproduce"].report(study_of(better))  # which is one of them
    assert in_short(report.outcomes | again.outcomes) == (
        "4 comparisons were made, each of one model on one data set, at one setting for both losses or with each loss "
        "tuned: the polynomial loss is better in 1; the triplet loss is better in 1; neither loss is shown to be "
        "better in 1; the trainings collapsed in 1. Where it is decided, it goes either way."
    )
    one = "One comparison was made, of one model on one data set: the polynomial loss is better."
    assert in_short(again.outcomes) == one
    assert in_short(STUDIES["fidelity"].report(study_of(made_runs({0: 1.0}))).outcomes) == ""


def test_a_row_is_what_its_runs_say_corrected_for_all_rows():
    runs = made_runs({0: 400.0, 1: 401.0}, loss="triplet") + made_runs({0: 420.0, 1: 421.05})
    runs += made_runs({0: 410.0, 1: 400.0}, loss="triplet", model="vse") + made_runs({0: 405.0, 1: 406.0}, model="vse")
    study = study_of(tuple(replace(run, results=run.results | {"members": [0]}) for run in runs))  # nothing on disk
    by_model = study.by_model()
    table = models_table(study)
    compared = compare_all({name: (of["polynomial"], of["triplet"]) for name, of in by_model.items()})
    for name, row in table.iterrows():
        assert row["triplet rsum"].startswith(f"{np.mean([run.rsum for run in by_model[name]['triplet']]):.1f} ± ")
        assert row["polynomial − triplet, over seeds"] == str(compared[name].over_seeds)
        assert row["polynomial − triplet, over images"] == str(compared[name].over_images)
        assert row["seeds"] == 2


def test_the_figure_draws_every_run():
    settings = list(product((0, 1), ("triplet", "polynomial"), ("scan", "vse")))
    runs = [made_run(400.0 + 7 * i, seed=s, loss=loss, model=model) for i, (s, loss, model) in enumerate(settings)]
    figure, values = figures.models_compared(study_of(tuple(runs)))
    assert sorted(values["rsum"]) == sorted(run.rsum for run in runs)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(values["model"].unique())
    drawn = [tuple(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "-"]
    spread = values.groupby(["model", "loss"])["rsum"].agg(["min", "max"])
    assert {span for span in drawn if np.isfinite(span).all()} == set(zip(spread["min"], spread["max"], strict=True))
    means = [x for line in axis.lines if line.get_linestyle() == "None" for x in line.get_xdata()]
    assert sorted(means) == pytest.approx(sorted(values.groupby(["model", "loss"])["rsum"].mean()))
