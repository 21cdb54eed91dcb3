"""Checkpoints of the SCAN and PolyLoss releases, read without ever running code from a file."""

import argparse
import math
import pickle
import zipfile
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.models import SCAN
from uwml_lib.released.flags import config_of_checkpoint
from uwml_lib.runs.checkpoints import _check_archive, check_vocabulary, save_model
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_is_file, sha256_of, write_json

# All that the releases pickle besides tensors: the flags, and numpy's numbers (recalls) under old and new names.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32")),
    *((np.float64(0).__reduce__()[0], f"numpy.{package}.multiarray.scalar") for package in ("_core", "core")),
]


class Facts(NamedTuple):
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


def _read_released(path: Path) -> tuple[SCAN, ExperimentConfig, Facts]:
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
    if (said := flags.get("vocab_size", words)) != words:
        raise UWMLError(f"{path}: found vectors for {words} words, expected {said}, the vocab_size of its flags")
    if (embed_size, word_dim) != (config.embed_size, config.word_dim):
        raise UWMLError(
            f"{path}: found weights of sizes {embed_size} and {word_dim}, expected those of its flags, embed_size "
            f"{config.embed_size} and word_dim {config.word_dim}"
        )
    model = SCAN.from_config(config, weight.shape[1], words)
    try:
        model.image_encoder.load_state_dict(images)  # the old names weight_g and weight_v are understood
        model.caption_encoder.load_state_dict(captions)
    except RuntimeError as error:
        raise UWMLError(f"{path}: its weights do not fit the model of its flags ({error})") from error
    epoch, best = content.get("epoch"), content.get("best_rsum")
    facts = Facts(
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
    except Exception as error:  # a damaged file raises nearly anything
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise UWMLError(
                f"{path}: asks for more than tensors, numbers and flags, which could run code; refused, and nothing "
                "in it was run"
            ) from error
        kind = type(error).__name__
        raise UWMLError(f"{path}: not readable as a checkpoint, damaged or cut short ({kind})") from error
    if not isinstance(content, dict):
        raise UWMLError(f"{path}: found a {type(content).__name__}, expected a dict, as the releases write")
    return content
