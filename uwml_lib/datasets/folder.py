"""What a data set's folder is as a whole: its splits, its vocabulary, its fingerprint."""

import hashlib
from pathlib import Path

import numpy as np

from uwml_lib.config import Captions
from uwml_lib.datasets.vocabulary import Vocabulary, available_tokenizer
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_is_file, load_array, read_bytes, read_lines, sha256_of

READ_WHOLE = 200 * 10**6
"""Bytes; of larger files the fingerprint takes samples."""


def evaluation_split(folder: Path | str) -> str:
    """Return "test", or "dev" where there is no test split; whoever reports numbers must say which.

    Raises UWMLError for a test split without features, which would be passed over in silence.
    """
    features, *others = (Path(folder) / f"test_{name}" for name in ("ims.npy", "caps.txt", "caps.npy", "offsets.npy"))
    if features.exists():
        return "test"
    if there := [path.name for path in others if path.exists()]:
        raise UWMLError(f"{features}: no such file, though there is {there[0]}; remove that to report dev")
    if features.is_symlink():
        raise UWMLError(f"{features}: leads nowhere; remove it to report dev")
    return "dev"


def captions_there(folder: Path | str) -> Captions:
    """Return "vectors" for a folder with vectors of its captions and no text of them, and "text" for any other."""
    text, vectors = (Path(folder) / f"train_caps.{ending}" for ending in ("txt", "npy"))
    return "vectors" if vectors.exists() and not text.exists() else "text"


def build_vocabulary(folder: Path | str) -> Vocabulary:
    """Build the vocabulary of a folder from its train and dev captions, as the released ones were."""
    return Vocabulary.build(
        caption for split in ("train", "dev") for caption in read_lines(Path(folder) / f"{split}_caps.txt")
    )


def fingerprint(folder: Path | str, captions: Captions = "text") -> str:
    """Digest of a folder's captions, features and tokenizer; of files above 200 MB, of 64 images (COCO is 36 GB).

    captions: "vectors" takes these in, too.
    """
    folder, digest = Path(folder), hashlib.sha256(available_tokenizer().encode())
    for split in ("train", "dev", "test"):
        path, text, vectors, offsets = (
            folder / f"{split}_{name}" for name in ("ims.npy", "caps.txt", "caps.npy", "offsets.npy")
        )
        if not path.exists():
            continue
        features = load_array(path, 2, 3)
        digest.update(f"{split} {features.shape} {features.dtype}".encode())
        if captions != "vectors" or text.exists():
            digest.update(read_bytes(text))
        if captions == "vectors":
            check_is_file(vectors)
            digest.update(sha256_of(vectors).encode())
        if offsets.exists():
            digest.update(sha256_of(offsets).encode())
        if path.stat().st_size <= READ_WHOLE:
            digest.update(sha256_of(path).encode())
        else:
            for row in np.linspace(0, len(features) - 1, 64, dtype=int):
                digest.update(features[row].tobytes())
    return digest.hexdigest()[:16]
