"""Sweeps: what is drawn, who trains what, which setting is chosen; and a real one, killed, that ends like any other."""

import json
import math
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import psutil
import pytest

from tests.tiny import SIZES, write_tiny
from tests.training.test_kill import digests, run_outcome
from uwml_lib import config
from uwml_lib.cli import main, parse
from uwml_lib.reports import figures
from uwml_lib.reports.site import site
from uwml_lib.reports.tables import COLUMNS
from uwml_lib.studies import sweep
from uwml_lib.studies.search_space import DEFAULT_SPACE, configured, read_space, settings_of
from uwml_lib.studies.sweep import Setting, Sweep, claim, is_held, this_machine, work
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import create_sealed_json, read_json, read_sealed_json, write_json

mpl.use("agg")

RANGES = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "loss.margin": {"low": 0, "high": 0.4},
    "batch_size": {"low": 8, "high": 11},
    "direction": ["i2t", "t2i"],
}


def quiet(line: str) -> None:
    pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder for reports and a tiny data set; pages are not built."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "SWEEPS", tmp_path / "sweeps")
    monkeypatch.setattr(sweep, "site", SimpleNamespace(build=lambda say: tmp_path / "index.html"))
    monkeypatch.setattr(sweep, "workers", lambda threads: 1)
    (tmp_path / "sweeps/tiny/test").mkdir(parents=True)
    write_tiny(tmp_path / "data/tiny", {**SIZES, "train": 64})  # a batch of the default size
    return tmp_path


def some_runs(count: int) -> Sweep:
    """A sweep of single runs whose configurations nobody reads."""
    settings = [Setting(number, {"loss.margin": number / 10}, {f"run{number}": None}) for number in range(1, count + 1)]
    return Sweep("tiny", "test", tuple(settings))


def finish(this: Sweep, run: str) -> None:
    folder = this.run_folder(run)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")


def hold(this: Sweep, run: str, number: int = 0, age: float = 0, **holder) -> Path:
    """Make a claim that was last heard of `age` seconds ago."""
    path = this.claim(run, number)
    assert create_sealed_json(path, {"host": "here", "machine": this_machine(), "pid": os.getpid(), **holder})
    os.utime(path, (time.time() - age,) * 2)
    return path


def gone_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


# ------------------------------------------------------------------------------------------------ what is tried


def test_a_grid_is_every_combination_in_order():
    space = {"loss.margin": [0.1, 0.2], "learning_rate": [1e-3], "direction": ["i2t", "t2i"]}
    assert [tuple(values.values()) for values in settings_of(space)] == [
        (0.1, 1e-3, "i2t"), (0.1, 1e-3, "t2i"), (0.2, 1e-3, "i2t"), (0.2, 1e-3, "t2i"),
    ]  # fmt: skip


def test_a_seed_draws_the_same_everywhere_and_within_the_ranges():
    drawn = settings_of(RANGES, 40, 3)
    assert drawn == settings_of(RANGES, 40, 3) == settings_of(RANGES, 50, 3)[:40]
    assert drawn != settings_of(RANGES, 40, 4)
    assert drawn[0] == {"learning_rate": 0.000299178, "loss.margin": 0.217692, "batch_size": 9, "direction": "t2i"}
    assert len({json.dumps(values) for values in drawn}) == 40
    rates, margins, sizes, directions = (np.array([values[name] for values in drawn]) for name in RANGES)
    assert 1e-4 <= rates.min() < 2e-4 and 5e-3 < rates.max() <= 1e-2
    assert 0.3 < (rates < 1e-3).mean() < 0.7, "the logarithm is drawn evenly"
    assert 0 <= margins.min() < 0.05 and 0.35 < margins.max() <= 0.4
    assert set(sizes.tolist()) == {8, 9, 10, 11} and {type(size) for size in sizes.tolist()} == {int}
    assert set(directions) == {"i2t", "t2i"}


