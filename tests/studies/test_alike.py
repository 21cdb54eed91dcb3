"""Losses tuned alike: the ranges and how they widen, what is chosen, what is kept, and the study that rests on it."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.made import altered, made_run, made_runs, write_run
from tests.tiny import SIZES, write_tiny
from uwml_lib import config
from uwml_lib.config import StudyOptions
from uwml_lib.datasets import fingerprint
from uwml_lib.evaluation.metrics import RECALL_AT
from uwml_lib.losses import LOSSES, PolynomialLoss
from uwml_lib.reports import figures, trained_on
from uwml_lib.reports.tuned_losses import (
    EVERY_PAIR,
    FITTED,
    WHERE_SCORES_LIE,
    comparisons,
    draw_scores,
    every_pair,
    groups_of,
    pairs_in_words,
    tuned_losses,
)
from uwml_lib.reports.tuning import chosen_here, how_tuned
from uwml_lib.reports.tuning import tried as tuning_tables
from uwml_lib.runs import Run, StudyRuns, load_study
from uwml_lib.studies import alike, compare, evidence, offers, ranges, score_ranges, tuning
from uwml_lib.studies.committed import Committed
from uwml_lib.studies.engine import given_settings
from uwml_lib.studies.study import Request
from uwml_lib.studies.tuned import of_loss, read_settings
from uwml_lib.studies.tuning import Sweep, run_trials
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, write_json, write_sealed_json
from uwml_lib.training.trainer import Diverged
from uwml_lib.weighting import describe, positives_and_hardest_negatives

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

WAYS = ("image_to_text", "text_to_image")
PLACES = {"learning_rate": 1.5e-3, "batch_size": 64, "warmup_epochs": 1, "lambda_softmax": 9.0, "loss.margin": 0.2}


def quiet(line: str) -> None:
    pass


def set_many(monkeypatch, captions):
    """With how many captions trials are few."""
    for module in (alike, offers):
        monkeypatch.setattr(module, "MANY", captions)


@pytest.fixture
def home(home):
    write_tiny(home / "data/tiny", {**SIZES, "train": 96})
    return home


def a_request(home, **options) -> Request:
    base = config.preset("tiny", data_root=str(home / "data"), epochs=8, decay_epoch=6, batch_size=32)
    return Request(base, (0, 1), False, quiet, **options)


def a_run(config, rsum, best_epoch=1):
    """What is read of a finished run."""
    return SimpleNamespace(seed=config.seed, config=config, results={"dev_rsum": rsum, "best_epoch": best_epoch})


def train_as(monkeypatch, rsum, best_epoch=lambda settings: 1):
    """Trainings at once, whose rsum and best epoch are said by functions of their settings."""
    monkeypatch.setattr(Request, "train", lambda self, configs: [a_run(of, rsum(of), best_epoch(of)) for of in configs])


@pytest.fixture
def better_with_more(monkeypatch):
    """Trainings whose rsum rises with the learning rate and falls with the distance of all else from `PLACES`."""
    trained = []

    def rsum(settings):
        away = abs(math.log(settings.loss_options.get("margin", 0.2) / 0.2)) + abs(settings.warmup_epochs - 1)
        return 1e5 * math.log(settings.learning_rate / 1e-4) - away - abs(math.log((settings.lambda_softmax or 9) / 9))

    def train(settings, folder, say, after_epoch=None):
        trained.append(settings)
        if after_epoch:
            after_epoch([{"epoch": epoch, "dev_rsum": 1.0} for epoch in range(settings.epochs)])
        results = {"config": settings.to_dict(), "dev_rsum": rsum(settings), "files": {}}
        write_sealed_json(folder / "results.json", results)

    monkeypatch.setattr(tuning, "train", train)
    train_as(monkeypatch, rsum)
    monkeypatch.setattr(ranges, "SHARED", {**ranges.SHARED, "batch_size": [16, 32, 64]})
    return trained


# ------------------------------------------------------------------------------------------------ what is chosen


def test_a_trial_is_short_and_its_seed_is_not_reported():
    base = config.preset("scenes", epochs=8, decay_epoch=6, seed=3)
    short = alike.trials_base(Request(base, (0,), False, quiet), "infonce", {})
    assert (short.epochs, short.decay_epoch, short.loss) == (4, 3, "infonce")
    assert offers.SEED not in range(2 * evidence.SEEDS)
    shorter = Request(replace(base, epochs=2, decay_epoch=1), (0,), False, quiet)
    assert alike.trials_base(shorter, "triplet", {}).epochs == 2


def test_a_loss_is_tuned_with_its_budget_and_widened_twice_at_most(home, better_with_more, monkeypatch):
    monkeypatch.setattr(alike, "TRIALS", 6)
    monkeypatch.setattr(alike, "MORE_TRIALS", 2)
    monkeypatch.setattr(ranges, "EDGE", 0.5)  # any value lies at an edge: which ones TPE draws is left to chance
    done = []
    chosen = alike.tune_alike(
        a_request(home, committed=SimpleNamespace(add=done.append, folder=home / "kept")), ["triplet"]
    )["triplet"]
    tried = read_json(home / "runs/tiny/tuning.json")["triplet"]
    assert len([*home.glob("sweeps/tiny/alike-triplet-*-wider*")]) == 2 and tried["trials"] == 6 + 2 * 2
    assert len(better_with_more) == tried["trials"], "what an earlier sweep trained is not trained again"
    best = max(better_with_more, key=lambda settings: settings.learning_rate)
    assert {settings.seed for settings in better_with_more} == {offers.SEED}
    assert chosen["learning_rate"] <= best.learning_rate and chosen["loss_options"].keys() == {"margin"}
    assert chosen.keys() == {"learning_rate", "batch_size", "warmup_epochs", "lambda_softmax", "loss_options"}
    assert read_settings(home / "runs/tiny/settings.json") == {"triplet": chosen}
    first = "alike-triplet-" + tried["terms"].rpartition("-")[2]
    assert {path.name for path in done} >= {first, f"{first}-wider1", "tuning.json", "settings.json"}
    before = len(better_with_more)
    assert alike.tune_alike(a_request(home), ["triplet"]) == {"triplet": chosen} and len(better_with_more) == before


def test_ranges_hold_what_an_earlier_tuning_chose(home, better_with_more, monkeypatch):
    monkeypatch.setattr(alike, "TRIALS", 2)
    monkeypatch.setattr(alike, "MORE_TRIALS", 1)
    monkeypatch.setattr(ranges, "EDGE", 0.0)
    monkeypatch.setattr(ranges, "SHARED", shared := {**ranges.SHARED, "batch_size": [64], "warmup_epochs": [1]})
    pilot = {"learning_rate": 1e-3, "loss_options": {"margin": 0.84}}
    monkeypatch.setattr(alike, "PILOT", {"tiny": {"triplet": (pilot, "")}})
    alike.tune_alike(a_request(home), ["triplet", "infonce"])
    tried = read_json(home / "runs/tiny/tuning.json")
    assert {loss: of["trials"] for loss, of in tried.items()} == {"triplet": 3, "infonce": 2}
    assert tried["triplet"]["space"] == {**shared, "loss.margin": {"low": 0.03, "high": 2.04, "log": True}}
    assert tried["infonce"]["space"] == {**shared, **ranges.OWN["infonce"]}, "it has no margin"


@pytest.mark.parametrize(("own", "many"), [(0.0, offers.MANY), (1e9, offers.MANY), (1e9, 1)])
def test_the_setting_with_the_best_worst_run_is_chosen(home, better_with_more, monkeypatch, own, many):
    set_many(monkeypatch, many)
    monkeypatch.setattr(alike, "TRIALS", 5)
    monkeypatch.setattr(alike, "WIDENINGS", 0)
    request, again = a_request(home), []
    request = replace(request, base=replace(request.base, learning_rate=1e-3))  # at no edge

    def train_again(self, configs):
        again.extend(configs)
        highest = max(settings.learning_rate for settings in better_with_more)
        worth = {request.base.learning_rate: own, highest: 0.0}
        return [a_run(item, worth.get(item.learning_rate, 1e4 * item.learning_rate)) for item in configs]

    monkeypatch.setattr(Request, "train", train_again)
    chosen = alike.tune_alike(request, ["triplet"])["triplet"]
    tried = read_json(home / "runs/tiny/tuning.json")["triplet"]
    further = offers.FURTHER_SEEDS[:2] if many == 1 else offers.FURTHER_SEEDS
    assert [*tried["rsums"]] == [str(seed) for seed in (offers.SEED, *further)]
    seeds = {
        rate: {item.seed for item in again if item.learning_rate == rate} for rate in {i.learning_rate for i in again}
    }
    assert tried["contenders"] == len(seeds) and seeds[request.base.learning_rate] >= {1000, 1001}
    if own:
        length = {"epochs": 4, "decay_epoch": 3} if many == 1 else {}
        assert chosen == {**length, "loss_options": {}} and len(seeds) == 1, "no other could have been chosen"
        return
    drawn = sorted({settings.learning_rate for settings in better_with_more}, reverse=True)
    assert chosen["learning_rate"] == drawn[1] and seeds[drawn[1]] == {*offers.FURTHER_SEEDS}
    assert seeds[drawn[0]] == {1001, 1002} and seeds[request.base.learning_rate] == {1000, 1001}, "they had failed"


@pytest.mark.parametrize("pilot", [None, 0.05])
def test_where_trials_are_few_losses_offer_each_other_their_settings(home, better_with_more, monkeypatch, pilot):
    set_many(monkeypatch, 1)
    monkeypatch.setattr(alike, "TRIALS", 2)
    monkeypatch.setattr(alike, "WIDENINGS", 0)
    monkeypatch.setattr(ranges, "EDGE", 0.0)  # so that no draw lies at one
    pilot_settings = {**PLACES, "learning_rate": pilot, "loss_options": {"margin": 0.2}}
    monkeypatch.setattr(alike, "PILOT", {"tiny": {"triplet": (pilot_settings, "")}} if pilot else {})
    monkeypatch.setattr(alike, "fitted_coefficients", lambda *_: {})
    chosen = alike.tune_alike(a_request(home), ["triplet", "polynomial"])
    tried = read_json(home / "runs/tiny/tuning.json")
    highest = max(settings.learning_rate for settings in better_with_more)
    assert chosen["triplet"] == chosen["polynomial"]
    taken_rate = 0.224 if pilot else highest  # two steps beyond
    assert chosen["triplet"]["learning_rate"] == taken_rate
    (best,) = {of.loss for of in better_with_more if of.learning_rate == highest}
    (other,) = {"triplet", "polynomial"} - {best}
    taken = {loss: of["taken_from"] for loss, of in tried.items()}
    assert taken == ({best: "", other: best} if not pilot else dict.fromkeys(taken, "another tuning of triplet"))
    assert [*tried[other]["rsums"]] == ["1000", "1001", "1002"]
    assert not pilot or "learning_rate" in tried[other]["at_edge"], "beyond all that was drawn"

    later = alike.tune_alike(a_request(home), ["infonce"])["infonce"]
    assert later["loss_options"].keys() <= {"temperature"}
    own = [of.learning_rate for of in better_with_more if of.loss == "infonce"]
    assert later["learning_rate"] == max(taken_rate, *own)
    assert read_settings(home / "runs/tiny/settings.json")["triplet"] == chosen["triplet"]
    before = read_json(home / "runs/tiny/tuning.json")
    assert alike.tune_alike(a_request(home), ["triplet", "polynomial"]) == chosen
    assert read_json(home / "runs/tiny/tuning.json") == before, "what infonce chose came too late for them"


def test_what_another_leaves_open_is_the_data_sets(home, better_with_more, monkeypatch):
    """And not the loss's own, which it had beside it."""
    request, own = a_request(home), {"learning_rate": 1e-3, "batch_size": 16, "loss_options": {"temperature": 0.1}}
    base = alike.trials_base(request, "infonce", {})
    theirs = {"polynomial": {"loss": "polynomial", "lambda_softmax": 5.0, "loss_options": {"margin": 0.3}}}
    first = []
    monkeypatch.setattr(
        offers, "steadiest", lambda _, sweep, of, captions: first.append([x.values for x in of]) or of[0]
    )
    offers.take_over(request, "infonce", base, own, theirs, {"space": ranges.space_of(base)}, 480)
    short = {"epochs": 4, "decay_epoch": 3}
    assert first[0] == [
        {"learning_rate": 1e-3, "batch_size": 16, "loss.temperature": 0.1, **short},
        {"lambda_softmax": 5.0, "loss.temperature": 0.1, **short},
    ]


