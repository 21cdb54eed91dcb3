"""What a run keeps on disk: weights that hold no code, and the state from which an interrupted training goes on.

A run folder holds config.json, vocabulary.json, metrics.jsonl, checkpoint/last.pt, checkpoint/best.safetensors and,
once it is finished, results.json. One file, one rename: a state is whole or not there.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model as save_weights
from torch import nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.errors import UWMLError
from uwml_lib.files import atomic_path, check_is_file, read_json
from uwml_lib.models import build_model


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors, numbers, strings, lists and dicts."""
    with atomic_path(path, RuntimeError) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state onto the CPU without running code from the file."""
    check_is_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():  # torch itself does not look at the checksums
                raise ValueError(f"{damaged} is damaged")
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
        raise UWMLError(f"{path}: holds no configuration of a run")
    try:
        return ExperimentConfig.from_dict({**values, "data_root": data_root or values.get("data_root", "")})
    except UWMLError as error:
        raise UWMLError(f"{path}: {error}") from error


def load_model(run_folder: Path | str, data_root: str = "") -> tuple[nn.Module, ExperimentConfig, Vocabulary]:
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
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UWMLError(f"{path}: not a model of this kit ({error})") from error
    if vocabulary_size != len(vocabulary):
        raise UWMLError(
            f"{path}: made for {vocabulary_size} words, but {run_folder / 'vocabulary.json'} has {len(vocabulary)}"
        )
    model = build_model(config, feature_dim, vocabulary_size)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UWMLError(f"{path}: does not fit the model of {run_folder / 'config.json'}") from error
    return model.eval(), config, vocabulary
