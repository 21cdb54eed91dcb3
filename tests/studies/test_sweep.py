"""Sweeps: what is tried, that nothing is trained twice or lost, what is pruned, and which setting is chosen."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tests.tables import cells
from tests.tiny import SIZES, write_tiny
from tests.training.test_kill import run_outcome
from uwml_lib import config
from uwml_lib.cli import main, parse
from uwml_lib.commands.studies import read_space
from uwml_lib.reports.tables import COLUMNS
from uwml_lib.studies import build_pages, tuning
from uwml_lib.studies import sweep as reporting
from uwml_lib.studies.tuning import DEFAULT_SPACE, Sweep, tune
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_sealed_json, sha256_of, write_json, write_sealed_json
from uwml_lib.training import Trainer

mpl.use("agg")
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

DRAW = reporting._draw
RANGES = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "loss.margin": {"low": 0, "high": 0.4},
    "batch_size": {"low": 8, "high": 11},
    "loss.negative": [[0.0, 1.0], [1.0, 2.0, 3.0]],
}
DEV = {0.1: (100.0, 104.0), 0.2: (109.0, 111.0), 0.3: (60.0, 180.0), 0.4: (90.0, 90.0)}
TEST = {0.1: (300.0, 300.0), 0.2: (105.0, 101.0), 0.3: (200.0, 200.0), 0.4: (90.0, 90.0)}
"""Margin -> rsum of two seeds: 0.3 is the best on dev, by its mean; 0.1 on test."""


def quiet(line: str) -> None:
    pass


@pytest.fixture
def home(home, monkeypatch):
    """With a tiny data set; pages and figures are not made."""
    monkeypatch.setattr(reporting, "build_pages", lambda say: home / "index.html")
    monkeypatch.setattr(reporting, "_draw", lambda *arguments: ["sweep"])
    write_tiny(home / "data/tiny", {**SIZES, "train": 64})  # a batch of the default size
    return home


def finish(settings, folder, dev: float, test: float = 1.0) -> None:
    metrics = {**dict.fromkeys(COLUMNS, test / 6), "rsum": test}
    write_sealed_json(folder / "results.json", {
        "config": settings.to_dict(), "split": "test", "metrics": metrics, "dev_rsum": dev, "best_epoch": 1,
        "ranks": {"image_to_text_ranks": [0] * 14}, "captions_per_image": 2,
        "training_seconds": 1.0, "files": {}, "provenance": {"sessions": [{"commit": None, "clean_tree": None}]},
    })  # fmt: skip


@pytest.fixture
def fake(monkeypatch):
    """Trainings that give the numbers above at once; a list of those that took place."""
    trained: list[tuple[float, int]] = []

    def train(settings, folder, say, after_epoch=None):
        margin, seed = settings.loss_options["margin"], settings.seed
        trained.append((margin, seed))
        if margin == 0.9:
            raise UWMLError(f"{folder.name}: the loss is nan at epoch 1, step 2; stopped")
        if margin == 0.8:
            raise RuntimeError("no kernel image")
        finish(settings, folder, DEV.get(margin, (50.0, 50.0))[seed], TEST.get(margin, (50.0, 50.0))[seed])

    monkeypatch.setattr(tuning, "train", train)
    return trained


def a_sweep(home, margins=tuple(DEV), base=None, **options) -> Sweep:
    base = config.preset("tiny", data_root=str(home / "data"), **(base or {}))
    return Sweep(base, **{"space": {"loss.margin": list(margins)}, "seeds": (0, 1), "prune": False, **options})


def report(home, *arguments, **options) -> str:
    return reporting.tune_and_report([a_sweep(home, *arguments, **options)], quiet)["markdown"]


# ------------------------------------------------------------------------------------------------ what is tried


def test_a_grid_is_every_combination_in_order():
    space = {"loss.margin": [0.1, 0.2], "learning_rate": [1e-3], "direction": ["i2t", "t2i"]}
    base = config.preset("scenes")
    assert [tuple(values.values()) for values in Sweep(base, space).settings] == [
        (0.1, 1e-3, "i2t"), (0.1, 1e-3, "t2i"), (0.2, 1e-3, "i2t"), (0.2, 1e-3, "t2i"),
    ]  # fmt: skip
    assert len(Sweep(base, DEFAULT_SPACE).settings) == 6


def test_a_seed_draws_the_same_for_everybody_and_within_the_ranges(home, fake):
    """Also for one that takes only a part: the setting's number decides."""
    first, again, other = (
        {one.number: one.values for one in tune(a_sweep(home, space=RANGES, sampler="random", **options), quiet)}
        for options in ({"samples": 30}, {"samples": 5, "name": "again"}, {"samples": 5, "name": "b", "search_seed": 1})
    )
    assert again == {number: first[number] for number in range(1, 6)} and other != again
    assert first[1] == {
        "learning_rate": 0.000682408, "loss.margin": 0.28813, "batch_size": 8, "loss.negative": [0.0, 1.0]
    }  # fmt: skip
    rates, margins, sizes = (np.array([values[name] for values in first.values()]) for name in list(RANGES)[:3])
    assert 1e-4 <= rates.min() < 2e-4 and 5e-3 < rates.max() <= 1e-2
    assert 0.3 < (rates < 1e-3).mean() < 0.7, "the logarithm is drawn evenly"
    assert 0 <= margins.min() < 0.05 and 0.35 < margins.max() <= 0.4 and set(sizes.tolist()) == {8, 9, 10, 11}
    assert {json.dumps(values["loss.negative"]) for values in first.values()} == {"[0.0, 1.0]", "[1.0, 2.0, 3.0]"}