@pytest.mark.parametrize(
    ("best", "steps", "rate", "at_edge"),
    [
        (5.5e-3, [0.0116], 5.5e-3, []),  # no further: the edge was no limit
        (0.0116, [0.0116, 0.0245], 0.0116, []),
        (1.0, [0.0116, 0.0245], 0.0245, ["learning_rate"]),
    ],
)
def test_a_step_beyond_an_edge_that_was_taken_is_tried(home, monkeypatch, best, steps, rate, at_edge):
    """Of the learning rate, in trainings as long as the data set's; the nearer to the best one, the better."""

    train_as(monkeypatch, lambda of: of.epochs - abs(math.log(of.learning_rate / best)))
    set_many(monkeypatch, 1)
    own = {**PLACES, "learning_rate": 5.5e-3, "loss_options": {"margin": 0.2}}
    del own["loss.margin"]
    request = a_request(home)
    base = alike.trials_base(request, "triplet", {})
    counts = dict.fromkeys(("trials", "pruned", "failed", "contenders"), 1)
    tried = {"terms": "", **counts, "space": ranges.space_of(base), "chosen_by": "dev", "at_edge": ["learning_rate"]}
    settings, found = offers.take_over(request, "triplet", base, own, {}, tried, 480)
    assert settings == {**own, "learning_rate": rate}
    assert found["at_edge"] == at_edge
    assert [of["step"] for of in found["offered"] if of["step"]] == [{"learning_rate": step} for step in steps]
    assert {of["epochs"] for of in found["offered"] if of["step"]} == {8}
    write_json(home / "runs/tiny/tuning.json", {"triplet": found})
    table = tuning_tables("tiny", ["triplet"], {})["What was offered, and taken"].reset_index()
    beyond = [f"its own trials, learning rate {step:.3g}" for step in steps]
    assert [*table["settings of"]] == ["its own trials", "its own trials", *beyond]
    assert [*table["taken"]].count("yes") == 1


def test_steps_say_all_that_lies_beyond_an_edge(home, monkeypatch):
    """Of two edges, where the second step goes on from the first."""

    train_as(monkeypatch, lambda of: math.log(of.learning_rate) + 0.1 * math.log(of.lambda_softmax))
    set_many(monkeypatch, 1)
    request = a_request(home)
    own = {"learning_rate": 5.5e-3, "batch_size": 64, "warmup_epochs": 1, "lambda_softmax": 29.5, "loss_options": {}}
    base = alike.trials_base(request, "triplet", {})
    _, found = offers.take_over(request, "triplet", base, own, {}, {"space": ranges.space_of(base)}, 480)
    assert [of["step"] for of in found["offered"] if of["step"]] == [
        {"learning_rate": 0.0116}, {"lambda_softmax": 52.5},
        {"learning_rate": 0.0245}, {"learning_rate": 0.0116, "lambda_softmax": 52.5},
    ]  # fmt: skip
    assert found["at_edge"] == ["learning_rate", "lambda_softmax"]


