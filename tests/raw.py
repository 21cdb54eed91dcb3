"""Raw files as they are published: Karpathy's JSON, and the TSV rows of bottom-up attention."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np


def entry(filename: str, split: str, sentences: Sequence[str], **more: Any) -> dict[str, Any]:
    """An image of Karpathy's JSON; more: other keys, such as cocoid."""
    words = [{"raw": sentence, "tokens": sentence.lower().split()} for sentence in sentences]
    return {"filename": filename, "split": split, "sentences": words, **more}


def tsv_row(image: str, boxes: np.ndarray, features: np.ndarray) -> bytes:
    """A row: boxes (n, 4), features (n, dim)."""
    arrays = (base64.b64encode(array.astype("<f4").tobytes()) for array in (boxes, features))
    return b"\t".join((image.encode(), b"640", b"480", b"%d" % len(boxes), *arrays)) + b"\n"