def test_lists_are_drawn_without_repetition():
    space = {"loss.margin": [0.1, 0.2, 0.3], "direction": ["i2t", "t2i"]}
    drawn = settings_of(space, 6, 0)
    assert sorted(map(str, drawn)) == sorted(map(str, settings_of(space)))
    with pytest.raises(UWMLError, match="samples: found 7, but this space gives only 6 settings that differ"):
        settings_of(space, 7, 0)


def test_a_setting_becomes_a_configuration():
    base = config.preset("scenes", data_root="/data")
    found = configured(base, {"loss": "triplet", "loss.margin": 0.1, "epochs": 3}, seed=5)
    assert found == config.preset(
        "scenes", data_root="/data", loss="triplet", loss_options={"margin": 0.1}, epochs=3, seed=5
    )


def test_a_space_is_a_file_or_json_itself(tmp_path):
    write_json(tmp_path / "margins.json", {"loss.margin": [0.1]})
    assert read_space(str(tmp_path / "margins.json")) == read_space(' {"loss.margin": [0.1]}') == {"loss.margin": [0.1]}
    for words, message in (("{", "space: not readable as JSON"), (str(tmp_path / "no"), "no: no such file")):
        with pytest.raises(UWMLError, match=message):
            read_space(words)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({}, {}, "space: found no settings"),
        ({"learning_rte": [1]}, {}, "space: unknown name 'learning_rte'; did you mean 'learning_rate'?"),
        ({"margin": [0.1]}, {}, "space: unknown name 'margin'; did you mean 'loss.margin'?"),
        ({"loss.check_finite": [True]}, {}, "space: unknown name 'loss.check_finite'; "),
        ({"seed": [0, 1]}, {}, "space: seed is no setting to choose; give seeds by --seeds"),
        ({"loss_options": [{}]}, {}, "space: loss_options is not given whole"),
        ({"max_images": [10, 20]}, {}, "space: max_images decides which images"),
        ({"workers": [0, 1]}, {}, "space: workers cannot change a result"),
        ({"loss.margin": []}, {}, "space: loss.margin: found [], expected a list of values"),
        ({"loss.margin": 0.1}, {}, "space: loss.margin: found 0.1, expected a list of values"),
        ({"loss.margin": 0.1}, {"samples": 2}, "space: loss.margin: found 0.1, expected a list of values or a range"),
        ({"loss.margin": [0.1, 0.2, 0.1]}, {}, "space: loss.margin: found 0.1 twice"),
        ({"epochs": [2, 2.0]}, {}, "space: epochs: found 2.0 twice"),
        ({"loss.margin": {"low": 0, "high": 1}}, {}, "found a range, which is for --samples"),
        ({"loss.margin": {"low": 1, "high": 0}}, {"samples": 2}, "numbers with low below high"),
        ({"loss.margin": {"low": 0, "high": 1, "log": True}}, {"samples": 2}, 'for "log": true both above 0'),
        ({"loss.margin": {"low": 0, "hihg": 1}}, {"samples": 2}, "'hihg': 1}, expected"),
        ({"loss.margin": {"low": 0, "high": math.inf}}, {"samples": 2}, "numbers with low below high"),
        ({"batch_size": {"low": 8, "high": 9.5}}, {"samples": 2}, "whole numbers with low below high"),
        ({"learning_rate": ["fast"]}, {}, "learning_rate: found 'fast', expected a finite number"),
        ({"bidirectional": {"low": 0, "high": 1}}, {"samples": 2}, "expected true or false"),
        ({"loss.margin": [0.1, "wide"]}, {}, "loss_options of polynomial: margin: found 'wide'"),
        ({"loss.temperature": [0.1]}, {}, "loss_options of polynomial: "),
        ({"loss": ["triplet", "hinge"]}, {}, "loss: found 'hinge', expected one of"),
        ({"loss.margin": [0.1]}, {"samples": -1}, "samples: found -1"),
        ({"loss.margin": [0.1]}, {"samples": 10**6}, "samples: found 1,000,000, expected at most 10,000"),
        ({"loss.margin": [n / 1e3 for n in range(6000)]}, {}, "space: found 12,000 runs, expected at most 10,000"),
        ({"loss.margin": list(range(200)), "epochs": list(range(1, 200))}, {}, "a grid of 39,800 settings"),
        ({"epochs": [1, 2]}, {"epochs": 3}, "epochs: is in the space and given besides"),
        ({"loss.margin": [0.1]}, {"name": "../x"}, "name: found '../x'"),
        ({"loss.margin": [0.1]}, {"seeds": [1, 1]}, "seeds: found [1, 1]"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(home, monkeypatch, space, options, message):
    monkeypatch.setattr(sweep, "train", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(UWMLError) as error:
        sweep.sweep("tiny", str(home / "data"), space=space, say=quiet, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (home / "sweeps/tiny/default").exists()


def test_the_default_space_is_one():
    assert len(settings_of(DEFAULT_SPACE)) == 6


# ------------------------------------------------------------------------------------------------ who trains what


def claim_all(this: Sweep, start, claimed) -> None:
    start.wait()
    while got := claim(this):
        claimed.put((os.getpid(), *got))
        finish(this, got[0])
    claimed.put(None)


def test_of_processes_that_race_none_gets_what_another_has(home):
    """Every third run has a holder that is gone, so that claims are raced for as well as takings over."""
    this, context = some_runs(200), multiprocessing.get_context("fork")
    dead = gone_pid()
    for number in range(3, 201, 3):
        hold(this, f"run{number}", pid=dead)
    start, claimed = context.Barrier(3), context.Queue()
    processes = [context.Process(target=claim_all, args=(this, start, claimed)) for _ in range(3)]
    for process in processes:
        process.start()
    got, ended = [], 0
    while ended < 3:
        if (item := claimed.get(timeout=60)) is None:
            ended += 1
        else:
            got.append(item)
    for process in processes:
        process.join()
    assert sorted(run for _, run, _ in got) == sorted(f"run{number}" for number in range(1, 201))
    assert {number for _, run, number in got if int(run[3:]) % 3 == 0} == {1}
    assert len({pid for pid, _, _ in got}) > 1, "one had all"
    assert [path.name for path in home.rglob("*.part")] == []


def test_a_file_is_created_once_and_whole(tmp_path):
    path = tmp_path / "new/claim.json"
    assert create_sealed_json(path, {"a": 1})
    assert not create_sealed_json(path, {"a": 2})
    assert read_sealed_json(path) == {"a": 1}
    assert [item.name for item in path.parent.iterdir()] == ["claim.json"]


def test_a_creation_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    link = os.link

    def answer_lost(source, target):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", answer_lost)
    assert create_sealed_json(tmp_path / "claim.json", {"a": 1})


def test_where_nothing_can_be_created_it_is_said(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UWMLError, match=r"claim.json: cannot be written \(Operation not permitted\)"):
        create_sealed_json(tmp_path / "claim.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("holder", "age", "held"),
    [
        ({}, 0, True),
        ({}, sweep.GONE_AFTER - 30, True),
        ({}, sweep.GONE_AFTER + 30, False),
        ({"pid": "gone"}, 0, False),
        ({"machine": "another", "pid": "gone"}, sweep.GONE_AFTER - 30, True),
        ({"machine": "another"}, sweep.GONE_AFTER + 30, False),
    ],
)
def test_who_is_at_work(home, holder, age, held):
    this = some_runs(1)
    if holder.get("pid"):
        holder = {**holder, "pid": gone_pid()}
    path = hold(this, "run1", age=age, **holder)
    assert is_held(path, time.time()) == held
    assert claim(this) == (None if held else ("run1", 1))


def test_a_zombie_is_not_at_work(home):
    this, process = some_runs(1), subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked how
    assert not is_held(hold(this, "run1", pid=process.pid), time.time())
    process.wait()


def test_the_clock_is_that_of_the_files(home, monkeypatch):
    this = some_runs(1)
    hold(this, "run1", machine="another")
    monkeypatch.setattr(time, "time", lambda: 1e10)  # this machine's clock is wrong
    assert claim(this) is None


def test_a_damaged_claim_is_named(home):
    this = some_runs(1)
    path = hold(this, "run1")
    path.write_text(path.read_text().replace(str(os.getpid()), "1"))
    with pytest.raises(UWMLError, match=r"run1.0.json: was changed after it was written"):
        claim(this)


def test_the_last_claim_counts_even_if_others_were_removed(home):
    this = some_runs(1)
    for number in (0, 1):
        hold(this, "run1", number, age=1e6)
    this.claim("run1", 0).unlink()
    (home / "sweeps/tiny/test/claims/run1.note.json").touch()
    assert claim(this) == ("run1", 2)


def test_a_worker_touches_its_claim_and_lets_go_of_it(home, monkeypatch):
    """Even in a process that lives on, as a notebook's does."""
    this, ages = some_runs(2), []
    monkeypatch.setattr(sweep, "HEARTBEAT", 0.01)

    def interrupted(config, folder, say):
        path = this.claim(folder.name, 0)
        os.utime(path, (0, 0))
        end = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        ages.append(time.time() - path.stat().st_mtime)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(this, say=quiet)
    assert ages[0] < 5
    assert claim(this) == ("run1", 1)


def test_a_run_that_was_taken_over_is_left(home, monkeypatch):
    this, said = some_runs(2), []

    def trained(config, folder, say):
        if folder.name == "run1":
            hold(this, "run1", 1)
            say("epoch 1/2")
            pytest.fail("went on")
        finish(this, folder.name)

    monkeypatch.setattr(sweep, "train", trained)
    work(this, say=said.append)
    assert this.open_runs() == ["run1"]
    assert this.failures() == {}
    assert said == ["setting 1: run1 was taken over by another worker, and is left to it"]


def test_one_that_waits_takes_over_what_another_leaves(home, monkeypatch):
    this = some_runs(2)
    monkeypatch.setattr(sweep, "train", lambda config, folder, say: finish(this, folder.name))
    path = hold(this, "run1", machine="another")
    work(this, say=quiet)
    assert this.open_runs() == ["run1"]
    monkeypatch.setattr(time, "sleep", lambda seconds: os.utime(path, (0, 0)))  # meanwhile the other falls silent
    work(this, wait=True, say=quiet)
    assert this.open_runs() == []
    assert this.claim("run1", 1).exists()


# ------------------------------------------------------------------------------------------------ what came out

DEV = {0.1: (100.0, 104.0), 0.2: (109.0, 111.0), 0.3: (60.0, 180.0), 0.4: (90.0, 90.0)}
TEST = {0.1: (300.0, 300.0), 0.2: (105.0, 101.0), 0.3: (200.0, 200.0), 0.4: (90.0, 90.0)}
"""Margin -> rsum of two seeds: 0.3 is the best on dev, by its mean; 0.1 on test."""


@pytest.fixture
def fake(monkeypatch):
    """Trainings that give the numbers above at once; a list of those that took place."""
    trained = []

    def train(settings, folder, say):
        margin, seed = settings.loss_options["margin"], settings.seed
        trained.append((margin, seed))
        if margin == 0.9:
            raise UWMLError(f"{folder.name}: the loss is nan at epoch 1, step 2; stopped")
        if margin == 0.8:
            raise RuntimeError("no kernel image")
        folder.mkdir(parents=True)
        say(f"epoch 1 of {folder.name}")
        metrics = dict.fromkeys(COLUMNS, TEST[margin][seed] / 6)
        sessions = [{"commit": None, "clean_tree": None}]
        results = {
            "config": settings.to_dict(), "split": "test", "metrics": {**metrics, "rsum": TEST[margin][seed]},
            "dev_rsum": DEV[margin][seed], "best_epoch": 1, "training_seconds": 1.0, "files": {},
            "provenance": {"sessions": sessions},
        }  # fmt: skip
        sweep.write_sealed_json(folder / "results.json", results)
        return folder

    monkeypatch.setattr(sweep, "train", train)
    return trained


def run_sweep(home, margins=tuple(DEV), say=quiet, **options):
    return sweep.sweep("tiny", str(home / "data"), space={"loss.margin": list(margins)}, say=say, **options)


def test_dev_chooses_and_not_test(home, fake):
    text = run_sweep(home)
    found = read_sealed_json(home / "sweeps/tiny/default/sweep.json")
    by_hand = {
        margin: (statistics.mean(values), statistics.stdev(values), 2)
        for margin, values in sorted(DEV.items(), key=lambda item: -statistics.mean(item[1]))
    }
    listed = {item["values"]["loss.margin"]: tuple(item["dev_rsum"].values()) for item in found["settings"]}
    assert list(listed) == list(by_hand) == [0.3, 0.2, 0.1, 0.4]
    for margin, summary in listed.items():
        assert summary == pytest.approx(by_hand[margin])
    assert found["chosen"]["setting"] == 3
    assert found["chosen"]["metrics"]["rsum"] == {"mean": 200.0, "std": 0.0, "n": 2}
    assert "| 3         | 0.3           | 120.0 ± 84.9 | 2       |" in text
    assert "**Chosen by that alone: setting 3.**" in text
    assert "Those of the others had no part in the choice" in text
    assert "200.0 ± 0.0" in text
    whole = (home / "sweeps/tiny/default/sweep.md").read_text(encoding="utf-8")
    for hidden in ("300.0", "103.0", "105.0"):
        assert hidden not in whole, "a test number of another setting"
    assert (home / "sweeps/tiny/default/sweep.png").stat().st_size > 1000


def test_every_number_leads_to_its_run(home, fake):
    run_sweep(home)
    found = read_sealed_json(home / "sweeps/tiny/default/sweep.json")
    whole = (home / "sweeps/tiny/default/sweep.md").read_text(encoding="utf-8")
    for item in found["settings"]:
        rsums = []
        for run, digest in item["runs"].items():
            path = home / "runs/tiny" / run / "results.json"
            assert sweep.sha256_of(path) == digest
            assert read_json(path)["config"]["loss_options"] == {"margin": item["values"]["loss.margin"]}
            rsums.append(read_json(path)["dev_rsum"])
            assert f"| {run} | {item['setting']} " in whole
        assert item["dev_rsum"]["mean"] == pytest.approx(statistics.mean(rsums))


def test_called_again_it_does_nothing_twice(home, fake):
    text = run_sweep(home)
    assert sorted(fake) == sorted((margin, seed) for margin in DEV for seed in (0, 1))
    assert fake[:4] == [(margin, 0) for margin in DEV], "every setting is seen before any is seen twice"
    before = digests(home / "sweeps", "*")
    assert run_sweep(home) == text
    assert len(fake) == 8
    assert digests(home / "sweeps", "*") == before


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"margins": (0.1, 0.2)}, "space"),
        ({"seeds": [0]}, "seeds"),
        ({"epochs": 3}, "epochs"),
        ({"samples": 4}, "samples, search_seed"),
    ],
)
def test_another_sweep_of_that_name_is_refused(home, fake, other, named):
    run_sweep(home)
    fake.clear()
    with pytest.raises(UWMLError) as error:
        run_sweep(home, **other)
    path = home / "sweeps/tiny/default/settings.json"
    assert str(error.value) == f"{path}: holds a sweep that differs in {named}; give this one another --name"
    assert fake == []
    run_sweep(home, name="other", **other)