@pytest.mark.parametrize(
    ("most", "epochs", "tried", "at_edge"), [(7, 8, [], []), (10, 10, [10, 12], []), (99, 12, [10, 12], ["epochs"])]
)
def test_a_training_that_still_rises_is_tried_longer(home, monkeypatch, most, epochs, tried, at_edge):
    """By two epochs at the lower learning rate, twice at most; every training rises until epoch `most`."""
    train_as(monkeypatch, *2 * [lambda of: min(of.epochs, most)])
    set_many(monkeypatch, 1)
    own = {"learning_rate": 1e-3, "batch_size": 64, "warmup_epochs": 1, "loss_options": {}}
    request = a_request(home)
    base = alike.trials_base(request, "triplet", {})
    settings, found = offers.take_over(request, "triplet", base, own, {}, {"space": ranges.space_of(base)}, 480)
    assert settings == {**own, **({"epochs": epochs, "decay_epoch": 6} if tried else {})}
    assert [of["step"] for of in found["offered"] if of["step"]] == [{"epochs": longer} for longer in tried]
    assert found["at_edge"] == at_edge


@pytest.mark.parametrize("kind", [Diverged, UWMLError])
def test_what_diverges_is_not_taken_and_stops_nothing(home, monkeypatch, kind):
    """Of an offer that cannot be trained; whatever else went wrong is an error, for it would decide."""

    def rsum(of):
        if of.learning_rate > 1:
            raise kind("the loss is nan")
        return 100.0

    train_as(monkeypatch, rsum)
    set_many(monkeypatch, 1)
    request, own = a_request(home), {"learning_rate": 1e-3, "batch_size": 64, "warmup_epochs": 1, "loss_options": {}}
    base = alike.trials_base(request, "triplet", {})
    theirs = {"infonce": {**own, "loss": "infonce", "learning_rate": 2.0}}
    with pytest.raises(UWMLError, match="nan") if kind is UWMLError else contextlib.nullcontext():
        tried = {"space": ranges.space_of(base)}
        settings, found = offers.take_over(request, "triplet", base, own, theirs, tried, 480)
        assert settings == {**own, "epochs": 4, "decay_epoch": 3}
        assert found["offered"][1]["rsums"] == {1000: 0.0, 1001: 0.0}


def test_the_length_of_a_training_is_chosen_where_trials_are_few(home, better_with_more, monkeypatch):
    """A loss that gets worse in whole trainings is trained as short as its trials; and a kill changes no offer."""
    set_many(monkeypatch, 1)
    monkeypatch.setattr(alike, "TRIALS", 2)
    monkeypatch.setattr(alike, "WIDENINGS", 0)

    def train(self, configs):
        worth = [-of.epochs if of.loss == "triplet" else of.epochs for of in configs]
        rates = [1e3 * of.learning_rate for of in configs]
        return [a_run(of, 100.0 * longer + rate) for of, longer, rate in zip(configs, worth, rates, strict=True)]

    monkeypatch.setattr(Request, "train", train)
    monkeypatch.setattr(alike, "fitted_coefficients", lambda *_: {})
    chosen = alike.tune_alike(a_request(home), ["triplet", "polynomial"])
    assert (chosen["triplet"]["epochs"], chosen["triplet"]["decay_epoch"]) == (4, 3)
    assert not chosen["polynomial"].keys() & {"epochs", "decay_epoch"}, "as long as the data set's"
    of_triplet, of_polynomial = a_request(home, tuned=chosen).grid({})[:2]
    assert (of_triplet.epochs, of_polynomial.epochs) == (4, 8)
    path = home / "runs/tiny/tuning.json"
    tried = read_json(path)
    assert {(of["whose"], of["epochs"]) for of in tried["polynomial"]["offered"]} >= {("", 4), ("triplet", 4), ("", 8)}
    assert all(len(of["rsums"]) >= 2 for of in tried["polynomial"]["offered"]), "each was tried"
    killed = {"triplet": tried["triplet"], "polynomial": {**tried["polynomial"]}}
    del killed["polynomial"]["offered"], killed["polynomial"]["whole"]
    write_json(path, killed)
    assert alike.tune_alike(a_request(home), ["triplet", "polynomial"]) == chosen and read_json(path) == tried
    longer = replace(a_request(home), base=replace(a_request(home).base, epochs=9))  # decay as before, so do the trials
    alike.tune_alike(longer, ["polynomial"])
    assert {of["epochs"] for of in read_json(path)["polynomial"]["offered"]} == {4, 9}


@pytest.mark.parametrize("terms", ["another width", "a tiny test before", "other data"])
def test_what_was_tuned_on_other_terms_is_tuned_anew(home, better_with_more, monkeypatch, terms):
    monkeypatch.setattr(alike, "TRIALS", 2)
    monkeypatch.setattr(alike, "WIDENINGS", 0)
    request = a_request(home)
    small = {"max_images": 40, "epochs": 2, "decay_epoch": 1} if "tiny" in terms else {}
    alike.tune_alike(replace(request, base=replace(request.base, **small), smoke=bool(small)), ["triplet"])
    before = len(better_with_more)
    if terms == "another width":
        request = replace(request, base=replace(request.base, embed_size=512))
    if terms == "other data":
        write_tiny(home / "data/tiny", {**SIZES, "train": 100})
    alike.tune_alike(request, ["triplet"])
    assert len(better_with_more) == before + 2
    assert better_with_more[-1].embed_size == request.base.embed_size and better_with_more[-1].max_images == 0


def test_settings_that_are_given_are_not_tuned(home, better_with_more):
    given = {"triplet": {"learning_rate": 1e-3, "loss_options": {"margin": 0.1}}}
    assert alike.tune_alike(a_request(home, tuned=given), ["triplet"]) == given
    assert not better_with_more


def test_coefficients_are_fitted_to_the_held_out_scores_of_the_tuned_loss(home, monkeypatch):
    asked, generator = [], torch.Generator().manual_seed(0)
    scores = torch.rand(3, 20, 20, generator=generator) * 0.2

    def of_the_run(folder, data_root):
        assert folder == alike.run_folders([trained[-1]])[0] and data_root == str(home / "data")
        asked.append(trained[-1])
        return scores

    trained = []
    monkeypatch.setattr(alike, "dev_batches", of_the_run)
    monkeypatch.setattr(Request, "train", lambda self, configs: trained.extend(configs))
    settings = {"polynomial": {"learning_rate": 1e-3, "loss_options": {"margin": 0.1}}}
    found = alike.fitted_coefficients(a_request(home), settings)
    (run,) = asked
    assert (run.learning_rate, run.loss_options, run.seed, run.epochs) == (
        1e-3,
        {"margin": 0.1},
        offers.SEED,
        ranges.EPOCHS,
    )
    assert found["positive_ceiling"] is None
    loss = LOSSES["polynomial"](**found)
    assert len(loss.positive) == len(loss.negative) == 3 and loss.positive != (0.5, -0.7, 0.2)
    assert alike.fitted_coefficients(a_request(home), settings) == found
    assert len(asked) == 1, "fitted once, for the weights may be gone"
    alike.fitted_coefficients(a_request(home), {"polynomial": {"learning_rate": 2e-3}})
    assert len(asked) == 2, "fitted anew to another model's"
    write_json(home / "runs/tiny/tuning.json", {"polynomial": {"terms": "", "trials": 1, "offered": []}})
    (folder,) = alike.run_folders([replace(run, epochs=8, decay_epoch=6)])
    write_json(folder / "results.json", {})  # numbers of another machine, without weights
    alike.fitted_coefficients(a_request(home), settings)
    assert (asked[-1].epochs, asked[-1].decay_epoch) == (8, 6), "chosen in trainings of full length"
    assert not folder.exists(), "else it would count as trained"
    with pytest.raises(UWMLError, match="polynomial_fitted: found no trials of the polynomial loss"):
        alike.fitted_coefficients(a_request(home), {})