def test_a_setting_becomes_a_configuration_whose_run_is_that_of_a_training():
    base = config.preset("scenes_smoke", loss="triplet", loss_options={"margin": 0.3, "reduction": "mean"})
    (found,) = Sweep(base, {}, seeds=(5,)).configs({"loss.margin": 0.1, "epochs": 3})
    assert found == replace(base, loss_options={"margin": 0.1, "reduction": "mean"}, epochs=3, seed=5)
    (found,) = Sweep(config.preset("scenes_smoke"), {}, seeds=(3,)).configs({"loss.margin": 0.1})
    trained = parse("train", ["--dataset", "scenes_smoke", "--loss-options", '{"margin": 0.1}', "--seed", "3"])
    assert found.run_name("data") == trained.keywords["experiment"].run_name("data")


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({}, {}, "space: found no settings"),
        ({"learning_rte": [1]}, {}, "space: unknown name 'learning_rte'; did you mean 'learning_rate'?"),
        ({"margin": [0.1]}, {}, "space: unknown name 'margin'; did you mean 'loss.margin'?"),
        ({"loss.check_finite": [True]}, {}, "space: unknown name 'loss.check_finite'; "),
        ({"loss": ["triplet"]}, {}, "space: loss is no setting to choose; each loss has a sweep of its own"),
        ({"max_images": [10, 20]}, {}, "space: max_images decides which images"),
        ({"workers": [0, 1]}, {}, "space: workers cannot change a result"),
        ({"loss.margin": []}, {}, "space: loss.margin: found [], expected a list of values"),
        ({"loss.margin": 0.1}, {"samples": 2}, "space: loss.margin: found 0.1, expected a list of values or a range"),
        ({"epochs": [2, 2.0]}, {}, "space: epochs: found 2.0 twice"),
        ({"loss.margin": {"low": 0, "high": 1}}, {}, "expected a list of values; a range needs --samples"),
        ({"loss.margin": {"low": 1, "high": 0}}, {"samples": 2}, "(`low <= high` must hold"),
        ({"loss.margin": {"low": 0, "high": 1, "log": True}}, {"samples": 2}, "(`low > 0` must hold for `log=True`"),
        ({"loss.margin": {"low": 1, "high": 2, "log": "no"}}, {"samples": 2}, "(log is true or false)"),
        ({"loss.margin": {"low": 0, "hihg": 1}}, {"samples": 2}, "'hihg': 1}, expected"),
        ({"batch_size": {"low": 8, "high": 9.5}}, {"samples": 2}, "batch_size: found 9.5, expected a whole number"),
        ({"loss.margin": {"low": "0", "high": "1"}}, {"samples": 2}, "margin: found '0', expected"),
        ({"learning_rate": {"low": 0.1, "high": float("inf")}}, {"samples": 2}, "learning_rate: found inf, expected"),
        ({"learning_rate": [0.1, "fast"]}, {}, "learning_rate: found 'fast', expected a finite number"),
        ({"learning_rate": [0.1, "fast"]}, {"sampler": "tpe", "samples": 2}, "found 'fast', expected a finite number"),
        ({"loss.temperature": [0.1]}, {}, "loss_options of polynomial: "),
        ({"loss.margin": [0.1]}, {"sampler": "tpe"}, "samples: found 0 settings, expected 1 to 1,000"),
        (
            {"loss.margin": list(range(200)), "epochs": list(range(1, 200))},
            {},
            "space: found 39,800 settings, expected 1 to 1,000",
        ),
        ({"loss.margin": [0.1]}, {"name": "../x"}, "name: found '../x'"),
        ({"loss.margin": [0.1]}, {"storage": "nosql:/x"}, "storage: "),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(home, monkeypatch, space, options, message):
    monkeypatch.setattr(tuning, "train", lambda *arguments: pytest.fail("trained"))
    options = {"sampler": "random" if "samples" in options else "grid", **options}
    with pytest.raises(UWMLError) as error:
        report(home, space=space, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(home.rglob("journal.log")) == []


# ------------------------------------------------------------------------------------------------ who trains what


@pytest.fixture(params=["journal", "database"])
def shared(request, home, monkeypatch):
    """Options of a sweep with a storage, where trainings note who trains, and hang while there is a file `hang`."""

    def train(settings, folder, say, after_epoch=None):
        hangs = (home / "hang").exists()
        with open(home / "log", "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {settings.loss_options['margin']}\n")
        time.sleep(60 if hangs else 0.02)
        finish(settings, folder, settings.loss_options["margin"])

    monkeypatch.setattr(tuning, "train", train)
    monkeypatch.setattr(tuning, "HEARTBEAT", 1)
    return {"storage": "" if request.param == "journal" else f"sqlite:///{home}/sweeps.db", "seeds": (0,)}


def log(home: Path) -> list[list[str]]:
    """The process and the margin of each training."""
    return [line.split() for line in (home / "log").read_text(encoding="utf-8").splitlines()]


def in_process(sweep: Sweep) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=tune, args=(sweep, quiet))
    process.start()
    return process


