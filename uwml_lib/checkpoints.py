"""What a run keeps on disk, and the released checkpoints: weights, read without ever running code from a file.

A run folder holds config.json, vocabulary.json, metrics.jsonl, checkpoint/last.pt, checkpoint/best.safetensors and,
once it is finished, results.json. One file, one rename: a state is whole or not there.
"""

import argparse
import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model as save_weights
from torch import nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.errors import UWMLError
from uwml_lib.files import atomic_path, check_is_file, read_json, read_lines, sha256_of, write_json
from uwml_lib.models import SCAN, Matcher, build_model
from uwml_lib.released_flags import config_of_checkpoint

RECORDS = {"step": ("epoch", "step", "loss"), "epoch": ("epoch", "seconds", "dev_rsum")}
"""Kind of a line of metrics.jsonl -> numbers it must have."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors, numbers, strings, lists and dicts."""
    with atomic_path(path, RuntimeError) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state onto the CPU without running code from the file."""
    check_is_file(path)
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UWMLError(
            f"{path}: not a training state of this kit ({type(error).__name__}); remove it to start over"
        ) from error


def save_model(path: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write a model's weights with a JSON description (safetensors: one metadata key keeps the bytes repeatable)."""
    with atomic_path(path, SafetensorError) as temporary:
        save_weights(model, str(temporary), metadata={"description": json.dumps(description, sort_keys=True)})


def read_config(run_folder: Path, data_root: str = "") -> ExperimentConfig:
    """Read the configuration of a run; raises UWMLError, naming the file, if it is none."""
    path = run_folder / "config.json"
    values = read_json(path).get("config")
    if not isinstance(values, dict):
        raise UWMLError(f"{path}: config: found {type(values).__name__}, expected the names and values of a run")
    try:
        return ExperimentConfig.from_dict({**values, "data_root": data_root or values.get("data_root", "")})
    except UWMLError as error:
        raise UWMLError(f"{path}: {error}") from error


def load_model(run_folder: Path | str, data_root: str = "") -> tuple[Matcher, ExperimentConfig, Vocabulary]:
    """Load the best model of a run folder onto the CPU, in evaluation mode, with its configuration and vocabulary.

    data_root: where the data set's folder is now, if it was moved since. Raises UWMLError, naming the file, for what is
    missing, damaged or does not fit.
    """
    run_folder = Path(run_folder)
    config = read_config(run_folder, data_root)
    vocabulary = Vocabulary.load(run_folder / "vocabulary.json")
    path = run_folder / "checkpoint" / "best.safetensors"
    if not path.exists():
        raise UWMLError(f"{path}: no such file; has this run finished an epoch?")
    try:
        with safe_open(path, "pt") as file:
            description = json.loads(file.metadata()["description"])
            feature_dim, vocabulary_size = description["feature_dim"], description["vocabulary_size"]
            caption_size = description.get("caption_size", vocabulary_size)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UWMLError(f"{path}: not a model of this kit ({error})") from error
    if vocabulary_size != len(vocabulary):
        raise UWMLError(
            f"{path}: made for {vocabulary_size} words, but {run_folder / 'vocabulary.json'} has {len(vocabulary)}"
        )
    model = build_model(config, feature_dim, caption_size)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UWMLError(f"{path}: does not fit the model of {run_folder / 'config.json'} ({error})") from error
    return model.eval(), config, vocabulary


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line that was being written when the process died is left out.

    Raises UWMLError for a line that is no record of this kit.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            check_record(record)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            raise UWMLError(f"{path}: line {number} is no record of a training ({error})") from error
        records.append(record)
    return records


def check_record(record: Any) -> None:
    """Raise ValueError unless this is a record that metrics.jsonl may hold."""
    kind = record.get("kind") if isinstance(record, dict) else None
    wanted = RECORDS.get(kind, ()) if isinstance(kind, str) else ()
    numbers = [record.get(name) for name in wanted]
    if not numbers or not all(isinstance(value, int | float) and abs(value) < math.inf for value in numbers):
        raise ValueError(f"found {record!r}, expected one of {', '.join(RECORDS)} with its numbers")


# --------------------------------------------------------------------------------------------- released checkpoints

# All that the releases pickle besides tensors: the flags, and numpy's numbers (recalls) under old and new names.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32")),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
]


class Released(NamedTuple):
    """What a released checkpoint says besides weights: the epochs done, their best dev rsum, the file's SHA-256."""

    epoch: int | None
    best_rsum: float | None
    sha256: str