def test_coefficients_are_fitted_as_soon_as_the_polynomial_loss_is_tuned(home, better_with_more, monkeypatch):
    monkeypatch.setattr(alike, "TRIALS", 2)
    monkeypatch.setattr(alike, "WIDENINGS", 0)
    fitted = []
    monkeypatch.setattr(alike, "fitted_coefficients", lambda request, settings: fitted.append(settings) or {})
    alike.tune_alike(a_request(home), ["triplet", "polynomial"])
    assert [found.keys() for found in fitted] == [{"triplet", "polynomial"}]


def test_a_failed_trial_counts_and_is_not_tried_again_unless_so_told(home, monkeypatch):
    trained = []

    def train(settings, folder, say, after_epoch=None):
        trained.append(settings)
        raise UWMLError("the loss is nan")

    monkeypatch.setattr(tuning, "train", train)
    sweep = Sweep(a_request(home).base, {"loss.margin": [0.1, 0.2]})
    for _ in range(2):
        states = [trial.state.name for trial in run_trials(sweep, quiet, again=False).values()]
        assert states == ["FAIL", "FAIL"] and len(trained) == 2
    run_trials(sweep, quiet)
    assert len(trained) == 4
    with pytest.raises(UWMLError, match=r"alike-infonce-\w+: found no trial that went well"):
        alike.tune_alike(a_request(home), ["infonce"])


# ------------------------------------------------------------------------------------------------ settings in a file


def test_settings_of_a_loss_and_of_a_variant(tmp_path):
    path = tmp_path / "settings.json"
    content = {
        "triplet": {"learning_rate": 1e-3, "loss_options": {"margin": 0.1}},
        FITTED: {"loss": "polynomial", "loss_options": {"margin": 0.1}},
    }
    write_json(path, content)
    assert read_settings(path) == content
    request = Request(config.preset("scenes"), (0,), False, quiet, tuned=content)
    (config_,) = request.grid({"batch_size": 8}, losses={"triplet": [{}]})
    assert (config_.learning_rate, config_.loss_options, config_.batch_size) == (1e-3, {"margin": 0.1}, 8)
    (config_,) = request.grid({}, losses={FITTED: [{"negatives": "average"}]})
    assert (config_.loss, config_.loss_options) == ("polynomial", {"margin": 0.1, "negatives": "average"})
    assert of_loss({}, "infonce") == {"loss": "infonce", "loss_options": {}}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"triplett": {}}, "triplett: unknown loss 'triplett'; did you mean 'triplet'"),
        ({"triplet": {"seed": 1}}, "triplet: seed is given by an option of its own, the same for all losses; a loss"),
        ({"triplet": {"model": "vse"}}, "triplet: model is given by an option of its own, the same for all losses"),
        ({"triplet": [1]}, r"triplet: found \[1\], expected an object of settings"),
        ({"triplet": {"learning_rat": 1}}, "triplet: configuration: unknown key 'learning_rat'; did you mean"),
        ({"triplet": {"loss_options": {"scale": 1}}}, "triplet: loss_options of triplet: found 'scale'"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, content, error):
    write_json(tmp_path / "settings.json", content)
    with pytest.raises(UWMLError, match=f"settings.json: {error}"):
        read_settings(tmp_path / "settings.json")


def test_epochs_that_are_asked_for_hold_for_every_loss(tmp_path):
    write_json(tmp_path / "settings.json", {"triplet": {"epochs": 4, "decay_epoch": 3, "batch_size": 8}})
    options = StudyOptions("scenes", settings=str(tmp_path / "settings.json"))
    assert given_settings(options)["triplet"] == {"epochs": 4, "decay_epoch": 3, "batch_size": 8}
    for quicker in ({"epochs": 2}, {"profile": "smoke"}, {"others": {"epochs": 2, "decay_epoch": 1}}):
        assert given_settings(replace(options, **quicker)) == {"triplet": {"batch_size": 8}}
    batch = replace(options, others={"batch_size": 4})
    assert given_settings(batch) == {"triplet": {"epochs": 4, "decay_epoch": 3}}
    assert given_settings(StudyOptions("scenes")) == {}


# ------------------------------------------------------------------------------------------------ numbers that are kept


def test_a_choice_on_other_terms_that_is_committed_is_not_replaced(home, better_with_more, monkeypatch):
    monkeypatch.setattr(alike, "TRIALS", 2)
    monkeypatch.setattr(alike, "WIDENINGS", 0)
    request = a_request(home, committed=Committed(home / "kept", "tiny"))
    alike.tune_alike(request, ["triplet"])
    before = {path: path.read_bytes() for path in (home / "kept").glob("*.json")}
    shorter = replace(request, base=replace(request.base, learning_rate=1e-4))
    with pytest.raises(UWMLError, match=r"kept/tuning.json: triplet: found triplet-\S+ \(.*--settings .*kept/settings"):
        alike.tune_alike(shorter, ["triplet"])
    assert {path: path.read_bytes() for path in before} == before and len(better_with_more) == 2
    alike.tune_alike(replace(shorter, committed=None), ["triplet"])
    assert len(better_with_more) == 4


def test_what_was_committed_on_other_terms_is_refused_and_not_replaced(home):
    request = a_request(home)
    folder = home / "kept/runs/triplet-seed1000-1"
    data = fingerprint(request.base.data_folder)
    for model in ({}, {"model": "vse_infinity", "siblings": "negatives"}, {"learning_rate": 1e-5, "epochs": 2}):
        about = {"config": replace(request.base, seed=7, **model).to_dict(), "data": data}
        write_json(folder / "config.json", about)
        Committed(home / "kept", "tiny").check(request.base)
    for changed, words in (
        ({"config": {**about["config"], "dataset": "flickr8k"}}, "dataset flickr8k, not tiny, expected runs on the"),
        ({"config": {**about["config"], "mixed_precision": "bf16"}}, "mixed_precision bf16, not no, expected"),
        ({"data": "another"}, "other data, splits or tokenizer .*, expected .* --settings .*kept/settings.json takes"),
        ({"config": {}}, "expected the settings of a run"),
    ):
        write_json(folder / "config.json", {**about, **changed} if changed != {"config": {}} else {})
        with pytest.raises(UWMLError, match=rf"triplet-seed1000-1/config.json: found .*{words}"):
            Committed(home / "kept", "tiny").check(request.base)


def test_what_is_committed_counts_as_done_and_what_is_finished_is_copied(home):
    committed = Committed(home / "kept", "scenes")
    run = write_run(paths.RUNS / "scenes/triplet-a", "triplet", 0, 3.0)
    (run.folder / "checkpoint").mkdir()
    (run.folder / "checkpoint/last.pt").write_text("weights")
    journal = paths.SWEEPS / "scenes/alike-triplet/journal.log"
    journal.parent.mkdir(parents=True)
    journal.write_text("one\n")
    write_json(paths.RUNS / "scenes/settings.json", {"triplet": {}})
    write_json(home / "kept/evidence.json", {"dataset": "scenes"})  # of a report: the runs' file is called the same
    for path in (run.folder, journal.parent, paths.RUNS / "scenes/settings.json"):
        committed.add(path)
    journal.write_text("one\ntwo\n")
    committed.add(journal.parent)
    kept = sorted(str(path.relative_to(home / "kept")) for path in (home / "kept").rglob("*") if path.is_file())
    of_run = [f"runs/triplet-a/{name}" for name in ("config.json", "metrics.jsonl", "results.json")]
    assert kept == ["evidence.json", *of_run, "settings.json", "sweeps/alike-triplet/journal.log"]
    trained = (run.folder / "results.json").stat().st_mtime
    for folder in ("runs", "sweeps"):
        (home / folder).rename(home / f"{folder}-before")
    assert committed.take() == 1 and committed.take() == 0
    assert type(run).load(paths.RUNS / "scenes/triplet-a").rsum == run.rsum
    assert not (paths.RUNS / "scenes/evidence.json").exists()
    assert (paths.RUNS / "scenes/triplet-a/results.json").stat().st_mtime == trained, "it would count as trained now"
    assert journal.read_text() == "one\ntwo\n" and read_json(paths.RUNS / "scenes/settings.json") == {"triplet": {}}
    write_json(paths.RUNS / "scenes/settings.json", {"triplet": {"batch_size": 8}, "infonce": {}})
    committed.take()
    both = {"triplet": {}, "infonce": {}}
    assert read_json(paths.RUNS / "scenes/settings.json") == both, "a choice made here replaces none"


