"""Bottom-up attention in one `.npz` a picture, as bottom-up-attention.pytorch writes it -> features and boxes."""

import zipfile
from pathlib import Path

import numpy as np

from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import check_is_file


def npz_files(path: Path) -> list[Path]:
    """Return the `.npz` files of a folder in the order of their names, or the one that a path is; none for a TSV."""
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        expect(files, path, "a folder without .npz files", "a TSV file, or a folder with one .npz a picture")
        return files
    return [path] if path.suffix == ".npz" else []


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (boxes, dim) and the boxes (boxes, 4) of a picture, float32.

    `x` has the features, boxes x dim or dim x boxes, and `bbox` the boxes; `num_bbox`, where it is there, is their
    number. Nothing is unpickled. Raises UWMLError, naming the file, for what has another shape.
    """
    check_is_file(path)
    expect(zipfile.is_zipfile(path), path, "no zip archive", ".npz with x and bbox, as np.savez writes it")
    try:
        with np.load(path, allow_pickle=False) as content, np.errstate(over="ignore"):
            features, boxes = (content[name].astype("<f4") for name in ("x", "bbox"))
            n = int(content["num_bbox"]) if "num_bbox" in content else len(boxes)
    except Exception as error:  # of a damaged file numpy and zipfile raise many kinds
        why = "x, bbox or num_bbox is no array of numbers" if "pickle" in str(error) else error
        raise UWMLError(f"{path}: not readable as .npz with x and bbox ({why})") from error
    expect(n > 0 and boxes.shape == (n, 4), f"{path}: bbox", boxes.shape, f"({n}, 4), at least one, by num_bbox")
    sides = features.shape.count(n) if features.ndim == 2 else 0
    expect(sides == 1, f"{path}: x", features.shape, f"{n} boxes x another number, or the other way round")
    return (features if len(features) == n else features.T), boxes
