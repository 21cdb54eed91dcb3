"""Karpathy's `dataset_{flickr8k,flickr30k,coco}.json` to the SCAN layout: captions and ids of every split."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from uwml_lib.datasets.precomputed import LONGEST_CAPTION
from uwml_lib.errors import UWMLError
from uwml_lib.files import lock, make_folder, read_json, read_lines, write_text
from uwml_lib.progress import Say, say

SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
"""Split in the JSON -> split of the SCAN layout; restval is what COCO's validation images leave over."""
CAPTIONS_PER_IMAGE = 5
TEST_1K = 1000
"""Images of COCO's `test`, the first of the 5,000 that are `testall`."""


class Image(NamedTuple):
    """What the layout keeps of an image."""

    id: str
    captions: list[str]


def write_captions(path: Path, folder: Path, say: Say = say) -> None:
    """Write `{split}_caps.txt` and `{split}_ids.txt` of every split that a JSON of Karpathy's has images of.

    Files that are there already are left alone where they say the same. Raises UWMLError, naming the JSON and the
    image, for what cannot be used, and for files in `folder` that say something else; nothing is written then.
    """
    splits = read_karpathy(path)
    make_folder(folder)
    with lock(folder, say):
        put_captions(folder, splits, path)
    for split, images in splits.items():
        say(f"{split}: {len(images):,} images, {CAPTIONS_PER_IMAGE} captions each")


def put_captions(folder: Path, splits: dict[str, list[Image]], source: Path) -> None:
    """Write captions and ids of every split; hold the folder's lock.

    Raises UWMLError, and writes nothing, if there are files that say something else.
    """
    files = {}
    for split, images in splits.items():
        files[folder / f"{split}_caps.txt"] = [caption for image in images for caption in image.captions]
        files[folder / f"{split}_ids.txt"] = [image.id for image in images]
    for file, lines in files.items():
        if file.exists() and read_lines(file) != lines:
            raise UWMLError(
                f"{file}: found other lines than {source.name} gives; move it away, or choose another folder"
            )
    for file, lines in files.items():
        write_text(file, "".join(f"{line}\n" for line in lines))


def read_karpathy(path: Path) -> dict[str, list[Image]]:
    """Return split -> its images in the order of the JSON, each with its first five captions.

    Of COCO, whose images have a `cocoid`, `testall` are all test images and `test` the first 1,000 of them. Raises
    UWMLError, naming the file and the image, for what has another shape, fewer captions or an id given before.
    """
    content = read_json(path)
    entries = content.get("images")
    if not isinstance(entries, list) or not entries:
        raise UWMLError(f"{path}: images: found {shown(entries)}, expected a list of at least one image")
    coco = content.get("dataset") == "coco" or any(isinstance(entry, dict) and "cocoid" in entry for entry in entries)
    splits: dict[str, list[Image]] = {split: [] for split in SPLITS.values()}
    seen: dict[str, int] = {}
    for number, (split, image) in enumerate(_images(path, entries, coco)):
        if (first := seen.setdefault(image.id, number)) != number:
            raise UWMLError(f"{path}: images[{first}] and images[{number}] are both {image.id}, expected each once")
        splits[split].append(image)
    if coco:
        splits["testall"] = splits["test"]
        splits["test"] = splits["testall"][:TEST_1K]
    return {split: images for split, images in splits.items() if images}


def _images(path: Path, entries: list[Any], coco: bool) -> Iterator[tuple[str, Image]]:
    for number, entry in enumerate(entries):
        where = f"{path}: images[{number}]"
        if not isinstance(entry, dict):
            raise UWMLError(f"{where}: found {shown(entry)}, expected an image, as a JSON object")
        image_id = _image_id(where, entry, coco)
        where = f"{where}, {image_id}"
        split = entry.get("split")
        if not isinstance(split, str) or split not in SPLITS:
            raise UWMLError(f"{where}: split: found {shown(split)}, expected one of {', '.join(SPLITS)}")
        sentences = entry.get("sentences")
        if not isinstance(sentences, list) or len(sentences) < CAPTIONS_PER_IMAGE:
            found = len(sentences) if isinstance(sentences, list) else shown(sentences)
            raise UWMLError(f"{where}: sentences: found {found}, expected at least {CAPTIONS_PER_IMAGE}")
        captions = [
            _caption(f"{where}: sentences[{place}]", sentence)
            for place, sentence in enumerate(sentences[:CAPTIONS_PER_IMAGE])
        ]
        yield SPLITS[split], Image(image_id, captions)


def _image_id(where: str, entry: dict[str, Any], coco: bool) -> str:
    """Return the id that the TSV files of features have: COCO's number, else the file's name without its ending."""
    if coco:
        number = entry.get("cocoid")
        if type(number) is not int:
            raise UWMLError(f"{where}: cocoid: found {shown(number)}, expected a number, as every image of COCO has")
        return str(number)
    name = entry.get("filename")
    if not isinstance(name, str) or not name.isprintable() or not (stem := PurePosixPath(name).stem):
        raise UWMLError(f"{where}: filename: found {shown(name)}, expected the name of a file")
    return stem


def _caption(where: str, sentence: Any) -> str:
    return caption_line(f"{where}: raw", sentence.get("raw") if isinstance(sentence, dict) else None)


def caption_line(where: str, text: Any) -> str:
    """Return a caption as one line, its white space collapsed to single blanks; raises UWMLError if it is none."""
    line = " ".join(text.split()) if isinstance(text, str) else ""
    lone_surrogate = any("\ud800" <= letter <= "\udfff" for letter in line)  # JSON can hold it, UTF-8 cannot
    if not line or "\0" in line or lone_surrogate or len(line) > LONGEST_CAPTION:
        found = f"{len(line):,} characters" if len(line) > LONGEST_CAPTION else shown(text)
        raise UWMLError(f"{where}: found {found}, expected a text of 1 to {LONGEST_CAPTION:,} characters")
    return line


def shown(value: Any) -> str:
    """A JSON value in a few words."""
    text = "nothing" if value is None else ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