def test_a_run_whose_numbers_were_changed_is_refused_even_without_its_weights(home):
    run = write_run(paths.RUNS / "scenes/triplet-a", "triplet", 0, 3.0)
    (run.folder / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UWMLError, match=r"metrics\.jsonl: was changed after it was written"):
        type(run).load(run.folder)


# ------------------------------------------------------------------------------------------------ the study


@pytest.mark.parametrize(("spread", "wide"), [(0.5, False), (9.0, True)])
def test_more_seeds_are_trained_where_the_interval_is_wide_whoever_is_ahead(spread, wide):
    triplet = made_runs({seed: 400.0 for seed in range(10)}, loss="triplet")
    polynomial = made_runs({seed: 420.0 + spread * (-1) ** seed for seed in range(10)}, loss="polynomial")
    assert evidence.interval_is_wide([*triplet, *polynomial]) == wide


def test_what_is_trained_and_with_which_seeds(home, monkeypatch):
    trained, noted = [], []
    tuned = {loss: {"learning_rate": 1e-3} for loss in (*alike.FIRST, *evidence.OTHERS)}
    tuned[FITTED] = {"loss": "polynomial", "loss_options": {"positive_ceiling": None}}
    monkeypatch.setattr(alike, "tune_alike", lambda request, losses: {loss: tuned[loss] for loss in losses})
    monkeypatch.setattr(evidence, "interval_is_wide", lambda runs: True)
    monkeypatch.setattr(evidence, "note_scores", lambda request, runs: noted.extend(runs))
    monkeypatch.setattr(Request, "train", lambda self, configs: trained.extend(configs) or list(configs))
    counts = []
    monkeypatch.setattr(evidence, "_note", lambda name, found: counts.append([name, *map(len, found.values())]))
    monkeypatch.setattr(evidence, "draw_scores", lambda *of: None)
    request = replace(a_request(home), seeds=evidence.STUDY.seeds)
    groups = evidence.train_the_tuned(request, {})
    seeds = lambda group, **wanted: sorted(  # noqa: E731
        run.seed for run in groups[group] if all(getattr(run, name) == value for name, value in wanted.items())
    )
    for loss in alike.FIRST:
        assert seeds("runs", loss=loss) == [*range(20)]
        assert seeds("models", loss=loss, direction="t2i") == [0, 1, 2]
        assert seeds("models", loss=loss, model="vse_infinity") == [0, 1, 2]
    for loss in evidence.OTHERS:
        assert seeds("runs", loss=loss) == [*range(5)]
    assert seeds("coefficients", loss="polynomial") == [*range(5)]
    assert all(run.loss_options == {"positive_ceiling": None} for run in groups["coefficients"])
    assert all(run.lambda_softmax is None for run in groups["models"])
    assert {run.seed for run in noted} == {0} and len(noted) == 2 + 1 + 3 + 4
    after_each_step = [(20, 0, 0), (40, 0, 0), (40, 5, 0), (55, 5, 0), (55, 5, 12)]
    assert counts == [[request.base.dataset, *of] for of in after_each_step]
    monkeypatch.setattr(evidence, "interval_is_wide", lambda runs: False)
    assert len(evidence.train_the_tuned(request, {})["runs"]) == 2 * 10 + 3 * 5


def test_what_there_is_so_far_is_noted_and_replaces_nothing_that_has_more(study):
    two, path = list(study.by_loss()["triplet"] + study.by_loss()["polynomial"]), paths.RUNS / "scenes/evidence.json"
    few = {"runs": two, "coefficients": [], "models": []}
    assert evidence._note("scenes", few).runs == tuple(two)
    report = evidence.report(load_study("scenes", "evidence"))
    left = "polynomial_fitted, polynomial_relative, infonce, multi_similarity, other models"
    assert report.notes[-1] == f"Not trained yet: {left}.", "whatever the number of seeds"
    everything = {name: list(runs) for name, runs in study.groups.items()}
    evidence._note("scenes", everything)
    whole = path.read_bytes()
    assert evidence._note("scenes", few).runs == tuple(two) and path.read_bytes() == whole
    evidence._note("scenes", {**few, "runs": [write_run(paths.RUNS / "scenes/new-0", "triplet", 0, 2.0)]})
    assert read_json(path)["runs"] == ["new-0"], "another training than any there"


@pytest.fixture
def study(home) -> StudyRuns:
    def of(loss, qualities, **settings):
        folder = paths.RUNS / "scenes"
        name = "-".join([loss, *map(str, settings.values())])
        return [write_run(folder / f"{name}-{seed}", loss, seed, x, **settings) for seed, x in enumerate(qualities)]

    two = [*of("triplet", (2.0, 2.1, 2.2), learning_rate=2e-3), *of("polynomial", (3.0, 3.1, 3.2))]
    others = of("infonce", (2.0, 2.4))
    options = {"negative": [0.3354, -2.1619, 3.4487], "positive_ceiling": None}
    fitted = of("polynomial", (3.3, 3.4, 3.5), loss_options=options)
    models = [*of("triplet", (1.0, 1.1), direction="t2i"), *of("polynomial", (1.0, 1.2), direction="t2i")]
    groups = {"runs": two + others, "coefficients": fitted, "models": models}
    return StudyRuns("scenes", {name: tuple(runs) for name, runs in groups.items()})