def test_two_processes_train_each_setting_once(home, shared):
    margins = [number / 100 for number in range(8 if shared["storage"] else 25)]
    sweep = a_sweep(home, margins, **shared)
    processes = [in_process(sweep) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(float(margin) for _, margin in log(home)) == margins
    assert len({pid for pid, _ in log(home)}) == 2, "one had all"
    assert [trial.state for trial in sweep.study().trials] == [TrialState.COMPLETE] * len(margins)
    assert [one.values["loss.margin"] for one in tune(sweep, quiet)] == margins[::-1]
    assert len(log(home)) == len(margins), "trained again"


def test_what_a_killed_worker_leaves_is_tried_again(home, shared, monkeypatch):
    """By TPE, where what was tried is known from the trial alone."""
    sweep = a_sweep(home, space={"loss.margin": {"low": 0.0, "high": 1.0}}, sampler="tpe", samples=3, **shared)
    (home / "hang").touch()
    process = in_process(sweep)
    while not (home / "log").exists() or not log(home):
        time.sleep(0.01)
    (home / "hang").unlink()
    with pytest.raises(UWMLError, match="not all settings are done, for a worker stopped or was killed"):
        tuning._settled(sweep, sweep.study())
    sleep = time.sleep  # a worker sleeps once only what others have is left
    monkeypatch.setattr(tuning, "time", SimpleNamespace(sleep=lambda seconds: (process.kill(), sleep(seconds))))
    assert len(tune(sweep, quiet)) == 3
    process.join()
    pids, margins = zip(*log(home), strict=True)
    assert pids == (str(process.pid), *[str(os.getpid())] * 3), "it was not waited for"
    assert margins[0] == margins[3] and len(set(margins)) == 3, "another setting was drawn instead"
    states = [trial.state.name for trial in sweep.study().trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_kill_while_earlier_trials_are_copied_loses_none(home, fake, monkeypatch):
    first = a_sweep(home, sampler="tpe", samples=3, seeds=(0,), name="first")
    drawn = {number: trial.params for number, trial in tuning.run_trials(first, quiet).items()}
    wider, trained, add = replace(first, name="wider", samples=4, earlier="first"), len(fake), optuna.Study.add_trial

    def killed(study, trial):
        if study.get_trials():
            raise KeyboardInterrupt
        add(study, trial)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(optuna.Study, "add_trial", killed)
        tuning.run_trials(wider, quiet)
    found = tuning.run_trials(wider, quiet)
    assert {number: found[number].params for number in drawn} == drawn
    assert len(found) == 4 and len(fake) <= trained + 1


def test_of_two_that_do_not_see_each_others_locks_the_later_leaves_a_setting(home, fake):
    sweep = a_sweep(home, storage=f"sqlite:///{home}/sweeps.db")
    study = sweep.study()
    for _ in range(2):
        study.enqueue_trial({"loss.margin": 0.1}, {"setting": 1})
    study.ask()
    with pytest.raises(UWMLError, match="with another worker"):
        tuning._train_trial(sweep, sweep.lock("study"), quiet, study.ask())
    assert fake == []


def test_tpe_draws_as_many_settings_as_were_wanted_and_optuna_is_not_heard(home, fake, capsys):
    sweep = a_sweep(home, space={"loss.margin": {"low": 0.0, "high": 0.4}}, sampler="tpe", samples=6, seeds=(0,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        margins = [one.values["loss.margin"] for one in tune(sweep, quiet)]
    assert capsys.readouterr() == ("", "") and optuna.logging.get_verbosity() == optuna.logging.INFO
    assert len(set(margins)) == len(fake) == 6 and min(margins) >= 0 and max(margins) <= 0.4
    assert [one.values["loss.margin"] for one in tune(sweep, quiet)] == margins and len(fake) == 6
    path = sweep.folder / "journal.log"
    path.write_text(path.read_text(encoding="utf-8").replace("{", "", 1), encoding="utf-8")
    with pytest.raises(UWMLError, match=r"journal.log: .*; remove it, for the runs are kept"):
        tune(sweep, quiet)


# ------------------------------------------------------------------------------------------------ what is pruned

GOOD = {number / 100: [10.0, 20.0, 30.0, 40.0, 50.0, 60.0] for number in range(1, 5)}
LATE, POOR, WORSE = {0.5: [0, 0, 40.0, 40.0, 50.0, 60.0]}, {0.6: [9.0] * 6}, {0.7: [10, 20, 30, 40, 50, 9.0]}


@pytest.fixture
def curves(monkeypatch):
    """Trainings that reach the values above, epoch by epoch; (margin, seed) -> epochs that were trained."""
    by_margin, trained = {**GOOD, **LATE, **POOR, **WORSE}, {}

    def train(settings, folder, say, after_epoch=None):
        margin = settings.loss_options["margin"]
        records = [{"epoch": epoch, "dev_rsum": value} for epoch, value in enumerate(by_margin[margin])]
        for epoch in range(1, len(records) + 1):
            trained[margin, settings.seed] = epoch
            if after_epoch:
                after_epoch(records[:epoch])
        finish(settings, folder, max(by_margin[margin]))

    monkeypatch.setattr(tuning, "train", train)
    return trained


@pytest.mark.parametrize(("warmup", "last"), [(0, 3), (4, 5)])
def test_only_what_is_below_the_median_late_is_pruned(home, curves, warmup, last):
    margins, base = [*GOOD, *LATE, *POOR], {"epochs": 6, "warmup_epochs": warmup}
    text = report(home, margins, base, prune=True)
    assert ["5", "0.5", "60.0 ± 0.0", "2", "complete"] in cells(text)
    assert ["6", "0.6", "", "", "pruned"] in cells(text)
    assert "whether it would have caught up is not known" in text
    assert curves == {(margin, seed): 6 for margin in margins[:-1] for seed in (0, 1)} | {(0.6, 0): last}
    trials = a_sweep(home).study().trials
    assert [len(trial.intermediate_values) for trial in trials] == [6] * 5 + [last], "one seed's epochs, each once"


@pytest.mark.parametrize(
    ("margins", "options"),
    [([0.01, 0.02, 0.03, 0.6], {}), ([*GOOD, *POOR], {"prune": False}), ([*GOOD, *WORSE], {"seeds": (0,)})],
)
def test_nothing_is_pruned_of_few_or_if_so_told_or_where_nothing_is_saved(home, curves, margins, options):
    outcomes = tune(a_sweep(home, margins, {"epochs": 6}, **{"prune": True, **options}), quiet)
    assert {one.state for one in outcomes} == {"complete"} and set(curves.values()) == {6}


def test_a_stopped_training_keeps_its_checkpoint_and_can_go_on(tmp_path, monkeypatch):
    """Stopped inside its second epoch, and pruned after it."""
    write_tiny(tmp_path / "tiny")
    small = {"embed_size": 8, "word_dim": 6, "batch_size": 16, "epochs": 3, "device": "cpu", "checkpoint_minutes": 0}
    base, seen, steps, step = config.preset("tiny", data_root=str(tmp_path), **small), [], [], Trainer.step

    def stop_at_the_eighth(self, *arguments):
        steps.append(step(self, *arguments))
        if len(steps) == 8:
            raise KeyboardInterrupt
        return steps[-1]

    monkeypatch.setattr(Trainer, "step", stop_at_the_eighth)

    def stop(records):
        seen.append([record["epoch"] for record in records])
        if len(seen) == 2:
            raise optuna.TrialPruned

    for interruption in (KeyboardInterrupt, optuna.TrialPruned):
        with pytest.raises(interruption):
            tuning.train(base, tmp_path / "stopped", quiet, stop)
    assert not (tmp_path / "stopped/results.json").exists()
    tuning.train(base, tmp_path / "stopped", quiet, stop)
    assert seen == [[0], [0, 1], [0, 1, 2]]
    assert len(steps) == 3 * 5 + 1, "more than the step that was stopped was trained again"
    tuning.train(base, tmp_path / "whole", quiet)
    assert run_outcome(tmp_path / "stopped") == run_outcome(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------ what came out


def written(home: Path) -> tuple[dict, str]:
    folder = home / "sweeps/tiny/default"
    return read_sealed_json(folder / "sweep.json"), (folder / "sweep.md").read_text(encoding="utf-8")


def test_dev_chooses_and_not_test_and_every_number_leads_to_its_run(home, fake):
    text = report(home)
    found, whole = written(home)
    assert [item["values"]["loss.margin"] for item in found["settings"]] == [0.3, 0.2, 0.1, 0.4]
    for item in found["settings"]:
        values = DEV[item["values"]["loss.margin"]]
        assert list(item["dev_rsum"].values()) == [statistics.mean(values), pytest.approx(statistics.stdev(values)), 2]
        for (run, digest), value in zip(item["runs"].items(), values, strict=True):
            path = home / "runs/tiny" / run / "results.json"
            assert sha256_of(path) == digest and read_sealed_json(path)["dev_rsum"] == value
            assert read_sealed_json(path)["config"]["loss_options"] == {"margin": item["values"]["loss.margin"]}
            assert [run, str(item["setting"])] in [row[:2] for row in cells(whole)]
    assert found["chosen"] == 3 and found["tables"]["chosen"][0]["rsum"] == "200.0 ± 0.0"
    assert ["3", "0.3", "120.0 ± 84.9", "2", "complete"] in cells(text)
    assert "**Chosen by that alone: setting 3.**" in text and "200.0 ± 0.0" in text
    assert "in rsum on dev (95 % over seeds, paired t), and the best of many is in part the luckiest." in text
    assert "Those of the others had no part in the choice" in text and "pruned" not in text
    for hidden in ("300.0", "103.0", "105.0"):
        assert hidden not in whole, "a test number of another setting"
    assert fake == [(margin, seed) for margin in DEV for seed in (0, 1)]
    assert report(home) == text and written(home) == (found, whole) and len(fake) == 8, "trained again"


def test_another_sweep_of_that_name_is_refused(home, fake):
    report(home)
    fake.clear()
    others = {
        "space": {"margins": (0.1, 0.2)}, "seeds": {"seeds": (0,)}, "epochs": {"base": {"epochs": 3}},
        "sampler, samples": {"samples": 4, "sampler": "random"}, "data": {},
    }  # fmt: skip
    for named, other in others.items():
        if named == "data":
            write_tiny(home / "data/tiny", {**SIZES, "train": 65})
        with pytest.raises(UWMLError) as error:
            report(home, **other)
        folder = home / "sweeps/tiny/default"
        assert str(error.value) == f"{folder}: holds a sweep that differs in {named}; give this one another --name"
    assert fake == []
    report(home, name="other")


def test_a_sweep_noted_before_a_setting_was_new_goes_on(home, fake, monkeypatch):
    before = type(config.preset("tiny")).identity.fget
    without = lambda self: {name: value for name, value in before(self).items() if name != "batches"}  # noqa: E731
    with monkeypatch.context() as then:
        then.setattr(type(config.preset("tiny")), "identity", property(without))
        report(home)
    trained = len(fake)
    report(home)
    assert len(fake) == trained, "trained again"


def test_a_failed_setting_does_not_stop_the_others_and_is_tried_again_by_the_next_command(home, fake):
    for count in (6, 8):  # of those that fail, the first seed; the others are done by then
        with pytest.raises(UWMLError) as error:
            report(home, (0.9, 0.1, 0.8, 0.2))
        first, *sentences = str(error.value).splitlines()
        assert first == "2 settings failed; the same command tries again:"
        assert sentences[0].endswith(": the loss is nan at epoch 1, step 2; stopped")
        assert sentences[1:] == ["default, setting 3: RuntimeError: no kernel image"] and len(fake) == count
    found, whole = written(home)
    states = [(item["setting"], item["state"]) for item in found["settings"]]
    assert states == [(4, "complete"), (2, "complete"), (1, "failed"), (3, "failed")]
    assert "### Failed" in whole and "the loss is nan" in whole
    with pytest.raises(UWMLError, match="1 setting failed"):
        report(home, (0.9,), name="none")
    assert not (home / "sweeps/tiny/none/sweep.json").exists()


def test_what_the_numbers_are_worth(home, fake):
    text = report(home, (0.1, 0.2), seeds=(0,))
    assert ["2", "0.2", "109.0", "1", "complete"] in cells(text)
    assert "+9.0 (no interval from one value)" in text
    assert written(home)[0]["settings"][0]["dev_rsum"] == {"mean": 109.0, "std": None, "n": 1}
    assert "the next" not in report(home, (0.1,), name="single")
    for path in home.glob("runs/tiny/*/results.json"):
        write_sealed_json(path, {**read_sealed_json(path), "split": "dev"})
    text = report(home, (0.1, 0.2), seeds=(0,))
    assert "There is no test split here: these are the numbers on dev which chose, and so flatter the setting." in text
    assert "\n\nOnly 14 dev images: random scores would give an rsum of " in text
    assert "dev rsum" in cells(written(home)[1].split("### Runs")[1])[0]


def test_figures_and_pages_show_a_sweep(home, fake, monkeypatch, unmade):
    monkeypatch.setattr(paths, "REPORTS", home)
    monkeypatch.setattr(reporting, "_draw", DRAW)
    style = mpl.rcParams.copy()
    report(home, space={"loss.margin": list(DEV), "loss.negative": [[0.0, 1.0], [1.0]]}, seeds=(0,))
    assert mpl.rcParams == style
    for figure in ("sweep", "epochs", "history", "importances"):
        assert f"]({figure}.png)" in written(home)[1]
        assert (home / f"sweeps/tiny/default/{figure}.png").stat().st_size > 1000
    for folder in paths.RUNS.glob("tiny/*/"):
        (folder / "config.json").touch()
    build_pages(quiet)
    source, said = home / "pages/runs/tiny/sweep-default.md", []
    page = source.read_text(encoding="utf-8")
    assert "# tiny: sweep default" in page and "Chosen by that alone: setting 3." in page
    assert "![rsum on dev against loss.margin, loss.negative: the numbers of the table](/_pictures/" in page
    assert page.count("/config.json") == 8 and "| 109.0 " in page and "| 100.0 " in page
    assert "/pages/runs/tiny/sweep-default\n" in (home / "_made/own.md").read_text(encoding="utf-8")
    path = home / "sweeps/tiny/default/sweep.json"
    path.write_text(path.read_text(encoding="utf-8").replace("109.0", "209.0"), encoding="utf-8")
    build_pages(said.append)
    assert not source.exists()
    assert "default: left out of the pages" in said[0] and "was changed after it was written" in said[0]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_line(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(reporting, "tune_and_report", called.append)
    write_json(tmp_path / "margins.json", {"loss.margin": [0.1]})
    assert main(["sweep", "--space", str(tmp_path / "margins.json"), "--seeds", "0 3", "--no-prune"]) == 0
    several = '{"loss": ["triplet", "infonce"], "epochs": [3]}'
    assert main(["sweep", "--space", several, "--samples", "5", "--search-seed", "2", "--name", "mine"]) == 0
    assert main(["sweep", "--sampler", "tpe", "--samples", "4", "--storage", "sqlite:///x"]) == 0
    (margins,), (triplet, infonce), (default,) = called
    base = config.preset("scenes")
    assert margins == Sweep(base, {"loss.margin": [0.1]}, (0, 3), prune=False, name="margins")
    of_triplet = replace(base, loss="triplet")
    assert triplet == Sweep(of_triplet, {"epochs": [3]}, (0, 1), "random", 5, 2, name="mine-triplet")
    assert infonce == replace(triplet, base=replace(base, loss="infonce"), name="mine-infonce")
    assert default == Sweep(replace(base, epochs=4), DEFAULT_SPACE, (0, 1), "tpe", 4, storage="sqlite:///x")
    for text, message in (("{", "space: not readable as JSON"), (str(tmp_path / "no"), "no: no such file")):
        with pytest.raises(UWMLError, match=message):
            read_space(text)


def test_a_slip_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(tuning, "train", lambda *arguments: pytest.fail("trained"))
    for options, message in (
        (["--space", '{"loss.margn": [0.1]}'], "space: unknown name 'loss.margn'; did you mean 'loss.margin'?"),
        (["--space", '{"epochs": [1, 2]}', "--epochs", "3"], "epochs: is in the space and given besides, expected one"),
        (["--space", '{"batch_size": [8]}', "--batch-size", "4"], "batch_size: is in the space and given besides"),
        (["--space", '{"loss": "triplet"}'], "space: loss: found 'triplet', expected a list of losses that differ"),
        (["--space", '{"loss": ["triplet", "hinge"], "epochs": [2]}'], "loss: found 'hinge', expected one of"),
        (["--seeds", "1 1"], "seeds: found '1 1'"),
    ):
        assert main(["sweep", "--profile", "smoke", *options]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


SMALL = {"epochs": 6, "embed_size": 8, "word_dim": 6, "batch_size": 8}


def start(home: Path) -> subprocess.Popen:
    """Start the command where it sees one core, and so works in one process."""
    space = json.dumps({"loss.margin": [0.1, 0.3], **{name: [value] for name, value in SMALL.items()}})
    command = ["sweep", "--dataset", "tiny", "--space", space, "--no-prune"]
    return subprocess.Popen(
        [sys.executable, "-m", "uwml_lib.cli", *command], env={**os.environ, "UWML_HOME": str(home)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a command cannot be told how many cores it has")
def test_a_killed_command_goes_on_and_shared_by_two_ends_as_if_alone(tmp_path, monkeypatch):
    write_tiny(tmp_path / "data/tiny")
    runs, killed = tmp_path / "reports/runs/tiny", start(tmp_path)
    while not any(runs.glob("*/checkpoint/last.pt")):
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert len([*runs.glob("*/results.json")]) < 4, "the kill came too late"
    commands = [start(tmp_path), start(tmp_path)]
    outputs = [command.communicate()[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0], outputs
    assert any("goes on after epoch" in output for output in outputs)
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "alone")
    base = config.preset("tiny", **SMALL)
    for margin in (0.1, 0.3):
        for seed in (0, 1):
            (settings,) = Sweep(base, {}, (seed,)).configs({"loss.margin": margin})
            alone = tuning.train(settings, None, quiet)
            assert run_outcome(runs / alone.name) == run_outcome(alone)
    found = read_sealed_json(tmp_path / "reports/sweeps/tiny/default/sweep.json")
    assert [item["state"] for item in found["settings"]] == ["complete", "complete"]