def test_on_other_data_it_is_refused(home, fake):
    run_sweep(home)
    with open(home / "data/tiny/train_caps.txt", "a", encoding="utf-8") as file:
        file.write("one more .\n" * 2)
    np.save(home / "data/tiny/train_ims.npy", np.zeros((65, 3, 9), np.float32))
    with pytest.raises(UWMLError, match="differs in data; give"):
        run_sweep(home)


def test_a_failed_setting_does_not_stop_the_others(home, fake):
    said = []
    with pytest.raises(UWMLError) as error:
        run_sweep(home, (0.9, 0.1, 0.8, 0.2), say=said.append)
    sentences = str(error.value).splitlines()
    assert sentences[0].startswith("4 of 8 runs failed; to try them again, remove")
    assert sum(": the loss is nan at epoch 1, step 2; stopped" in line for line in sentences) == 2
    assert sum(": RuntimeError: no kernel image" in line for line in sentences) == 2
    assert len(fake) == 8
    found = read_sealed_json(home / "sweeps/tiny/default/sweep.json")
    assert [item["setting"] for item in found["settings"]] == [4, 2]
    assert [row["dev rsum"] for row in found["tables"]["settings"]][2:] == ["failed", "failed"]
    whole = (home / "sweeps/tiny/default/sweep.md").read_text(encoding="utf-8")
    assert "### Failed" in whole and "the loss is nan" in whole
    with pytest.raises(UWMLError, match="4 of 8 runs failed"):
        run_sweep(home, (0.9, 0.1, 0.8, 0.2))
    assert len(fake) == 8, "what failed is not tried again by itself"