def test_the_report_says_who_is_ahead_with_what_and_how_surely(study):
    write_json(paths.RUNS / "scenes/settings.json", {
        "triplet": {"learning_rate": 2e-3, "loss_options": {}}, "polynomial": {"loss_options": {}},
        "infonce": {"learning_rate": 1e-3, "loss_options": {}},
    })  # fmt: skip
    offered = [
        {"whose": "", "epochs": 4, "rsums": {"1000": 320.0, "1001": 322.0}},
        {"whose": "another tuning of triplet", "epochs": 8, "rsums": {"1000": 310.0}},
    ]
    write_json(paths.RUNS / "scenes/tuning.json", {"triplet": {
        "trials": 16, "pruned": 4, "failed": 1, "contenders": 3, "chosen_by": "dev", "at_edge": ["learning_rate"],
        "rsums": {"1000": 320.0, "1001": 322.0}, "taken_from": "", "offered": offered, "own": {"learning_rate": 2e-3},
        "space": {"learning_rate": {"low": 1e-3, "high": 2e-2}, "batch_size": [8, 16], "loss.margin": [0.1]},
    }})  # fmt: skip
    report = tuned_losses(study)
    i2t, t2i = "SCAN, i2t Mean", "SCAN, t2i Mean"
    assert [(*label.split(": "), seeds) for label, seeds in report.table["seeds"].items()] == [
        (i2t, FITTED, 3), (i2t, "polynomial", 3), (i2t, "infonce", 2), (i2t, "triplet", 3), (t2i, "polynomial", 2),
        (t2i, "triplet", 2),
    ], "of each model the best first"  # fmt: skip
    assert [*report.table["better"]] == [FITTED, "polynomial", "not decided", "", "not decided", ""]
    assert report.verdict == "polynomial is better" and report.decided
    tuned = "on scenes, each loss tuned"  # which is another question than that of one setting for both
    assert report.outcomes == {f"{i2t} {tuned}": "polynomial", f"{t2i} {tuned}": ""}
    first, by_seed, by_direction, every, in_pairs, fitted = report.findings
    assert by_seed.startswith("Seed by seed on scenes, both tuned: the polynomial loss is ahead with 3 of 3 seeds (")
    assert "On scenes, both losses tuned alike, the polynomial loss reaches an rsum of 575.3 ±" in first
    assert "3 seeds each), a difference of +" in first and first.endswith(
        "images (95 % intervals); polynomial is better."
    )
    each = [[sum(run.metrics[f"{way}_recall_at_{k}"] for k in RECALL_AT) for run in study.runs[:6]] for way in WAYS]
    apart = [f"{np.mean(of[3:]) - np.mean(of[:3]):+.1f} [" for of in each]
    assert f"image to text {apart[0]}" in by_direction and f"text to image {apart[1]}" in by_direction
    assert sum(float(of[:-2]) for of in apart) == pytest.approx(575.3 - 495.8, abs=0.2)
    assert every.startswith(
        "4 losses on scenes, each tuned by the same rule. The highest mean rsums: polynomial_fitted "
    )
    assert every.endswith(f"Better than the triplet loss: {FITTED}, polynomial; worse: none; not decided: infonce.")
    assert in_pairs.startswith("Of 6 pairs of losses ")
    assert "with coefficients fitted to its scores, tuned alike: its rsum changes by +" in fitted
    text = report.to_markdown()
    assert "All but polynomial − triplet are corrected for their number, 3 (Holm)." in text
    assert "Where the best trial lay at the edge of a range or beyond, the range was widened" in text
    assert "had the highest rsum on dev was kept, which need not be that of the best trial. With few trials" in text
    assert "Two tunings of one loss" not in text
    tuning = read_json(paths.RUNS / "scenes/tuning.json")
    tuning["triplet"] |= {"epochs": 4, "offered": [offered[0], {**offered[1], "epochs": 4}]}
    write_json(paths.RUNS / "scenes/tuning.json", tuning)
    twice = how_tuned(study.by_loss(), {"triplet": ({}, "3 trials")})
    assert "Where the best trial, or what another tuning had chosen, lay" in twice
    assert "their worst seeds reach 320.0 and 310.0 with triplet on the images that chose." in twice
    assert "its result. The data set's own settings were kept by: polynomial. " in text
    given = "Settings that were given, and not chosen here: those of polynomial_fitted, infonce."
    assert given in text, "for the file beside the runs has others, or none"
    chosen = report.further["What was chosen"]
    assert chosen.loc[[f"{i2t}: triplet", f"{t2i}: triplet"], "learning rate"].tolist() == ["0.002", "0.004"]
    assert chosen.loc[f"{i2t}: {FITTED}", "of the loss"] == "negative 0.34 -2.2 3.4"
    (tried,) = report.further["What was tried"].reset_index().to_dict("records")
    assert (tried["trials (pruned, failed)"], tried["at an edge, nothing tried beyond"]) == (
        "16 (4, 1)",
        "learning_rate",
    )
    assert (tried["with further seeds"], tried["rsum of its own best on dev"]) == (3, "321.0 ± 1.4")
    own, other = report.further["What was offered, and taken"].reset_index().to_dict("records")
    assert (own["settings of"], own["rsum on dev, seed by seed"], own["taken"]) == (
        "its own trials",
        "320.0 322.0",
        "yes",
    )
    assert (other["settings of"], other["epochs"], other["worst"]) == ("another tuning of triplet", 8, "310.0")
    assert not other["taken"]
    assert "The settings that were offered" in report.further
    ranges = tried["learning rate"], tried["batch"], tried["of the loss"]
    assert ranges == ("0.001 to 0.02", "8 16", "margin 0.1")
    lies = report.further[WHERE_SCORES_LIE].iloc[0]
    assert (lies["positives, in training"], lies["hardest negatives, in training"]) == ("0.50", "0.40")
    json.dumps(report.data, allow_nan=False)


