"""The flags of the released train.py, of SCAN and of PolyLoss alike, read as a configuration of this kit.

Both releases have the same flags and defaults, but `--a` and `--b`, which PolyLoss adds and never reads. SCAN's triplet
loss takes the hardest negatives with `--max_violation` and all of them without; PolyLoss always takes the hardest. The
loss, which is no flag of theirs, is this kit's `--loss`. Of other releases' checkpoints, `origin_of` names the model.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, NamedTuple, get_args

from uwml_lib.config import FIDELITY, Aggregation, Direction, ExperimentConfig, Normalisation
from uwml_lib.models.scan import DEFAULT_LAMBDA_LSE, DEFAULT_LAMBDA_SOFTMAX
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import unique_keys

DEFAULTS: dict[str, Any] = {
    "data_path": "./data/", "data_name": "precomp", "vocab_path": "./vocab/", "margin": 0.2, "num_epochs": 30,
    "batch_size": 128, "word_dim": 300, "embed_size": 1024, "grad_clip": 2.0, "num_layers": 1, "learning_rate": 0.0002,
    "lr_update": 15, "workers": 10, "log_step": 10, "val_step": 500, "logger_name": "./runs/runX/log",
    "model_name": "./runs/runX/checkpoint", "resume": "", "max_violation": False, "img_dim": 2048, "no_imgnorm": False,
    "no_txtnorm": False, "raw_feature_norm": "clipped_l2norm", "agg_func": "LogSumExp", "cross_attn": "t2i",
    "precomp_enc_type": "basic", "bi_gru": False, "lambda_lse": 6.0, "lambda_softmax": 9.0, "a": 0.9, "b": 0.4,
}  # fmt: skip
"""Every flag of the release with its default; False is that of a switch."""

SETTINGS = {
    "data_path": "data_root", "data_name": "dataset", "num_epochs": "epochs", "batch_size": "batch_size",
    "word_dim": "word_dim", "embed_size": "embed_size", "grad_clip": "gradient_clip", "learning_rate": "learning_rate",
    "lr_update": "decay_epoch", "log_step": "log_every", "raw_feature_norm": "normalisation",
    "agg_func": "aggregation", "cross_attn": "direction", "bi_gru": "bidirectional", "lambda_lse": "lambda_lse",
    "lambda_softmax": "lambda_softmax",
}  # fmt: skip
"""Flag -> the setting of `ExperimentConfig` that takes its value."""

CHOICES = {
    "raw_feature_norm": get_args(Normalisation), "agg_func": get_args(Aggregation), "cross_attn": get_args(Direction),
    "precomp_enc_type": ("basic", "weight_norm"),
}  # fmt: skip
"""The l1norm variants are missing: they end in a NameError in the release."""

NOT_HERE = {
    "num_layers": "this kit's GRU has one layer",
    "no_imgnorm": "this kit always normalises regions",
    "no_txtnorm": "this kit always normalises words",
}
"""Flag -> why it must keep its default here."""

SCAN_ALONE = ("no_txtnorm", "raw_feature_norm", "agg_func", "cross_attn", "precomp_enc_type", "bi_gru", "lambda_lse",
              "lambda_softmax", "model_name", "a", "b")  # fmt: skip
VSEPP: dict[str, Any] = {name: default for name, default in DEFAULTS.items() if name not in SCAN_ALONE} | {
    "measure": "cosine", "use_abs": False, "crop_size": 224, "finetune": False, "cnn_type": "vgg19",
    "use_restval": False, "reset_train": False,
}  # fmt: skip
"""Every flag of the VSE++ release with its default; of SCAN's it has all but those of `SCAN_ALONE`."""

NOT_IN_VSEPP = {
    "measure": "this kit's VSE++ scores by the cosine",
    "use_abs": "this kit's VSE++ keeps the signs of its vectors",
    "no_imgnorm": "this kit's VSE++ always normalises images",
}
"""Flag of VSE++ -> why it must keep its default here."""

