"""Data sets in the SCAN layout: precomputed region features, captions, a vocabulary."""

from uwml_lib.datasets.loading import check_data, load_selection, load_split, prepare_data
from uwml_lib.datasets.precomputed import (
    Batch,
    PrecomputedDataset,
    build_vocabulary,
    evaluation_split,
    fingerprint,
    pad_captions,
)
from uwml_lib.datasets.scenes import SCENES, build_scenes
from uwml_lib.datasets.vocabulary import Vocabulary, available_tokenizer, download_punkt, tokenize, tokenize_released

__all__ = [
    "SCENES",
    "Batch",
    "PrecomputedDataset",
    "Vocabulary",
    "available_tokenizer",
    "build_scenes",
    "build_vocabulary",
    "check_data",
    "download_punkt",
    "evaluation_split",
    "fingerprint",
    "load_selection",
    "load_split",
    "pad_captions",
    "prepare_data",
    "tokenize",
    "tokenize_released",
]