def test_all_failed(home, fake):
    with pytest.raises(UWMLError, match="2 of 2 runs failed"):
        run_sweep(home, (0.9,))
    assert not (home / "sweeps/tiny/default/sweep.json").exists()


def test_while_others_work_it_says_so_and_ends(home, fake):
    said = []
    run_sweep(home)
    this = Sweep("tiny", "default", tuple(
        Setting(number, item["values"], dict.fromkeys(item["runs"]))
        for number, item in enumerate(read_json(home / "sweeps/tiny/default/settings.json")["settings"], 1)
    ))  # fmt: skip
    run = next(iter(this.settings[0].runs))
    (this.run_folder(run) / "results.json").unlink()
    path = hold(this, run, 1, host="node7", machine="another")
    assert run_sweep(home, say=said.append) == ""
    assert "1 of 8 runs are with other workers (node7); whoever is the last writes the table" in said[-1]
    os.utime(path, (0, 0))
    with pytest.raises(UWMLError, match="1 of 8 runs are not done, for a worker stopped or was killed"):
        sweep.finish(this, quiet)


def test_without_a_test_split_it_is_said(home, fake, monkeypatch):
    run_sweep(home, (0.1, 0.2))
    for path in home.glob("runs/tiny/*/results.json"):
        results = read_sealed_json(path)
        sweep.write_sealed_json(path, {**results, "split": "dev"})
    text = run_sweep(home, (0.1, 0.2))
    assert "There is no test split here: these are the numbers on dev which chose, and so flatter the setting." in text
    assert "| dev rsum " in (home / "sweeps/tiny/default/sweep.md").read_text(encoding="utf-8").split("### Runs")[1]