OTHERS = {
    "focal_type": "BFAN", "mean_neg": "NAAF", "sgr_step": "SGRAF", "dim_vid": "VSRN",
    "vse_mean_warmup_epochs": "VSE-infinity",
}  # fmt: skip
"""Flag that no release has but that of another model -> the model, whose tensors may have SCAN's names and shapes."""

IGNORED = {
    "a": "the release never reads it; the coefficients are --loss-options",
    "b": "the release never reads it; the coefficients are --loss-options",
    "workers": "it does nothing in the release",
    "val_step": "dev is scored after every epoch, which is all that the release chooses its best model by",
    "vocab_path": "the vocabulary is built from the train and dev captions, and kept in the run folder",
    "img_dim": "the features say it",
    "logger_name": "the log is metrics.jsonl in the run folder",
    "model_name": "the run folder is named after the settings; --run-folder chooses another",
    "resume": "the same command goes on where it stopped; a file of the release is not read",
}
"""Flag -> what is said of it where it is given; none of these can change a result."""

MAY_BE_ABSENT = {*IGNORED, "precomp_enc_type", "reset_train"}
"""Flags that a checkpoint may lack: they change no score, or the weights themselves say them."""


class ReadFlags(NamedTuple):
    """What a command of the release comes to: a configuration, what was ignored, the words that are this kit's own."""

    config: ExperimentConfig
    warnings: list[str]
    rest: list[str]


def read_released_flags(words: Sequence[str]) -> ReadFlags:
    """Read the words after `train.py`; the kit's own options but for `--loss` and `--loss-options` are left unread.

    Raises UWMLError for an unknown flag, naming the nearest, an unreadable value, and what this kit does not do.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in DEFAULTS.items():
        how = {"action": "store_true"} if default is False else {"type": type(default), "choices": CHOICES.get(name)}
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, **how)
    parser.add_argument("--loss", default=ExperimentConfig.loss)
    parser.add_argument("--loss-options", "--loss_options", type=json_object, default={})
    try:
        known, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise UWMLError(str(error).removeprefix("argument ")) from error
    _check_are_ours(rest)
    given = vars(known)
    loss, options = given.pop("loss"), given.pop("loss_options")
    warnings = [f"--{name} is ignored: {IGNORED[name]}" for name in given if name in IGNORED]
    if loss != "triplet" and "max_violation" in given:
        warnings.append(f"--max_violation is ignored: the {loss} loss is trained; for SCAN's add --loss triplet")
    return ReadFlags(_config({**DEFAULTS, **given}, loss, options), warnings, rest)


def describe() -> str:
    """Say what each flag becomes here, a line a flag."""
    lines = [f"--{flag}: --{setting.replace('_', '-')}" for flag, setting in SETTINGS.items()]
    lines += [
        "--precomp_enc_type: --weight-norm", "--margin: --loss-options",
        "--max_violation: with --loss triplet the hardest negatives, which are all without it; else ignored",
    ]  # fmt: skip
    lines += [f"--{flag}: refused, {why}" for flag, why in NOT_HERE.items()]
    lines += [f"--{flag}: ignored, {why}" for flag, why in IGNORED.items()]
    return "\n".join(lines)


def origin_of(flags: Mapping[str, Any]) -> str:
    """Name the model that a checkpoint with these flags is of, "SCAN", which PolyLoss trains too, or another's."""
    if other := next((name for flag, name in OTHERS.items() if flag in flags), ""):
        return other
    return "VSE++" if "measure" in flags and "cross_attn" not in flags else "SCAN"