def load_released_checkpoint(path: Path | str) -> tuple[SCAN, ExperimentConfig]:
    """Load a `model_best.pth.tar` of the PolyLoss or SCAN release onto the CPU, in evaluation mode.

    Reads what torch.save wrote as a zip archive or, before torch 1.6, without one; of files written by Python 2 what
    torch still understands. The configuration is that of the flags in the file, trained and evaluated as the release
    does (`FIDELITY`); the loss is polynomial where the flags are those of PolyLoss, else triplet. Only tensors, plain
    values, flags and numbers are made of what the file holds, and nothing in it is run. Raises UWMLError, naming the
    file, for anything else.
    """
    return _read_released(Path(path))[:2]


def _read_released(path: Path) -> tuple[SCAN, ExperimentConfig, Released]:
    content = _harmless_content(path)
    try:
        images, captions = content["model"]
        flags = vars(content["opt"])
        sizes = images["fc.bias"].shape[0], captions["embed.weight"].shape
        weight = images["fc.weight_v" if "fc.weight_v" in images else "fc.weight"]
        _check_tensors(images)
        _check_tensors(captions)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UWMLError(f"{path}: not a checkpoint of the SCAN or PolyLoss release ({error!r})") from error
    try:
        config = config_of_checkpoint(flags)
    except (UWMLError, TypeError) as error:
        raise UWMLError(f"{path}: its flags cannot be understood: {error}") from error
    if (said := flags.get("vocab_size", sizes[1][0])) != sizes[1][0]:
        raise UWMLError(f"{path}: found vectors for {sizes[1][0]} words, expected {said}, the vocab_size of its flags")
    if sizes != (config.embed_size, (sizes[1][0], config.word_dim)):
        raise UWMLError(
            f"{path}: found weights of sizes {sizes[0]} and {tuple(sizes[1])}, expected those of its flags, embed_size "
            f"{config.embed_size} and word_dim {config.word_dim}"
        )
    model = SCAN.from_config(config, weight.shape[1], sizes[1][0])
    try:
        model.image_encoder.load_state_dict(images)  # the old names weight_g and weight_v are understood
        model.caption_encoder.load_state_dict(captions)
    except RuntimeError as error:
        raise UWMLError(f"{path}: its weights do not fit the model of its flags ({error})") from error
    epoch, best = content.get("epoch"), content.get("best_rsum")
    facts = Released(
        int(epoch) if isinstance(epoch, Integral) else None,
        float(best) if isinstance(best, Real) and math.isfinite(best) else None,
        sha256_of(path),
    )
    return model.eval(), config, facts


def _harmless_content(path: Path) -> dict[str, Any]:
    check_is_file(path)
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise UWMLError(
                f"{path}: asks for more than tensors, numbers and flags, which could run code; refused, and nothing "
                "in it was run"
            ) from error
        raise UWMLError(f"{path}: not readable as a checkpoint, damaged or cut short") from error
    except Exception as error:  # a damaged file raises nearly anything
        raise UWMLError(
            f"{path}: not readable as a checkpoint, damaged or cut short ({type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise UWMLError(f"{path}: found a {type(content).__name__}, expected a dict, as the releases write")
    return content


def _check_tensors(weights: Mapping[str, Any]) -> None:
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name} is no whole tensor")


def _check_archive(path: Path) -> None:
    """Raise ValueError for a zip archive with a damaged member: torch itself does not look at the checksums."""
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise ValueError(f"{damaged} is damaged")


def convert_released_checkpoint(path: Path | str, vocabulary: Vocabulary, folder: Path | str) -> None:
    """Write a released checkpoint as a folder of this kit, with safetensors weights, that `load_model` reads.

    Raises UWMLError if the vocabulary is not the one that the checkpoint was trained with, by its size.
    """
    path, folder = Path(path), Path(folder)
    model, config, facts = _read_released(path)
    check_vocabulary(path, model, vocabulary)
    if folder.exists() and any(folder.iterdir()):
        raise UWMLError(f"{folder}: found files, expected a new or empty folder")
    vocabulary.save(folder / "vocabulary.json")
    description = {
        "config": config.to_dict(), "feature_dim": model.image_encoder.fc.in_features,
        "vocabulary_size": len(vocabulary),
    }  # fmt: skip
    save_model(folder / "checkpoint" / "best.safetensors", model, description)
    write_json(folder / "config.json", {"config": config.to_dict(), "released": facts._asdict()})


def check_vocabulary(path: Path, model: nn.Module, vocabulary: Vocabulary) -> None:
    """Raise UWMLError unless a model has a vector for every word of a vocabulary, and no more."""
    if (size := len(model.state_dict()["caption_encoder.embed.weight"])) != len(vocabulary):
        raise UWMLError(f"{path}: made for {size} words, but the vocabulary has {len(vocabulary)}; is it another's?")