def test_one_seed_has_no_spread(home, fake):
    text = run_sweep(home, (0.1, 0.2), seeds=[0])
    assert "| 2         | 0.2           | 109.0      | 1       |" in text
    assert "+9.0 (no interval from one value)" in text
    found = read_sealed_json(home / "sweeps/tiny/default/sweep.json")
    assert found["settings"][0]["dev_rsum"] == {"mean": 109.0, "std": None, "n": 1}


def test_a_sweep_of_a_single_setting(home, fake):
    text = run_sweep(home, (0.1,))
    assert "the next" not in text
    assert "0.1" in text


def test_the_figure_shows_every_setting_in_every_panel():
    rows = [
        {"loss.margin": margin, "learning_rate": rate, "loss.negative": negative, "setting": number,
         "mean": 100.0 + number, "std": float(number), "chosen": number == 3}
        for number, (margin, rate, negative) in enumerate(
            [(0.1, 1e-4, [0, 1]), (0.2, 1e-2, [0, 1]), (0.3, 1e-3, [1, 2])], 1
        )
    ]  # fmt: skip
    names = ["loss.margin", "learning_rate", "loss.negative"]
    figure, data = figures.sweep_panels(pd.DataFrame(rows[::-1]), names, "dev rsum")
    panels = [axis for axis in figure.axes if axis.get_xlabel()]
    assert [axis.get_xlabel() for axis in panels] == names
    assert panels[0].get_ylabel() == "dev rsum"
    assert [axis.get_xscale() for axis in panels] == ["linear", "log", "linear"]
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["[0, 1]", "[1, 2]"]
    assert len(data) == 9
    for axis, name in zip(panels, names, strict=True):
        part = data[data["name"] == name]
        assert part["mean"].tolist() == [101, 102, 103] and part["std"].tolist() == [1, 2, 3]
        assert part["setting"].tolist() == [1, 2, 3] and part["chosen"].tolist() == [False, False, True]
        bars = sorted(map(tuple, (bar[:, 1] for bar in axis.collections[0].get_segments())))
        assert bars == [(100, 102), (100, 104), (100, 106)]
        rings, star = axis.lines[-2:]
        np.testing.assert_allclose(rings.get_xydata(), part.loc[~part["chosen"], ["x", "mean"]])
        np.testing.assert_allclose(star.get_xydata(), part.loc[part["chosen"], ["x", "mean"]])
        assert rings.get_marker() != star.get_marker()
        if name != "loss.negative":
            assert part["x"].tolist() == [row[name] for row in rows]
    assert data[data["name"] == "loss.negative"]["x"].round().tolist() == [0, 0, 1]
    assert data["x"].is_unique


