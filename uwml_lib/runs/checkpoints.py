"""What a run keeps on disk: settings, metrics and weights, read without ever running code from a file.

A run folder holds config.json, vocabulary.json, metrics.jsonl, checkpoint/last.pt, checkpoint/best.safetensors and,
once it is finished, results.json. One file, one rename: a state is whole or not there.
"""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model as save_weights
from torch import nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.models import Matcher, build_model
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import atomic_path, check_is_file, read_json, read_lines

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
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises nearly anything
        why = type(error).__name__
        raise UWMLError(f"{path}: not a training state of this kit ({why}); remove it to start over") from error


def save_model(path: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write a model's weights with a JSON description (safetensors: one metadata key keeps the bytes repeatable)."""
    with atomic_path(path, SafetensorError) as temporary:
        save_weights(model, str(temporary), metadata={"description": json.dumps(description, sort_keys=True)})


def read_config(run_folder: Path, data_root: str = "") -> ExperimentConfig:
    """Read the configuration of a run; raises UWMLError, naming the file, if it is none."""
    path = run_folder / "config.json"
    values = read_json(path).get("config")
    expect(isinstance(values, dict), f"{path}: config", type(values).__name__, "the names and values of a run")
    try:
        return ExperimentConfig.from_dict({**values, "data_root": data_root or values.get("data_root", "")})
    except UWMLError as error:
        raise UWMLError(f"{path}: {error}") from error


def load_model(run_folder: Path | str, data_root: str = "") -> tuple[Matcher, ExperimentConfig, Vocabulary]:
    """Load the best model of a run folder onto the CPU, in evaluation mode, with its configuration and vocabulary.

    data_root: where the data are now, if moved. Raises UWMLError, naming what is missing, damaged or does not fit.
    """
    run_folder = Path(run_folder)
    config = read_config(run_folder, data_root)
    vocabulary = Vocabulary.load(run_folder / "vocabulary.json")
    path = run_folder / "checkpoint" / "best.safetensors"
    if not path.exists():
        raise UWMLError(f"{path}: no such file; has this run finished an epoch?")
    check_is_file(path)
    try:
        with safe_open(path, "pt") as file:
            description = json.loads(file.metadata()["description"])
            feature_dim, vocabulary_size = description["feature_dim"], description["vocabulary_size"]
            caption_size = description.get("caption_size", vocabulary_size)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UWMLError(f"{path}: not a model of this kit ({error})") from error
    if vocabulary_size != len(vocabulary):
        there = f"{run_folder / 'vocabulary.json'} has {len(vocabulary)}"
        raise UWMLError(f"{path}: made for {vocabulary_size} words, but {there}")
    model = build_model(config, feature_dim, caption_size)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UWMLError(f"{path}: does not fit the model of {run_folder / 'config.json'} ({error})") from error
    return model.eval(), config, vocabulary


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl without a last line that was cut off; raises UWMLError for any other that is no record."""
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    records, lines = [], read_lines(path)
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


def check_archive(path: Path) -> None:
    """Raise ValueError for a zip archive with a damaged member: torch does not look at the checksums."""
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise ValueError(f"{damaged} is damaged")


def check_vocabulary(path: Path, model: nn.Module, vocabulary: Vocabulary) -> None:
    """Raise UWMLError unless a model has a vector for every word of a vocabulary, and no more."""
    if (size := len(model.state_dict()["caption_encoder.embed.weight"])) != len(vocabulary):
        raise UWMLError(f"{path}: made for {size} words, but the vocabulary has {len(vocabulary)}; is it another's?")
