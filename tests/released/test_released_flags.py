"""Commands of the released train.py become the same experiment here."""

import argparse
import shlex
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch

from uwml_lib.commands.train import train_released
from uwml_lib.config import ExperimentConfig
from uwml_lib.released.flags import DEFAULTS, IGNORED, NOT_HERE, SETTINGS, describe, read_released_flags
from uwml_lib.released.published import row_config
from uwml_lib.support.errors import UWMLError
from uwml_lib.training import check_config

SCAN = "--max_violation --bi_gru --agg_func={} --cross_attn={} --lambda_softmax={}"
COCO = "--num_epochs=20 --lr_update=10 --learning_rate=.0005"
COMMANDS = {
    "f30k_triplet_t2i_lse": SCAN.format("LogSumExp", "t2i", 9) + " --lambda_lse=6",
    "f30k_triplet_t2i_avg": SCAN.format("Mean", "t2i", 9),
    "f30k_triplet_i2t_lse": SCAN.format("LogSumExp", "i2t", 4) + " --lambda_lse=5",
    "f30k_triplet_i2t_avg": SCAN.format("Mean", "i2t", 4),
    "f30k_polynomial_i2t_avg": SCAN.format("Mean", "i2t", 4),
    "coco1k_triplet_t2i_avg": f"{SCAN.format('Mean', 't2i', 9)} {COCO}",
    "coco5k_triplet_i2t_lse": f"{SCAN.format('LogSumExp', 'i2t', 4)} --lambda_lse=20 {COCO}",
    "coco1k_triplet_i2t_avg": f"{SCAN.format('Mean', 'i2t', 4)} {COCO}",
}
"""Row -> the arguments that the releases' READMEs give for it."""


def read(words):
    return read_released_flags(shlex.split(words))


@pytest.mark.parametrize("row", COMMANDS)
def test_the_commands_of_the_readmes_are_the_rows(row):
    data = f"--data_path '/my data' --data_name {row_config(row).dataset}"
    found = read(f"{data} {COMMANDS[row]} --loss {row_config(row).loss}")
    assert found.config == replace(row_config(row), data_root="/my data")
    assert found.rest == []
    warned = ["--max_violation"] if row_config(row).loss == "polynomial" else []
    assert [warning.split()[0] for warning in found.warnings] == warned


def test_defaults_are_those_of_the_release():
    found = read("")
    assert found.config == ExperimentConfig(
        dataset="precomp", data_root="./data/", direction="t2i", aggregation="LogSumExp", bidirectional=False,
        embed_size=1024, word_dim=300, batch_size=128, epochs=30, decay_epoch=15, learning_rate=2e-4, gradient_clip=2.0,
        loss="polynomial", twins="ignored",
    )  # fmt: skip
    assert (found.warnings, found.rest) == ([], [])
    assert read("--cross_attn i2t").config.lambda_softmax == 9.0
    assert read("--cross_attn i2t").config.lambda_lse == 6.0
    check_config(found.config)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("--num_epochs 3 --lr_update 2", {"epochs": 3, "decay_epoch": 2}),
        ("--batch_size=64 --embed_size=32 --word_dim=16", {"batch_size": 64, "embed_size": 32, "word_dim": 16}),
        ("--learning_rate .001 --grad_clip 0", {"learning_rate": 0.001, "gradient_clip": 0.0}),
        ("--raw_feature_norm softmax --agg_func Max", {"normalisation": "softmax", "aggregation": "Max"}),
        ("--precomp_enc_type weight_norm --bi_gru", {"weight_norm": True, "bidirectional": True}),
        ("--lambda_lse 3 --lambda_softmax 2", {"lambda_lse": 3.0, "lambda_softmax": 2.0}),
        ("--margin 0.1 --log_step 5", {"loss_options": {"margin": 0.1}, "log_every": 5}),
        ("--margin 0.2 --num_layers 1", {}),
        ("--loss infonce", {"loss": "infonce"}),
    ],
)
def test_flags_become_settings(words, changed):
    found = read(words)
    assert found.config == replace(read("").config, **changed)
    assert found.warnings == []