def test_the_pages_show_a_sweep(home, fake, monkeypatch):
    monkeypatch.setattr(paths, "REPORTS", home)
    run_sweep(home)
    page, said = site.build(quiet).read_text(encoding="utf-8"), []
    assert "<h2>tiny: sweep default</h2>" in page
    assert 'src="sweeps/tiny/default/sweep.png" alt="rsum on dev against loss.margin: the numbers of the table"' in page
    assert page.count('/config.json">') == 8
    assert "Chosen by that alone: setting 3." in page
    assert "<td>120.0 ± 84.9</td>" in page and "<td>200.0 ± 0.0</td>" in page
    path = home / "sweeps/tiny/default/sweep.json"
    path.write_text(path.read_text(encoding="utf-8").replace("120.0", "220.0"), encoding="utf-8")
    assert "<h2>tiny: sweep default</h2>" not in site.build(said.append).read_text(encoding="utf-8")
    assert "default: left out of the pages" in said[0] and "was changed after it was written" in said[0]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_line(tmp_path, monkeypatch):
    options = parse("sweep", ["--samples", "5", "--search-seed", "2", "--wait"]).keywords
    assert [options[name] for name in ("samples", "search_seed", "wait", "name")] == [5, 2, True, ""]
    called = []
    monkeypatch.setattr(sweep, "sweep", lambda *arguments: called.append(arguments))
    write_json(tmp_path / "margins.json", {"loss.margin": [0.1]})
    assert main(["sweep", "--space", str(tmp_path / "margins.json"), "--seeds", "0 3"]) == 0
    assert main(["sweep", "--space", '{"loss.margin": [0.1]}', "--name", "mine"]) == 0
    assert main(["sweep"]) == 0
    assert [arguments[6] for arguments in called] == ["margins", "mine", "default"]
    assert [arguments[5] for arguments in called] == [{"loss.margin": [0.1]}] * 2 + [None]
    assert called[0][2] == [0, 3]


