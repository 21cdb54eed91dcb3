"""The one dataclass of an experiment: what it refuses, and what tells two experiments apart."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest

from uwml_lib.config import PRESETS, ExperimentConfig, preset
from uwml_lib.losses import LOSSES
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.paths import project_root
from uwml_lib.training import check_config

CHANGED = {
    "dataset": "other", "data_root": "/elsewhere", "max_images": 5, "regions": 5, "captions": "bytes",
    "siblings": "negatives", "twins": "ignored", "dev_captions": 5, "selection_images": 5,
    "evaluation_precision": "float64",
    "model": "other", "hidden": 7, "embed_size": 7, "word_dim": 7, "bidirectional": False, "weight_norm": True,
    "direction": "t2i", "normalisation": "softmax", "aggregation": "Max",
    "lambda_softmax": 4.0, "lambda_lse": 5.0, "loss": "triplet", "loss_options": {"margin": 0.1}, "epochs": 7,
    "start_from": "run", "warmup_epochs": 1, "batch_size": 7, "batches": "no_duplicates",
    "learning_rate": 0.1, "decay_epoch": 7, "gradient_clip": 0.0, "seed": 7,
    "mixed_precision": "bf16", "device": "cpu", "threads": 2, "workers": 1, "log_every": 7,
    "checkpoint_minutes": 7.0,
}  # fmt: skip
COSMETIC = {"data_root", "workers", "log_every", "checkpoint_minutes"}


def test_the_run_name_tells_apart_what_can_change_a_result_and_nothing_else():
    assert set(CHANGED) == {field.name for field in dataclasses.fields(ExperimentConfig)}
    names = {ExperimentConfig().run_name("data")}
    for name, value in CHANGED.items():
        changed = dataclasses.replace(ExperimentConfig(), **{name: value}).run_name("data")
        assert (changed in names) == (name in COSMETIC), name
        names.add(changed)
    assert ExperimentConfig().run_name("other data") not in names


def test_the_run_name_leaves_defaults_out_so_that_a_new_setting_renames_no_run():
    digest = hashlib.sha256(b'[{}, "data"]').hexdigest()[:8]
    assert ExperimentConfig().run_name("data") == f"polynomial-seed0-nowarmup-{digest}"


def test_the_words_of_a_run_name():
    assert re.fullmatch("polynomial-seed0-nowarmup-[0-9a-f]{8}", ExperimentConfig().run_name("x"))
    assert re.fullmatch("triplet-seed3-[0-9a-f]{8}", preset("scenes", loss="triplet", seed=3).run_name("x"))
    first, second = ({"margin": 0.1, "clamp": "sum"}, {"clamp": "sum", "margin": 0.1})
    assert (
        ExperimentConfig(loss_options=first).run_name("x") == ExperimentConfig(loss_options=second).run_name("x")
    )  # fmt: skip


def test_round_trip_through_json():
    config = ExperimentConfig(loss_options={"positive": [1, -1]}, lambda_softmax=3.0, seed=4)
    assert ExperimentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embed_sise": 3}, "unknown key 'embed_sise'; did you mean 'embed_size'?"),
        ({"lr": 0.1}, "unknown key 'lr'; expected one of dataset, data_root, "),
        ({"epochs": 0}, "epochs: found 0, expected at least 1"),
        ({"embed_size": 0}, "embed_size: found 0"),
        ({"word_dim": -1}, "word_dim: found -1"),
        ({"threads": 0}, "threads: found 0"),
        ({"log_every": 0}, "log_every: found 0"),
        ({"decay_epoch": 0}, "decay_epoch: found 0"),
        ({"batch_size": 1}, "batch_size: found 1, expected at least 2"),
        ({"learning_rate": 0.0}, "learning_rate: found 0.0, expected above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: found nan"),
        ({"gradient_clip": -1.0}, "gradient_clip: found -1.0, expected at least 0"),
        ({"warmup_epochs": -1}, "warmup_epochs: found -1"),
        ({"max_images": -1}, "max_images: found -1"),
        ({"regions": -1}, "regions: found -1"),
        ({"workers": -1}, "workers: found -1"),
        ({"seed": -1}, "seed: found -1"),
        ({"start_from": "../run"}, "start_from: found '../run', expected a run's folder name"),
    ],
)
def test_impossible_values(values, message):
    with pytest.raises(UWMLError, match=message):
        ExperimentConfig.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": "3"}, {"epochs": None}, {"epochs": 2.5}, {"epochs": True}, {"seed": 1.5}, {"dataset": 5},
        {"direction": "i2i"}, {"normalisation": "l1norm"}, {"aggregation": "mean"}, {"mixed_precision": "fp8"},
        {"device": "gpu"}, {"weight_norm": "no"}, {"lambda_softmax": "4"}, {"learning_rate": float("inf")},
        {"loss": ["triplet"]}, {"loss_options": []}, {1: 2},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_another_type(values):
    with pytest.raises(UWMLError, match=str(next(iter(values)))):
        ExperimentConfig.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "hinge"}, f"loss: found 'hinge', expected one of {', '.join(LOSSES)}"),
        ({"model": "clip"}, "model: found 'clip', expected one of scan"),
        (
            {"loss_options": {"margn": 0.1}},
            "loss_options of polynomial: found 'margn', expected some of positive,",
        ),
        ({"loss_options": {"margin": -1}}, "loss_options of polynomial: margin: found -1"),
        ({"loss_options": {"clamp": "none"}}, "loss_options of polynomial: clamp: found 'none'"),
        (
            {"loss": "triplet", "loss_options": {"clamp": "each"}},
            "triplet: found 'clamp', expected some of margin, ",
        ),
    ],
)
def test_what_is_known_to_fail_fails_before_any_data_is_read(values, message):
    with pytest.raises(UWMLError, match=message):
        check_config(ExperimentConfig.from_dict(values))


def test_presets():
    for dataset in PRESETS:
        config = preset(dataset)
        check_config(config)
        assert config.dataset == dataset
    assert preset("my_precomp") == ExperimentConfig(dataset="my_precomp", warmup_epochs=2, twins="ignored")
    assert preset("f8k_precomp", epochs=3, seed=2).epochs == 3
    assert preset("coco_precomp").decay_epoch == 10
    regions = preset("f8k_regions", selection_images=0)  # photographs from the hub have a test split
    for dataset in ("flickr8k", "flickr30k"):
        assert preset(dataset) == dataclasses.replace(regions, dataset=dataset)
    scan = preset("f30k_precomp")  # the settings of the SCAN release
    assert (scan.batch_size, scan.learning_rate, scan.epochs, scan.decay_epoch) == (128, 2e-4, 30, 15)
    assert (scan.embed_size, scan.word_dim, scan.gradient_clip, scan.direction) == (1024, 300, 2.0, "i2t")
    with pytest.raises(UWMLError, match="did you mean 'epochs'"):
        preset("scenes", epoch=3)


def test_where_the_data_lies(tmp_path, monkeypatch):
    assert ExperimentConfig(dataset="x").data_folder == paths.DATA / "x"
    assert ExperimentConfig(dataset="x", data_root=str(tmp_path)).data_folder == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    assert ExperimentConfig(dataset="x", data_root="here").data_folder == tmp_path / "here" / "x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ExperimentConfig(dataset="x", data_root="~/here").data_folder == tmp_path / "here" / "x"


def test_the_root_of_every_path(tmp_path, monkeypatch):
    monkeypatch.delenv("UWML_HOME", raising=False)
    assert project_root() == Path(__file__).parents[1]
    monkeypatch.setenv("UWML_HOME", str(tmp_path))
    assert project_root() == tmp_path


@pytest.mark.parametrize("dataset", ["reference", "runs", "performance", "figures_precomp"])
def test_a_data_set_is_not_called_like_a_folder_of_the_reports(dataset):
    with pytest.raises(UWMLError, match=f"dataset: found '{dataset}', expected another name, because the reports have"):
        ExperimentConfig(dataset=dataset)


@pytest.mark.parametrize("dataset", ["", ".", "..", "a/b", "/data/f30k_precomp"])
def test_a_data_set_is_a_folder_name(dataset):
    with pytest.raises(UWMLError, match="dataset: found .*data_root"):
        ExperimentConfig(dataset=dataset)


@pytest.mark.parametrize("change", [{"lambda_lse": 0.0}, {"lambda_softmax": -1.0}, {"seed": 2**32}])
def test_values_that_would_fail_later(change):
    with pytest.raises(UWMLError, match=f"{next(iter(change))}: found"):
        ExperimentConfig(**change)