def config_of_checkpoint(flags: Mapping[str, Any]) -> ExperimentConfig:
    """Read the flags that a checkpoint of SCAN, PolyLoss or VSE++ holds.

    The loss is polynomial if they hold `a`, which PolyLoss alone has, else triplet. data_path, which is of another
    machine, is left out. Training and evaluation follow the release, see `FIDELITY`; VSE++ reads captions as text.
    Raises UWMLError for a checkpoint of another model, a flag that is absent, and a value that is not for this kit.
    """
    if (origin := origin_of(flags)) in OTHERS.values():
        raise UWMLError(f"found those of {origin}, expected those of SCAN, PolyLoss or VSE++")
    of_release = VSEPP if origin == "VSE++" else DEFAULTS
    if absent := [f"--{name}" for name in of_release if name not in flags and name not in MAY_BE_ABSENT]:
        raise UWMLError(f"found no {', '.join(absent)}, which every file of {origin} has; is it another model's?")
    known = {name: _value(name, flags.get(name, default), default) for name, default in of_release.items()}
    known["data_path"] = ""
    if origin != "VSE++":
        return _config(known, "polynomial" if "a" in flags else "triplet", {}, **FIDELITY["released"])
    _check_defaults(known, VSEPP, NOT_IN_VSEPP)
    as_trained = {**FIDELITY["released"], "captions": "text"}
    return _config(known, "triplet", {}, model="vse", bidirectional=False, **as_trained)


def flags_not_read(flags: Mapping[str, Any]) -> list[str]:
    """Name the flags of a checkpoint that its release does not have, each with its value; none of them is read."""
    of_release = VSEPP if origin_of(flags) == "VSE++" else DEFAULTS
    return [f"--{name} {value!r}" for name, value in flags.items() if name not in {*of_release, "vocab_size"}]


def _value(name: str, value: Any, default: Any) -> Any:
    kinds, kind = {float: Real, int: Integral}, type(default)  # numpy's numbers are welcome
    if not isinstance(value, kinds.get(kind, kind)):
        raise UWMLError(f"--{name}: found {value!r}, expected a value like {default!r}")
    if kind(value) not in (choices := CHOICES.get(name, (kind(value),))):
        raise UWMLError(f"--{name}: found {value!r}, expected one of {', '.join(choices)}")
    return kind(value)


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object; raises ValueError or TypeError for anything else."""
    return {**json.loads(text, object_pairs_hook=unique_keys)}


def _config(flags: Mapping[str, Any], loss: str, loss_options: dict[str, Any], **more: Any) -> ExperimentConfig:
    _check_defaults(flags, DEFAULTS, NOT_HERE)
    values = {setting: flags[flag] for flag, setting in SETTINGS.items() if flag in flags}  # VSE++ has no attention
    # Where the kit has the same default, or no use for a number, it is left out: so it is the same run by either name.
    if (direction := values.get("direction")) and values["lambda_softmax"] == DEFAULT_LAMBDA_SOFTMAX[direction]:
        values["lambda_softmax"] = None
    if direction and (values["aggregation"] != "LogSumExp" or values["lambda_lse"] == DEFAULT_LAMBDA_LSE[direction]):
        values["lambda_lse"] = None
    options: dict[str, Any] = {} if flags["margin"] == DEFAULTS["margin"] else {"margin": flags["margin"]}
    if loss == "triplet" and not flags["max_violation"]:
        options["negatives"] = "all"
    weight_norm = flags.get("precomp_enc_type") == "weight_norm"
    values |= {"weight_norm": weight_norm, "loss": loss, "loss_options": options | loss_options, "twins": "ignored"}
    return ExperimentConfig(**{**values, **more})


def _check_defaults(flags: Mapping[str, Any], defaults: Mapping[str, Any], not_here: Mapping[str, str]) -> None:
    for name, why in not_here.items():
        if (value := flags.get(name, defaults[name])) != defaults[name]:
            raise UWMLError(f"--{name}: found {value}, expected {defaults[name]}: {why}")


def _check_are_ours(words: Sequence[str]) -> None:
    """Raise UWMLError for a flag that this kit does not have either; values and `--help` are left to its parser."""
    settings = fields(ExperimentConfig)
    ours = {item.name for item in settings} | {"run_folder", "fidelity", "processes", "help"}
    switches = {f"no_{item.name}" for item in settings if item.type is bool}
    for word in words:
        flag = word.partition("=")[0]
        name = flag[2:].replace("-", "_")
        if word.startswith("--") and name not in ours | switches:
            near = get_close_matches(name, [*DEFAULTS, *sorted(ours)], n=1)
            hint = f"did you mean --{near[0]}?" if near else "expected one of the released train.py or of uwml train"
            raise UWMLError(f"found the flag {flag}; {hint}")