@pytest.mark.parametrize(
    ("words", "options", "warned"),
    [
        ("--loss triplet --max_violation", {}, False),
        ("--loss triplet", {"negatives": "all"}, False),
        ("--loss triplet --margin 0.1", {"negatives": "all", "margin": 0.1}, False),
        ("--max_violation", {}, True),
        ("", {}, False),
    ],
)
def test_max_violation_means_what_it_means_in_its_release(words, options, warned):
    found = read(words)
    assert found.config.loss_options == options
    assert bool(found.warnings) == warned
    check_config(found.config)


@pytest.mark.parametrize("flag", IGNORED)
def test_what_is_ignored_is_said_once(flag):
    found = read(f"--{flag} 3")
    assert found.config == read("").config
    assert [warning.startswith(f"--{flag} is ignored: ") for warning in found.warnings] == [True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max_violations", "found the flag --max_violations; did you mean --max_violation?"),
        ("--bi-gruu", "did you mean --bi_gru?"),
        ("--num_epoches=3", "found the flag --num_epoches; did you mean --num_epochs?"),
        ("--zzz 3", "found the flag --zzz; expected one of the released train.py or of uwml train"),
        ("--num_layers 2", "--num_layers: found 2, expected 1: this kit's GRU has one layer"),
        ("--no_imgnorm", "--no_imgnorm: found True, expected False: this kit always normalises regions"),
        ("--no_txtnorm", "--no_txtnorm: found True, expected False"),
        ("--raw_feature_norm l1norm", "--raw_feature_norm: invalid choice: 'l1norm'"),
        ("--agg_func mean", "--agg_func: invalid choice: 'mean'"),
        ("--lambda_softmax four", "--lambda_softmax: invalid float value: 'four'"),
        ("--num_epochs", "--num_epochs: expected one argument"),
        ("--num_epochs 0", "epochs: found 0, expected at least 1"),
    ],
)
def test_errors_name_the_flag(words, message):
    with pytest.raises(UWMLError) as error:
        read(words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_kits_own_options_are_handed_on():
    found = read("--seed 3 --bi_gru --warmup-epochs 2 --no-weight-norm --run_folder x --help")
    assert found.rest == ["--seed", "3", "--warmup-epochs", "2", "--no-weight-norm", "--run_folder", "x", "--help"]
    assert found.config.bidirectional


@pytest.mark.parametrize("name", [name for name in signature(train_released).parameters if name != "experiment"])
def test_every_option_of_the_command_is_handed_on(name):
    assert read(f"--{name} 2").rest == [f"--{name}", "2"]


def test_every_flag_is_accounted_for():
    accounted = {*SETTINGS, *IGNORED, *NOT_HERE, "margin", "max_violation", "precomp_enc_type"}
    assert accounted == set(DEFAULTS)
    assert sorted(line.split(":")[0] for line in describe().splitlines()) == sorted(f"--{name}" for name in DEFAULTS)


@pytest.mark.parametrize("run", ["checkpoint_i2t_bigru", "checkpoint_t2i_gru_weightnorm"])
def test_the_flags_are_those_of_a_recorded_training(run):
    with torch.serialization.safe_globals([argparse.Namespace]):
        options = vars(
            torch.load(Path(__file__).parents[1] / "golden" / run / "initial.pth.tar", map_location="cpu")["opt"]
        )
    assert set(options) - {"vocab_size"} == set(DEFAULTS)
    words = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if name != "vocab_size" and value is not False
    ]
    config = read_released_flags(words).config
    assert config.direction == options["cross_attn"]
    assert config.weight_norm == (options["precomp_enc_type"] == "weight_norm")
    assert config.bidirectional == options["bi_gru"]
    assert {name: options[name] for name in ("a", "b", "num_epochs", "workers")} == {
        name: DEFAULTS[name] for name in ("a", "b", "num_epochs", "workers")
    }