def test_where_the_scores_lie_is_noted_once_and_shown(study, home, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    batches = torch.full((2, 10, 10), 0.2) + 0.01 * torch.rand(2, 10, 10, generator=generator)
    batches += 0.5 * torch.eye(10)  # positives about 0.7, all negatives in the released coefficients' dead zone
    monkeypatch.setattr(score_ranges, "dev_batches", lambda folder, data_root: batches)
    (study.runs[0].folder / "checkpoint").mkdir()
    (study["coefficients"][0].folder / "checkpoint").mkdir()
    request, kept = replace(a_request(home), base=config.preset("scenes")), []
    request = replace(request, committed=SimpleNamespace(add=kept.append))
    for _ in range(2):
        score_ranges.note_scores(request, [study.runs[0], study.runs[3], study["coefficients"][0]])
    noted = read_json(paths.RUNS / "scenes/scores.json")
    assert noted.keys() == {study.runs[0].folder.name, study["coefficients"][0].folder.name} and len(kept) == 2
    first = noted[study.runs[0].folder.name]
    moved = first["moved"]["released"]
    assert moved["positive"]["moved the right way"] == 1 and moved["negative"]["not moved"] == 1
    assert sum(moved["negative"].values()) == 1
    assert 0.7 <= first["quantiles"]["positive"][0] <= first["quantiles"]["positive"][-1] <= 0.71
    report = tuned_losses(study)
    (pushed,) = (said for said in report.findings if said.startswith("The released coefficients push"))
    assert "hardest negatives of trained models on scenes: 0% after training with the triplet loss (seed 0;" in pushed
    (fitted,) = (said for said in report.findings if said.startswith("Coefficients fitted on scenes push"))
    own = noted[study["coefficients"][0].folder.name]["moved"]["own"]["negative"]
    assert f" push {own.get('moved the right way', 0):.0%} of the hardest negatives" in fitted
    assert not any("weighs positives" in said for said in report.findings), "its scores are not known"
    lie = {"positive": [0.2, 0.4, 0.5, 0.6, 0.7], "negative": [0.3, 0.4, 0.4, 0.4, 0.5]}
    known = {**noted, study.runs[3].folder.name: {**first, "quantiles": lie}}
    write_json(paths.RUNS / "scenes/scores.json", known)
    (weighed,) = (said for said in tuned_losses(study).findings if "weighs positives" in said)
    assert "from 0.62 down to 0.42 and hardest negatives from 0.14 up to 0.50 (seed 0;" in weighed
    assert weighed.endswith("50% of the anchors were informative, with the triplet loss 50%.")
    write_json(paths.RUNS / "scenes/scores.json", noted)
    row = report.further[WHERE_SCORES_LIE].iloc[0]
    assert row["negatives, 1 to 99 %"] in ("0.20 to 0.21", "0.21 to 0.21")
    assert row["hardest negatives not moved by the released coefficients"] == "100%"
    drawn = []
    monkeypatch.setattr(figures, "score_ranges", lambda *given: drawn.append(given) or figures.panels(1, 1, 1, 1))
    draw_scores(study, home / "figures/score_ranges.png")
    ((ranges, zones),) = drawn
    assert ranges == {"triplet": first["quantiles"], FITTED: noted[study["coefficients"][0].folder.name]["quantiles"]}
    assert zones and (home / "figures/score_ranges.png").exists(), "and polynomial, whose scores are not known, is not"
    monkeypatch.undo()
    figures.score_ranges(ranges, zones)


def test_settings_that_are_silent_are_the_data_sets(study):
    """A given file may differ in what the choice leaves open."""
    path, runs = paths.RUNS / "scenes/settings.json", study.by_loss()
    write_json(path, {"polynomial": {"loss_options": {}}})
    assert chosen_here({"polynomial": runs["polynomial"]}) == ["polynomial"]
    for other in ({"learning_rate": 1e-3}, {"batch_size": 256}, {"loss_options": {"margin": 0.3}}):
        changed = [replace(run, config=replace(run.config, **other)) for run in runs["polynomial"]]
        assert chosen_here({"polynomial": changed}) == [], other
        assert "not chosen here: those of polynomial." in how_tuned({"polynomial": changed}, {})


def test_the_report_says_by_which_rule_there_are_so_many_seeds(home, monkeypatch):
    losses = {"triplet": 2.0, "polynomial": 3.0}

    def notes(seeds):
        folder = paths.RUNS / f"scenes{len(seeds)}"
        shutil.rmtree(folder, ignore_errors=True)
        runs = [write_run(folder / f"{loss}-{s}", loss, s, at + s / 50) for loss, at in losses.items() for s in seeds]
        return " ".join(evidence.report(StudyRuns("scenes", {"runs": tuple(runs)})).notes)

    left = "polynomial_fitted, polynomial_relative, infonce, multi_similarity, other models."
    assert notes(range(10)).endswith(f"Not trained yet: 10 more seeds of triplet and polynomial, {left}")
    monkeypatch.setattr(evidence, "WIDEST", 100.0)
    ten = notes(range(10))
    assert "fixed before any training: 10 of triplet and polynomial, and 10 more if" in ten
    assert ten.endswith(f"Not trained yet: {left}"), "as it is shown before all is trained"
    assert "fixed before" not in notes(range(3)), "others were asked for"


def test_the_published_gain_is_compared_with_what_photographs_gave(study):
    photographs = replace(study, dataset="f8k_regions")
    (said,) = (sentence for sentence in tuned_losses(photographs).findings if "Flickr30K" in sentence)
    assert said.endswith(
        "loss, +8.5 over the published triplet loss and +13.3 over the one that others retrained, are of Flickr30K "
        "with better features; both lie below what these intervals span."
    )
    assert not any("Flickr30K" in sentence for sentence in tuned_losses(study).findings), "not of digits"
    one = StudyRuns("f8k_regions", {"runs": tuple(run for run in study.runs if run.seed == 0)})
    assert not any("Flickr30K" in sentence for sentence in tuned_losses(one).findings), "no interval, no verdict"


def test_effects_are_shares_of_the_scores():
    loss = LOSSES["polynomial"]()
    scores = np.array([-0.5, 0.05, 0.2, 0.2, 0.5, 0.9, 1.0, 1.2])
    assert score_ranges.effects(loss, "negative", scores) == {
        "moved the wrong way": 0.25, "not moved": 0.25, "moved the right way": 0.5,
    }  # fmt: skip


def test_one_model_is_not_named_in_every_row(study):
    one = StudyRuns("scenes", {"runs": study.runs})
    assert [*tuned_losses(one).table.index] == ["polynomial", "infonce", "triplet"]
    assert len(tuned_losses(one).findings) == 5, "nothing of coefficients where none were fitted"


def test_every_pair_of_losses_once_each_way(study):
    table = tuned_losses(study).further[EVERY_PAIR]
    polynomial, triplet = "2. polynomial", "4. triplet"
    assert [*table.index] == [f"1. {FITTED}", polynomial, "3. infonce", triplet], "the best first"
    assert [*table.columns] == [1, 2, 3, 4]
    assert table.loc[polynomial, 4].startswith("+") and table.loc[triplet, 2].startswith("-")
    assert table.loc[polynomial, 4][1:].rstrip("*") == table.loc[triplet, 2][1:].rstrip("*")
    assert table.loc[triplet, 4] == ""


def test_pairs_in_words_read_right_for_none_one_and_many():
    def said(**rsums):
        runs = {loss: [*made_runs(dict(enumerate(values)), loss=loss)] for loss, values in rsums.items()}
        return pairs_in_words(every_pair(runs))

    low, high, mixed = (400.0, 401.0, 402.0), (440.0, 441.5, 442.5), (380.0, 425.0, 430.0)
    assert said(triplet=low, infonce=mixed) == (
        "Of 1 pair of losses none differ statistically significantly. "
        "Shown to be worse than no other: infonce, triplet."
    )
    assert said(triplet=low, infonce=high) == (
        "Of 1 pair of losses 1 differs statistically significantly. infonce is better than triplet. "
        "Shown to be worse than no other: infonce."
    )
    many = said(triplet=low, infonce=high, circle=(441.0, 440.0, 442.0), sigmoid=(300.0, 301.0, 303.0))
    assert many.startswith(
        "Of 6 pairs of losses 5 differ statistically significantly. infonce is better than triplet, "
    )
    assert many.endswith("triplet is better than sigmoid. Shown to be worse than no other: infonce, circle.")


# ------------------------------------------------------------------------------------------------ training on


def test_models_are_trained_on_as_they_were_but_for_the_loss(home, monkeypatch):
    base = config.preset("tiny", data_root=str(home / "data"), epochs=8, decay_epoch=6, batch_size=32)
    settings = {"loss_options": {"margin": 0.1}, "learning_rate": 3e-3, "warmup_epochs": 2, "embed_size": 16}
    starts = [
        write_run(paths.RUNS / f"scenes/triplet_all-{seed}", "triplet_all", seed, 2.0, **settings) for seed in (0, 1)
    ]
    generator = torch.Generator().manual_seed(0)
    batches = 0.1 * torch.rand(2, 10, 10, generator=generator) - 0.6 + 0.2 * torch.eye(10)
    monkeypatch.setattr(alike, "dev_batches", lambda folder, data_root: batches)
    request = Request(base, (0, 1), False, quiet)
    configs = compare.further(request, starts)
    assert [item.loss for item in configs] == ["triplet_all", "polynomial", "polynomial"] * 2
    for start, of_start in zip(starts, (configs[:3], configs[3:]), strict=True):
        own, released, fitted = of_start
        assert {item.start_from for item in of_start} == {start.folder.name}
        assert own.loss_options == {"margin": 0.1} and released.loss_options == {}
        assert fitted.loss_options.keys() == {"positive", "negative", "positive_ceiling"}
        for item in of_start:
            assert (item.epochs, item.decay_epoch, item.warmup_epochs, item.seed) == (4, 3, 0, start.seed)
            changed = {"loss", "loss_options", "start_from", "epochs", "decay_epoch", "warmup_epochs"}
            kept = item.identity.keys() - changed
            assert {name: item.identity[name] for name in kept} == {name: start.config.identity[name] for name in kept}
    inside = [
        tuple(pair.quantile(torch.tensor([0.05, 0.95])).tolist()) for pair in positives_and_hardest_negatives(batches)
    ]
    zones = describe(PolynomialLoss(**configs[2].loss_options), *inside).zones
    assert {zone.effect for zone in zones} == {"moved the right way"}
    assert read_json(home / "runs/tiny/coefficients.json").keys() == {start.folder.name for start in starts}


def test_the_models_with_the_lowest_hard_negatives_are_trained_on(monkeypatch):
    runs = [run for loss in ("triplet", "polynomial", "circle") for run in made_runs({0: 1.0, 1: 2.0}, loss=loss)]
    ends = {("triplet", 0): 0.4, ("triplet", 1): -0.3, ("circle", 0): 0.0, ("circle", 1): -0.1}

    def last_epoch(run):
        return pd.DataFrame({"hardest_negative_score": [ends.get((run.config.loss, run.seed), -0.9)]})

    monkeypatch.setattr(Run, "last_epoch", last_epoch)
    assert [(run.config.loss, run.seed) for run in compare.lowest(runs)] == [("circle", 0), ("circle", 1)]


def test_a_collapsed_model_is_not_trained_on_and_a_damaged_file_is_no_collapse(home, monkeypatch):
    start = write_run(paths.RUNS / "scenes/triplet_all-0", "triplet_all", 0, 2.0)
    request, said = Request(config.preset("tiny", data_root=str(home / "data")), (0,), False, quiet), []
    monkeypatch.setattr(alike, "dev_batches", lambda folder, data_root: torch.full((2, 10, 10), 0.5))
    assert compare.further(replace(request, say=said.append), [start]) == []
    assert "not trained on: " in said[0] and "no coefficients fit its scores" in said[0] and "collapsed?" in said[0]
    for content in ({start.folder.name: {}}, {start.folder.name: 5}):
        write_json(home / "runs/tiny/coefficients.json", content)
        with pytest.raises(UWMLError, match="coefficients.json: .*, expected an object with positive and negative"):
            compare.further(request, [start])


def trained_on_of(starts, **later) -> StudyRuns:
    """A study of models whose further trainings had these rsums."""
    runs = made_runs(dict(enumerate(starts)), loss="triplet_all")
    losses = {
        "own": {"loss": "triplet_all"}, "released": {"loss": "polynomial"},
        "fitted": {"loss": "polynomial", "loss_options": {"negative": [0.1, 0.2, 0.3]}},
    }  # fmt: skip
    further = [
        made_run(rsum, seed=run.seed, start_from=run.folder.name, epochs=4, **losses[name])
        for name, rsums in later.items()
        for run, rsum in zip(runs, rsums, strict=True)
    ]
    return StudyRuns("scenes", {"runs": runs, "trained_on": tuple(reversed(further))})


def test_what_became_of_models_that_were_trained_on():
    study = trained_on_of(
        (400.0, 410.0, 420.0), own=(401.0, 409.5, 420.5), released=(300.0, 420.0, 425.0), fitted=(430.0, 440.5, 451.0)
    )
    groups = trained_on.models(study)
    assert [*groups] == ["start", "own loss", "released coefficients", "fitted coefficients"]
    assert [run.rsum for run in groups["start"]] == [400.0, 410.0, 420.0]
    assert [run.rsum for run in groups["fitted coefficients"]] == [430.0, 440.5, 451.0]
    table = trained_on.table(groups)
    assert table.loc["released coefficients", ["seed 0", "seed 1", "seed 2"]].tolist() == ["300.0", "420.0", "425.0"]
    assert table.loc["start", "− start, over seeds"] == ""
    found = trained_on.against_start(groups)
    assert {item.family for item in found.values()} == {2, 3}, "Holm: the surest of three, then of two"
    words = trained_on.in_words(groups)
    assert words.startswith(
        "3 models of triplet_all (rsum 410.0 ± 10.0) trained further for 4 epochs, change in rsum: own "
    )
    assert words.endswith("Statistically significant: fitted coefficients (gain).")
    harmed = trained_on_of((400.0, 410.0), own=(400.0, 411.0), released=(400.5, 410.0), fitted=(399.0, 415.0))
    assert trained_on.in_words(trained_on.models(harmed)).endswith("Statistically significant: none.")
    assert trained_on.models(StudyRuns("scenes", {"runs": study.runs})) == {}
    with pytest.raises(UWMLError, match="begins with .*, expected a run of the study"):
        trained_on.models(StudyRuns("scenes", {"runs": study.runs[:1], "trained_on": study["trained_on"]}))
    others = tuple(run for run in study["trained_on"] if run.config.loss == "polynomial")
    with pytest.raises(UWMLError, match="trained on: found .* alone, expected runs that went on with their own loss"):
        trained_on.models(StudyRuns("scenes", {"runs": study.runs, "trained_on": others}))


def test_the_report_of_all_losses_says_what_became_of_them(study, monkeypatch):
    runs = tuple(
        replace(run, config=replace(run.config, start_from=start.folder.name))
        for start in study.by_loss()["triplet"]
        for run in study["coefficients"]
        if run.seed == start.seed
    )
    own = tuple(replace(run, config=replace(run.config, start_from=run.folder.name)) for run in study.runs[:3])
    report = compare.report(StudyRuns("scenes", {**study.groups, "trained_on": (*own, *runs)}))
    assert [*report.further][-1] == "Models of triplet, trained further"
    assert "models of triplet (rsum" in report.findings[-1] and "fitted coefficients (gain)" in report.findings[-1]
    assert set(report.runs["begins with"]) >= {study.runs[0].folder.name}
    assert "Models of triplet, trained further" not in compare.report(study).further


def test_runs_of_unequal_seeds_are_compared_by_welch_and_the_first_question_stands_alone(study):
    found = comparisons(groups_of(study))
    first = found["SCAN, i2t Mean", "polynomial"]
    assert first.family == 1 and {one.family for key, one in found.items() if key[1] != "polynomial"} <= {1, 2, 3}
    assert found["SCAN, i2t Mean", "infonce"].n == (2, 3)
    difference = np.mean([run.rsum for run in study["coefficients"]]) - np.mean([run.rsum for run in study.runs[:3]])
    assert found["SCAN, i2t Mean", FITTED].over_seeds.difference == pytest.approx(difference)


def test_losses_may_have_settings_of_their_own_but_the_runs_of_one_have_the_same(study):
    study.check_comparable()
    for name, of in (("batch_size", study.runs[:1]), ("embed_size", study.by_loss()["infonce"])):
        with pytest.raises(UWMLError, match=f"differs from .* in {name}"):
            altered(study, of, **{name: 99}).check_comparable()
    with pytest.raises(UWMLError, match="in embed_size"):
        compare.report(altered(study, study.by_loss()["infonce"], embed_size=99))
    with pytest.raises(UWMLError, match="runs: found those of triplet, expected some of triplet and of polynomial"):
        compare.report(StudyRuns("scenes", {"runs": tuple(study.by_loss()["triplet"])}))
    write_json(paths.RUNS / study.dataset / "settings.json", {"triplet": {"learning_rate": 2e-3}})
    write_json(paths.RUNS / study.dataset / "tuning.json", {"triplet": {}})
    with pytest.raises(UWMLError, match="tuning.json: found .*, expected what was tried for each loss"):
        compare.report(study)


@pytest.mark.slow
def test_evidence_from_the_data_to_the_table_and_again_elsewhere_from_what_is_committed(tmp_path):
    """In small; where nothing but the committed folder is known, the same table comes of it, and nothing is trained."""
    tables = []
    for home in ("first", "second"):
        command = [sys.executable, "-m", "uwml_lib.cli", "evidence", "--profile", "smoke", "--committed", "../kept"]
        environment = {**os.environ, "UWML_HOME": str(tmp_path / home), "OMP_NUM_THREADS": "1"}
        (tmp_path / home).mkdir()
        done = subprocess.run(
            command, cwd=tmp_path / home, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        assert ("epoch 2/2" in done.stdout) == (home == "first")
        tables.append(done.stdout.partition("## scenes_smoke: losses tuned alike")[2].partition("Done in")[0])
    assert tables[0] == tables[1] and tables[0].count(": polynomial ") >= 6
    assert read_settings(tmp_path / "kept/settings.json").keys() == {*alike.FIRST, FITTED, *evidence.OTHERS}
    first, index = (
        (tmp_path / home / "reports/pages/runs/scenes_smoke/evidence.html").read_text(encoding="utf-8")
        for home in ("first", "second")
    )
    assert "How long the command takes" in first and "How long the command takes" not in index
    assert "What was tried" in index and "Every pair of losses" in index
    assert "score_ranges" in first and "score_ranges" in index, "the figure of where the scores lie"
    path, *_ = (tmp_path / "kept/runs").glob("*/config.json")
    about = read_json(path)
    write_json(path, {**about, "data": "another"})
    done = subprocess.run(command, cwd=tmp_path / home, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1 and "other data, splits or tokenizer" in done.stderr
