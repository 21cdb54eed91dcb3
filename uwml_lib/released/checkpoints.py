"""Checkpoints of SCAN, PolyLoss and VSE++: read without ever running code from a file, converted, evaluated."""

import argparse
import math
import pickle
import warnings
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
from uwml_lib.models import SCAN, VSE
from uwml_lib.models.matcher import WithSCANEncoders
from uwml_lib.released.flags import config_of_checkpoint, flags_not_read
from uwml_lib.runs.checkpoints import check_archive, check_vocabulary, load_model, save_model
from uwml_lib.runs.scoring import Member
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import check_is_file, read_json, sha256_of, write_json

# All that the releases pickle besides tensors: the flags, and numpy's numbers (recalls) under old and new names.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32")),
    *((np.float64(0).__reduce__()[0], f"numpy.{package}.multiarray.scalar") for package in ("_core", "core")),
]


NOT_OURS = "not a checkpoint of the SCAN, PolyLoss or VSE++ release"


def load_released_checkpoint(path: Path | str) -> tuple[WithSCANEncoders, ExperimentConfig]:
    """Load a `model_best.pth.tar` of the PolyLoss, SCAN or VSE++ release onto the CPU, in evaluation mode.

    Reads what torch.save wrote as a zip archive or, before torch 1.6, without one; of files written by Python 2 what
    torch still understands. The configuration is that of the flags in the file, trained and evaluated as the release
    does (`FIDELITY`); the loss is polynomial where the flags are those of PolyLoss, else triplet. Only tensors, plain
    values, flags and numbers are made of the file, and none of it is run. Warns of flags that its release does not
    have. Raises UWMLError naming the file for anything else, and the model if it is one of those in `OTHERS`.
    """
    model, config, facts = _read_released(Path(path))
    if remark := about_flags(facts):
        warnings.warn(f"{path}: {remark}", stacklevel=2)
    return model, config


def about_flags(facts: Mapping[str, Any]) -> str:
    """Name the flags of a checkpoint that were not read, as its facts have them; empty if there are none."""
    if not (flags := facts.get("flags_not_read")):
        return ""
    return f"not read: {', '.join(flags)}, which no release has; if they change scores, these are not its scores"


def convert_released_checkpoint(path: Path | str, vocabulary: Vocabulary, folder: Path | str) -> dict[str, Any]:
    """Write a released checkpoint as a folder for `load_model`, and return what else is known of it.

    Raises UWMLError for a vocabulary of another size.
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
    write_json(folder / "config.json", {"config": config.to_dict(), "released": facts})
    return facts


def released_member(
    path: Path, data_root: str, dataset: str, vocabulary: Path | None, settings: Mapping[str, Any]
) -> Member:
    """Return what the release trained, a file or a converted folder, to be evaluated by these settings.

    settings: as in `FIDELITY`. dataset: the data set's folder, if not the one that the checkpoint names. vocabulary: of
    a file of the release; None is `NAME_vocab.json` in the data set's folder. Raises UWMLError.
    """
    model: Any  # both models are on SCAN's encoders
    if path.is_dir():
        model, config, words = load_model(path)
        facts = read_json(path / "config.json")["released"]
    else:
        model, config, facts = _read_released(path)
    config = replace(config, data_root=data_root, **{"dataset": dataset or config.dataset, **settings})
    if not path.is_dir():
        words = Vocabulary.load(vocabulary or config.data_folder / f"{config.dataset}_vocab.json")
    check_vocabulary(path, model, words)
    about = {
        "file": path.name, "sha256": (digest := facts["sha256"]), "feature_dim": model.image_encoder.fc.in_features,
        "flags_not_read": facts.get("flags_not_read", []),
    }  # fmt: skip
    return Member(f"{path.name.partition('.')[0]}-{digest[:8]}", model, config, words, about)


def _read_released(path: Path) -> tuple[WithSCANEncoders, ExperimentConfig, dict[str, Any]]:
    """Return a model, its configuration, and what else is known: epochs done, best dev rsum, the file's SHA-256."""
    content = _harmless_content(path)
    try:
        flags = vars(content["opt"])
    except (KeyError, TypeError) as error:
        raise UWMLError(f"{path}: {NOT_OURS} ({error!r})") from error
    try:
        config, unread = config_of_checkpoint(flags), flags_not_read(flags)
    except (UWMLError, TypeError) as error:
        raise UWMLError(f"{path}: its flags cannot be understood: {error}") from error
    images, captions = _weights(path, content)
    words, word_dim = captions["embed.weight"].shape
    embed_size, feature_dim = images["fc.weight_v" if "fc.weight_v" in images else "fc.weight"].shape
    for name, size in {"vocab_size": words, "embed_size": embed_size, "word_dim": word_dim}.items():
        if (said := flags.get(name, size)) != size:
            raise UWMLError(f"{path}: found weights of {name} {size}, expected {said}, as its flags say")
    model = (VSE if config.model == "vse" else SCAN).from_config(config, feature_dim, words)
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
        "flags_not_read": unread,
    }
    return model.eval(), config, facts


def _weights(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors of the two encoders, without the `module.` that torch's DataParallel puts before names."""
    try:
        images, captions = ({name.removeprefix("module."): x for name, x in part.items()} for part in content["model"])
        if len(images) + len(captions) < sum(map(len, content["model"])):
            raise ValueError("names stand with and without module.")
        for name, value in [*images.items(), *captions.items()]:
            if not isinstance(value, torch.Tensor) or value.nbytes > value.untyped_storage().nbytes():
                raise ValueError(f"{name} is no whole tensor")
        of_pixels = any(name.startswith("cnn.") for name in images)
        weight = images["fc.weight_v" if "fc.weight_v" in images else "fc.weight"]
        dimensions = weight.ndim, images["fc.bias"].ndim, captions["embed.weight"].ndim
        if dimensions != (2, 1, 2):
            raise ValueError(f"its weights have {dimensions} dimensions")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UWMLError(f"{path}: {NOT_OURS} ({error!r})") from error
    expect(not of_pixels, path, "VSE++ on pixels, with a CNN in it", "VSE++ on precomputed features")
    return images, captions


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
