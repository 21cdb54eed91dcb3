"""The page of what a search found: one file with the pictures inside it, which needs no network."""

import base64
import io
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from uwml_lib.datasets import PrecomputedDataset
from uwml_lib.datasets.batches import Sequences
from uwml_lib.datasets.raw.grid_features import load_picture
from uwml_lib.datasets.raw.items import plain_id
from uwml_lib.datasets.raw.pictures import Photographs, pictures_of
from uwml_lib.runs.search import Matches, Search
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import read_json, seal_of, write_text
from uwml_lib.support.paths import report_folder

TEMPLATES = Path(__file__).parent / "templates" / "search"
LARGEST = (480, 480)
"""Pixels of a picture on the page."""


def write_page(search: Search, found: Matches, pictures: Path | None = None, asked: Path | None = None) -> Path:
    """Write a page below the reports of the run's data set and return its path.

    pictures: folder of the images' files, by the items' ids with or without an ending; else those of `pictures_of`.
    asked: the file that was asked about. Raises UWMLError if none of the pictures is there, or one cannot be read.
    """
    numbers = [match.number for match in found.found] if found.of == "images" else [found.number]
    if asked:
        images: list[Image.Image | None] = [load_picture(asked)]
    elif pictures:
        images = _from_files(pictures, [search.data.ids[number] for number in numbers if number is not None])
    else:
        there = pictures_of(search.data)
        images = [_drawn(search.data, there, number) for number in numbers if number is not None]
    alts = [f"{match.item}: {match.captions}" for match in found.found] if found.of == "images" else [found.question]
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, autoescape=True)
    run, question = search.folder.resolve(), found.question
    text = environment.get_template("page.html.j2").render(
        found=found, pictures=[image and (_as_url(image), alt) for image, alt in zip(images, alts, strict=True)],
        split=search.split, dataset=search.config.dataset, run=run.name,
    )  # fmt: skip
    trained = search.config.run_name(read_json(run / "config.json")["data"])  # the same wherever the folder is
    key = seal_of([trained, search.split, found.of, question])
    name = re.sub(r"\W+", "-", question)[:40].strip("-")
    path = report_folder(search.config.dataset) / "search" / run.name / f"{name}-{key[:8]}.html"
    write_text(path, text)
    return path


def _drawn(data: PrecomputedDataset, arrays: Photographs | np.ndarray | None, number: int) -> Image.Image:
    """An item of a data set that brings its pictures; of a video all frames, side by side."""
    if isinstance(arrays, Photographs):
        return Image.fromarray(arrays[number])
    where = f"{data.folder / data.split}_pictures.npy"
    if arrays is None or arrays.dtype != np.uint8 or arrays.shape[3] != 3:
        there = "no such file" if arrays is None else f"{arrays.dtype} {arrays.shape}"
        raise UWMLError(f"{where}: found {there}, expected uint8 (n, height, width, 3)")
    first, count = number, 1
    if isinstance(data.features, Sequences):
        first, count = int(data.features.starts[number]), int(data.features.counts[number])
    return Image.fromarray(np.concatenate(arrays[first : first + count], axis=1))


def _from_files(folder: Path, ids: list[str]) -> list[Image.Image | None]:
    """Read the picture of every item, None where there is no file of it."""
    if not folder.is_dir():
        raise UWMLError(f"{folder}: no such folder, expected one of pictures")
    names, stems = {}, defaultdict(list)
    for path in filter(Path.is_file, sorted(folder.rglob("*"))):
        names[path.relative_to(folder).as_posix()] = path
        stems[plain_id(path.stem)].append(path)

    def find(item: str) -> Path | None:
        found = [names[item]] if item in names else stems.get(plain_id(item), [])
        expect(len(found) < 2, folder, " and ".join(map(str, found)), f"one picture of {item!r}")
        return found[0] if found else None

    paths = [find(item) for item in ids]
    expect(any(paths), folder, "no picture of these items", f"files called like {ids[0]!r}")
    return [None if path is None else load_picture(path) for path in paths]


def _as_url(image: Image.Image) -> str:
    """The bytes of a picture, made smaller where it is large, as an address that needs no network."""
    image.thumbnail(LARGEST)
    content = io.BytesIO()
    form = "png" if max(image.size) < 100 else "jpeg"  # small ones are drawn, and few colours stay sharp
    image.save(content, form, quality=85)
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
