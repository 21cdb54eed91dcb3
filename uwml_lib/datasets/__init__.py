"""Data sets in the SCAN layout: precomputed region features, captions, a vocabulary.

>>> from uwml_lib.datasets import NoDuplicatesBatchSampler, tokenize
>>> tokenize("Two dogs run.")
['two', 'dogs', 'run', '.']
>>> images, sentences = [0, 0, 1, 2], ["a dog .", "a wet dog .", "a cat .", "a dog ."]
>>> sampler = NoDuplicatesBatchSampler({"image": images, "sentence": sentences}, batch_size=2, seed=0)
>>> sampler.set_epoch(1)
>>> all({0, 1} != {*batch} and {0, 3} != {*batch} for batch in sampler)  # one image, one sentence
True
"""

from uwml_lib.datasets.batches import Batch, may_be_negatives, pad_captions
from uwml_lib.datasets.digits.embedded import build_embedded
from uwml_lib.datasets.digits.scenes import SCENES
from uwml_lib.datasets.loading import EMBEDDED, build_vocabulary, check_data, load_selection, load_split, prepare_data
from uwml_lib.datasets.precomputed import PrecomputedDataset, captions_there, evaluation_split, fingerprint
from uwml_lib.datasets.raw.pictures import pictures_of
from uwml_lib.datasets.sampler import NoDuplicatesBatchSampler
from uwml_lib.datasets.vocabulary import Vocabulary, available_tokenizer, download_punkt, tokenize, tokenize_released

__all__ = [
    "EMBEDDED", "SCENES", "Batch", "NoDuplicatesBatchSampler", "PrecomputedDataset", "Vocabulary",
    "available_tokenizer", "build_embedded", "build_vocabulary", "captions_there", "check_data", "download_punkt",
    "evaluation_split", "fingerprint", "load_selection", "load_split", "may_be_negatives", "pad_captions",
    "pictures_of", "prepare_data", "tokenize", "tokenize_released",
]  # fmt: skip