def test_an_unknown_name_is_one_sentence(capsys):
    assert main(["sweep", "--space", '{"loss.margn": [0.1]}', "--profile", "smoke"]) == 1
    assert capsys.readouterr().err == "uwml sweep: space: unknown name 'loss.margn'; did you mean 'loss.margin'?\n"


SPACE = '{"loss.margin": [0.1, 0.3], "epochs": [6]}'
COMMAND = ("sweep", "--dataset", "scenes_smoke", "--seeds", "0 1", "--space", SPACE, "--name", "real")


def start(home: Path, cores: int = 1) -> subprocess.Popen:
    """Start the command where it sees so many cores: it works in as many processes."""
    seen = sorted(os.sched_getaffinity(0))[:cores]
    return subprocess.Popen(
        [sys.executable, "-m", "uwml_lib.cli", *COMMAND], env={**os.environ, "UWML_HOME": str(home)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, seen),
    )  # fmt: skip


def outcome(home: Path) -> dict:
    found = read_sealed_json(home / "reports/sweeps/scenes_smoke/real/sweep.json")
    for item in found["settings"]:
        item["runs"] = list(item["runs"])  # their digests cover times and places
    runs = {path.name: run_outcome(path) for path in (home / "reports/runs/scenes_smoke").glob("*/")}
    return {"settings": found["settings"], "chosen": found["chosen"], "runs": runs}


