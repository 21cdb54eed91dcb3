"""Karpathy's `dataset_{flickr8k,flickr30k,coco}.json` to the SCAN layout: captions and ids of every split."""

from pathlib import Path, PurePosixPath
from typing import Any

from uwml_lib.datasets.raw import items
from uwml_lib.support.files import lock, read_json
from uwml_lib.support.progress import Say, say

CAPTIONS_PER_IMAGE = 5
"""Of Karpathy's own data sets; the splits of others keep as many as all their images have."""
KARPATHYS = ("flickr8k", "flickr30k", "coco")
TEST_1K = 1000
"""Images of COCO's `test`, the first of the 5,000 that are `testall`."""


def write_captions(folder: Path, path: Path, /, say: Say = say) -> None:
    """Write the captions and ids of every split, from Karpathy's dataset_flickr8k.json, _flickr30k or _coco.

    They go to `{split}_caps.txt` and `{split}_ids.txt`. Files that say the same already are left alone.

    Args:
        folder: The data set's folder, such as data/f30k_precomp.
        path: The JSON file.

    Raises:
        UWMLError: The JSON has what cannot be used, and the image is named, or `folder` has files that say something
            else; nothing is written then.
    """
    splits = items.first_captions(path.name, read_karpathy(path), None, "image", say)
    with lock(folder, say):
        items.write_items(folder, splits, path.name)


def read_karpathy(path: Path) -> items.Splits:
    """Return split -> its images in the order of the JSON -> the captions of each.

    Of Flickr8k, Flickr30K and COCO these are the first five, and every image must have them. An image's id is its
    file's name without the ending, or COCO's `cocoid`. Of COCO `testall` are all test images, and `test` the first
    1,000 of them. Raises UWMLError, naming the file and the image, for what has another shape, fewer
    captions or an id given before.
    """
    content = read_json(path)
    entries = items.read_entries(path, content, "images")
    coco = content.get("dataset") == "coco" or any("cocoid" in entry for _, entry in entries)
    wanted = CAPTIONS_PER_IMAGE if coco or content.get("dataset") in KARPATHYS else None
    splits: items.Splits = {}
    places: dict[str, str] = {}
    for where, entry in entries:
        if coco:  # the ids are those of the TSV files of features
            image: Any = entry.get("cocoid")
            items.expect_value(type(image) is int, f"{where}: cocoid", image, "a number, as every image of COCO has")
        else:
            name: Any = entry.get("filename")
            image = PurePosixPath(name).stem if isinstance(name, str) and name.isprintable() else ""
            items.expect_value(image, f"{where}: filename", name, "the name of a file")
        image = str(image)
        split = items.split_of(image, where, places, entry)
        sentences = items.read_entries(f"{where}, {image}", entry, "sentences")
        enough = len(sentences) >= (wanted or 1)
        items.expect_value(enough, f"{where}, {image}: sentences", len(sentences), f"at least {wanted or 1}")
        splits.setdefault(split, {})[image] = [
            items.caption_line(f"{place}: raw", sentence.get("raw")) for place, sentence in sentences[:wanted]
        ]
    if coco and "test" in splits:
        splits["testall"] = splits["test"]
        splits["test"] = dict(list(splits["testall"].items())[:TEST_1K])
    return splits
