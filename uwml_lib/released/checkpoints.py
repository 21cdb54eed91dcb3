"""Checkpoints of the SCAN and PolyLoss releases: read without ever running code from a file, converted, evaluated."""

import argparse
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.models import SCAN, Matcher
from uwml_lib.released.flags import config_of_checkpoint
from uwml_lib.runs.checkpoints import check_archive, check_vocabulary, load_model, save_model
from uwml_lib.runs.scoring import Member
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_is_file, read_json, sha256_of, write_json

# All that the releases pickle besides tensors: the flags, and numpy's numbers (recalls) under old and new names.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32")),
    *((np.float64(0).__reduce__()[0], f"numpy.{package}.multiarray.scalar") for package in ("_core", "core")),
]


def load_released_checkpoint(path: Path | str) -> tuple[SCAN, ExperimentConfig]:
    """Load a `model_best.pth.tar` of the PolyLoss or SCAN release onto the CPU, in evaluation mode.

    Reads what torch.save wrote as a zip archive or, before torch 1.6, without one; of files written by Python 2 what
    torch still understands. The configuration is that of the flags in the file, trained and evaluated as the release
    does (`FIDELITY`); the loss is polynomial where the flags are those of PolyLoss, else triplet. Only tensors, plain
    values, flags and numbers are made of the file, and none of it is run. Raises UWMLError naming it for anything else.
    """
    return _read_released(Path(path))[:2]


def convert_released_checkpoint(path: Path | str, vocabulary: Vocabulary, folder: Path | str) -> None:
    """Write a released checkpoint as a folder for `load_model`; raises UWMLError for a vocabulary of another size."""
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
    write_json(folder / "config.json", {"config": config.to_dict(), "released": facts})


def released_member(
    path: Path, data_root: str, dataset: str, vocabulary: Path | None, settings: Mapping[str, Any]
) -> Member:
    """Return what the release trained, a file or a converted folder, to be evaluated by these settings.

    settings: as in `FIDELITY`. dataset: the data set's folder, if not the one that the checkpoint names. vocabulary: of
    a file of the release; None is `NAME_vocab.json` in the data set's folder. Raises UWMLError.
    """
    model: Matcher
    if path.is_dir():
        model, config, words = load_model(path)
        digest = read_json(path / "config.json")["released"]["sha256"]
    else:
        model, config, facts = _read_released(path)
        digest = facts["sha256"]
    config = replace(config, data_root=data_root, **{"dataset": dataset or config.dataset, **settings})
    if not path.is_dir():
        words = Vocabulary.load(vocabulary or config.data_folder / f"{config.dataset}_vocab.json")
    check_vocabulary(path, model, words)
    about = {"file": path.name, "sha256": digest}
    return Member(f"{path.name.partition('.')[0]}-{digest[:8]}", model, config, words, about)


def _read_released(path: Path) -> tuple[SCAN, ExperimentConfig, dict[str, Any]]:
    """Return a model, its configuration, and what else is known: epochs done, best dev rsum, the file's SHA-256."""
    content = _harmless_content(path)
    try:
        images, captions = content["model"]
        flags = vars(content["opt"])
        embed_size, (words, word_dim) = images["fc.bias"].shape[0], captions["embed.weight"].shape
        weight = images["fc.weight_v" if "fc.weight_v" in images else "fc.weight"]
        for name, value in [*images.items(), *captions.items()]:
            if not isinstance(value, torch.Tensor) or value.nbytes > value.untyped_storage().nbytes():
                raise ValueError(f"{name} is no whole tensor")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UWMLError(f"{path}: not a checkpoint of the SCAN or PolyLoss release ({error!r})") from error
    try:
        config = config_of_checkpoint(flags)
    except (UWMLError, TypeError) as error:
        raise UWMLError(f"{path}: its flags cannot be understood: {error}") from error
    for name, size in {"vocab_size": words, "embed_size": embed_size, "word_dim": word_dim}.items():
        if (said := flags.get(name, size)) != size:
            raise UWMLError(f"{path}: found weights of {name} {size}, expected {said}, as its flags say")
    model = SCAN.from_config(config, weight.shape[1], words)
    try:
        model.image_encoder.load_state_dict(images)  # the old names weight_g and weight_v are understood
        model.caption_encoder.load_state_dict(captions)
    except RuntimeError as error:
        raise UWMLError(f"{path}: its weights do not fit the model of its flags ({error})") from error
    epoch, best = content.get("epoch"), content.get("best_rsum")
    facts = {
        "epoch": int(epoch) if isinstance(epoch, Integral) else None,
        "best_rsum": float(best) if isinstance(best, Real) and math.isfinite(best) else None,
        "sha256": sha256_of(path),
    }
    return model.eval(), config, facts


def _harmless_content(path: Path) -> dict[str, Any]:
    check_is_file(path)
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            why = "asks for more than tensors, numbers and flags, which could run code; nothing in it was run"
        else:
            why = f"not readable as a checkpoint, damaged or cut short ({type(error).__name__})"
        raise UWMLError(f"{path}: {why}") from error
    if not isinstance(content, dict):
        raise UWMLError(f"{path}: found a {type(content).__name__}, expected a dict, as the releases write")
    return content