def kill_midway(home: Path, process: subprocess.Popen) -> str:
    """Kill the process that trains, the command's own or one it started, between two epochs' states; return the run."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        own = {process.pid, *(child.pid for child in psutil.Process(process.pid).children())}
        for path in (home / "reports/sweeps/scenes_smoke/real/claims").glob("*.0.json"):
            run = path.name.removesuffix(".0.json")
            folder, pid = home / "reports/runs/scenes_smoke" / run, read_json(path)["pid"]
            if pid in own and (folder / "checkpoint/last.pt").exists() and not (folder / "results.json").exists():
                os.kill(pid, signal.SIGSTOP)  # or it might be done before it is dead
                if not (folder / "results.json").exists():
                    os.kill(pid, signal.SIGKILL)
                    return run
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    return pytest.fail("the kill came too late")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Where the sweep was run by one process."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("here a command cannot be told how many cores it has")
    home = tmp_path_factory.mktemp("alone")
    process = start(home)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return home


@pytest.fixture
def together(alone, tmp_path) -> Path:
    (tmp_path / "data").symlink_to(alone / "data")
    return tmp_path


@pytest.mark.slow
def test_two_commands_one_of_them_killed_end_as_one_process(alone, together):
    first, second = start(together), start(together)
    run = kill_midway(together, first)
    first.communicate()
    third = start(together)
    outputs = [process.communicate()[0] for process in (second, third)]
    assert (second.returncode, third.returncode) == (0, 0), outputs
    assert any("goes on after epoch" in output for output in outputs)
    assert (together / f"reports/sweeps/scenes_smoke/real/claims/{run}.1.json").exists()
    assert outcome(together) == outcome(alone)


@pytest.mark.slow
def test_a_command_does_what_a_killed_process_of_its_own_leaves(alone, together):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("with one core a command is one process")
    command = start(together, cores=2)
    run = kill_midway(together, command)
    output = command.communicate()[0]
    assert command.returncode == 0, output
    assert "goes on after epoch" in output
    assert (together / f"reports/sweeps/scenes_smoke/real/claims/{run}.1.json").exists()
    assert outcome(together) == outcome(alone)


def test_names_of_runs_are_those_of_trainings():
    """A sweep finds what `uwml train` has trained, and the other way round."""
    found = configured(config.preset("scenes_smoke"), {"loss.margin": 0.1}, seed=3)
    trained = parse("train", ["--dataset", "scenes_smoke", "--loss-options", '{"margin": 0.1}', "--seed", "3"])
    assert found.run_name("data") == trained.keywords["experiment"].run_name("data")
