"""The command line: help, presets, and errors that are a sentence and an exit code."""

import subprocess
import sys

import numpy as np
import pytest

from tests.tiny import write_tiny
from uwml_lib import __version__
from uwml_lib.cli import COMMANDS, main, parse
from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.files import read_json, write_json
from uwml_lib.losses import LOSSES

TINY = [
    "--embed-size", "8", "--word-dim", "6", "--epochs", "1", "--batch-size", "16", "--device", "cpu",
    "--dataset", "tiny", "--data-root",
]  # fmt: skip


@pytest.fixture
def data_root(tmp_path):
    write_tiny(tmp_path / "data/tiny")
    return tmp_path / "data"


# ------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_every_command(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert __version__ in out
    assert all(f"uwml {command}" in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert f"uwml {command}" in out
    assert COMMANDS[command][0].__doc__.split()[0] in out


def test_help_of_train_explains_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for name in ExperimentConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("dataset", ["scenes", "scenes_smoke", "f8k_precomp", "f30k_precomp", "coco_precomp", "mine"])
def test_the_data_set_brings_its_preset(dataset):
    assert parse("train", ["--dataset", dataset]).experiment == preset(dataset)
    changed = parse("train", ["--epochs", "3", "--seed", "2", "--dataset", dataset]).experiment
    assert changed == preset(dataset, epochs=3, seed=2)


def test_the_default_data_set():
    assert parse("train", []).experiment == preset("scenes")


def test_the_data_set_after_an_equals_sign_brings_its_preset_too():
    assert parse("train", ["--dataset=f8k_precomp"]).experiment == preset("f8k_precomp")


def test_every_kind_of_setting_can_be_given():
    words = (
        "--loss triplet --learning-rate 0.1 --lambda-softmax 3 --no-bidirectional --weight-norm --direction t2i "
        "--mixed-precision bf16 --max-images 7"
    )
    options = ["--loss-options", '{"margin": 0.1, "positive_ceiling": null, "positive": [1, -1]}']
    expected = preset(
        "scenes", loss="triplet", learning_rate=0.1, lambda_softmax=3.0, bidirectional=False, weight_norm=True,
        direction="t2i", mixed_precision="bf16", max_images=7,
        loss_options={"margin": 0.1, "positive_ceiling": None, "positive": [1, -1]},
    )  # fmt: skip
    assert parse("train", [*words.split(), *options]).experiment == expected


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "uwml: found 'trian', expected one of data, train, evaluate, report, reproduce"),
        (["data", "--dataset", "absent"], "no such folder; expected absent in the SCAN layout"),
        (["train", "--dataset", "absent"], "no such folder; expected absent in the SCAN layout"),
        (["train", "--loss", "hinge"], f"uwml train: loss: found 'hinge', expected one of {', '.join(LOSSES)}"),
        (["train", "--loss-options", '{"margn": 1}'], "uwml train: loss_options of polynomial: "),
        (["evaluate", "absent"], "config.json: no such file"),
        (["report", "--dataset", "absent"], "no finished runs on absent yet"),
        (["reproduce", "--seeds", "a b"], "seeds: found 'a b', expected whole numbers"),
        (["reproduce", "--seeds", "1 1"], "seeds: found [1, 1], expected at least one, each once"),
        (["reproduce", "--epochs", "0"], "epochs: found 0, expected at least 1"),
        (["reproduce", "--dataset", "absent"], "no such folder; expected absent in the SCAN layout"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(arguments, words, capsys):
    assert main(arguments) in (1, 2)
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--epochs", "0"], "epochs: found 0, expected at least 1"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--direction", "i2i"], "i2i"),
        (["train", "--los", "triplet"], "--los"),
        (["train", "--loss-options", "{"], "--loss-options"),
        (["train", "--loss-options"], "--loss-options"),
        (["train", "--dataset"], "--dataset"),
        (["evaluate"], "run-folder"),
        (["evaluate", "run", "--split", "all"], "all"),
        (["reproduce", "--profile", "tiny"], "tiny"),
    ],
)
def test_what_cannot_be_parsed(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert words in out + err
    assert "Traceback" not in out + err


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="absent"):
        main(["--debug", "evaluate", "absent"])


def test_an_interruption_is_said(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("uwml_lib.training.train", interrupted)
    assert main(["train"]) == 130
    assert "goes on" in capsys.readouterr().err


def test_the_module_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "uwml_lib.cli", "evaluate", "absent"], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "uwml evaluate: absent/config.json: no such file\n"
    assert done.stdout == ""


# ------------------------------------------------------------------------------------------------ the commands


def test_data_says_what_is_in_a_folder(data_root, capsys):
    assert main(["data", "--dataset", "tiny", "--data-root", str(data_root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{split}: {size} images of 3 regions x 9 numbers, 2 captions each"
        for split, size in (("train", 40), ("dev", 12), ("test", 14))
    ]
    path = data_root / "tiny/train_ims.npy"
    features = np.load(path)
    features[-1, 0, 0] = np.nan
    np.save(path, features)
    assert main(["data", "--dataset", "tiny", "--data-root", str(data_root)]) == 1
    assert "train_ims.npy: image 39 (counted from 0) holds NaN" in capsys.readouterr().err
    (data_root / "tiny/dev_caps.txt").unlink()
    assert main(["data", "--dataset", "tiny", "--data-root", str(data_root)]) == 1
    assert "dev_caps.txt: no such file" in capsys.readouterr().err


def test_train_and_evaluate(data_root, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", *TINY, str(data_root), "--run-folder", run]) == 0
    trained = capsys.readouterr().out
    results = read_json(tmp_path / "run/results.json")
    assert results["config"]["embed_size"] == 8
    assert f"rsum {results['metrics']['rsum']:.1f}\n{run}\n" in trained
    assert main(["train", *TINY, str(data_root), "--run-folder", run]) == 0
    again = capsys.readouterr().out
    assert "finished before" in again
    assert main(["evaluate", run]) == 0
    evaluated = capsys.readouterr().out
    assert trained.endswith(evaluated)
    assert again.endswith(evaluated)


def test_a_run_of_damaged_settings(data_root, tmp_path, capsys):
    main(["train", *TINY, str(data_root), "--run-folder", str(tmp_path / "run")])
    content = read_json(tmp_path / "run/config.json")
    content["config"]["embed_sise"] = 3
    write_json(tmp_path / "run/config.json", content)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "config.json: was changed after it was written" in capsys.readouterr().err
    (tmp_path / "run/results.json").unlink()
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "unknown key 'embed_sise'; did you mean 'embed_size'?" in capsys.readouterr().err
