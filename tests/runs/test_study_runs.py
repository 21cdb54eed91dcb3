"""The runs of a study: listed beside the run folders, checked when loaded, grouped."""

from dataclasses import replace
from itertools import product

import pytest

from tests.made import altered, made_run, write_run, write_study
from uwml_lib.reports.tables import compare_losses
from uwml_lib.runs import StudyRuns, load_study
from uwml_lib.runs.scoring import evaluation_file
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, write_json, write_sealed_json


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path / "evaluations")
    return write_study((1, 0))


def test_what_is_saved_is_loaded(study):
    loaded = load_study("scenes")
    assert loaded.digest == study.digest
    assert [run.folder for run in loaded.all_runs] == [run.folder for run in study.all_runs]
    assert loaded["without_warmup"] == study["without_warmup"]
    assert loaded["tuning"] == ()
    assert loaded.split == "test"


def test_runs_are_in_order_of_the_seed(study):
    for runs in study.by_loss().values():
        assert [run.seed for run in runs] == [0, 1]


def test_a_run_from_before_a_setting_existed_has_its_default(study, tmp_path):
    path = tmp_path / "scenes/polynomial-seed0/results.json"
    values = read_json(path)
    del values["config"]["hidden"], values["seal"]
    write_sealed_json(path, values)
    assert load_study("scenes").by_loss()["polynomial"][0].config.hidden == 0


def test_no_runs_yet_is_one_sentence():
    with pytest.raises(UWMLError, match="no finished runs on nothing yet"):
        load_study("nothing")


def listed(change):
    """The study after `change` of the names of its runs."""
    path = paths.RUNS / "scenes" / "reproduce.json"
    names = read_json(path)
    change(names)
    write_json(path, names)
    return load_study("scenes")


@pytest.mark.parametrize("name", ["../scenes/triplet-seed0", "triplet-seed0/../triplet-seed0", "../../outside", 1])
def test_a_list_that_leads_out_of_its_folder_is_refused(study, name):
    with pytest.raises(UWMLError, match="expected names of run folders"):
        listed(lambda names: names["runs"].append(name))


@pytest.mark.parametrize("content", ["{}", '{"runs": []}', '{"runs": 1}'])
def test_a_list_of_runs_of_another_shape(study, tmp_path, content):
    (tmp_path / "scenes" / "reproduce.json").write_text(content)
    with pytest.raises(UWMLError, match="reproduce.json: "):
        load_study("scenes")


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "config.json"])
def test_a_file_changed_by_hand_is_noticed(study, name):
    file = study.runs[0].folder / name
    file.write_text(file.read_text().replace("2", "3"))
    with pytest.raises(UWMLError, match=f"{name}: was changed"):
        load_study("scenes")


# ---------------------------------------------------------------------------------------------- what can be compared


def test_a_run_listed_twice_is_refused(study):
    with pytest.raises(UWMLError, match="scenes: .*triplet-seed0 and .*triplet-seed0 are one run listed twice"):
        compare_losses(listed(lambda names: names["runs"].append("triplet-seed0")))


def test_two_runs_of_one_loss_and_seed_are_refused(study, tmp_path):
    write_run(tmp_path / "scenes" / "again", "triplet", 0, 2)
    with pytest.raises(UWMLError, match="triplet-seed0 and again are both triplet with the seed 0"):
        compare_losses(listed(lambda names: names["runs"].append("again")))


@pytest.mark.parametrize("name", ["epochs", "warmup_epochs", "batch_size", "dataset"])
@pytest.mark.parametrize("loss", ["triplet", "polynomial"])
def test_runs_of_other_settings_are_not_compared(study, name, loss):
    run = study.by_loss()[loss][0]
    other = altered(study, [run], **{name: "other" if name == "dataset" else getattr(run.config, name) + 1})
    with pytest.raises(UWMLError, match=f"{loss}-seed0 differs from .*-seed1 in {name}, expected runs that"):
        compare_losses(other)


def test_options_may_differ_between_losses_but_not_between_seeds(study):
    polynomial = study.by_loss()["polynomial"]
    study = altered(study, polynomial, loss_options={"margin": 0.1}, workers=4, data_root="/elsewhere")
    study.check_comparable()
    with pytest.raises(UWMLError, match="polynomial-seed0 differs from polynomial-seed1 in loss_options"):
        altered(study, polynomial[1:], loss_options={"margin": 0.2}).check_comparable()


def test_another_split_is_not_compared(study):
    with pytest.raises(UWMLError, match="in split, expected"):
        altered(study, study.by_loss()["triplet"][:1], results={"split": "dev"}).check_comparable()


def test_losses_with_other_seeds_are_not_compared(study):
    fewer = StudyRuns(
        "scenes", {"runs": tuple(run for run in study.runs if (run.config.loss, run.seed) != ("triplet", 1))}
    )
    with pytest.raises(UWMLError, match=r"seeds: found \[1\] in one group alone"):
        compare_losses(fewer)
    with pytest.raises(UWMLError, match="expected some of circle too"):
        compare_losses(study, "circle")


# ------------------------------------------------------------------------------------------------- models and ensembles


@pytest.fixture
def models(tmp_path, monkeypatch) -> StudyRuns:
    """Two seeds of both losses on SCAN's two directions and on VSE++, in no order; one ensemble of four was scored."""
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path)
    settings = [{"model": "scan"}, {"model": "scan", "direction": "t2i"}, {"model": "vse"}]
    runs = [
        made_run(400 + seed, loss=loss, seed=seed, **setting)
        for seed, setting, loss in product((1, 0), settings, ("triplet", "polynomial"))
    ]
    found = StudyRuns("scenes", {"runs": tuple(runs)})
    first = found.scan_pairs()[0]
    both = {**first[0].results, "members": [{"run": run.folder.name} for run in first]}
    write_sealed_json(evaluation_file("scenes", [run.folder.name for run in first], "test"), both)
    return found


def test_scans_directions_are_paired_by_loss_and_seed(models):
    pairs = models.scan_pairs()
    assert len(pairs) == 4
    for one, other in pairs:
        assert one.config == replace(other.config, direction="i2t") != other.config


def test_runs_are_found_by_model_and_loss_in_order_of_the_seed(models):
    found = models.by_model()
    assert list(found) == ["SCAN, i2t Mean", "SCAN, t2i Mean", "VSE++", "SCAN, ensemble"]
    assert [run.seed for run in found["VSE++"]["triplet"]] == [0, 1]
    assert [len(runs) for runs in found["SCAN, ensemble"].values()] == [1]


def test_an_unscored_pair_is_no_row(models, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path / "nowhere")
    assert "SCAN, ensemble" not in models.by_model()
