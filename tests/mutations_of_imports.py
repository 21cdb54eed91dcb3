"""What people's real files look like when they are not quite right: caption files, features, archives, videos, folders.

Each function damages one thing in a folder and returns what, and how to use it. Every caption says which image it is
of and every feature is drawn from its image's number, so that whatever is accepted is held against its own image.
"""

import base64
import contextlib
import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.datasets.test_bottom_up import DIM, boxes_of, features_of, ten_columns, wrapped, write_ids
from tests.outcomes import Wrong
from tests.raw import entry, tsv_row
from tests.tiny import write_split
from uwml_lib.datasets import PrecomputedDataset, build_vocabulary
from uwml_lib.datasets.audit import audit
from uwml_lib.datasets.loading import words_covered
from uwml_lib.datasets.raw.bottom_up import write_features
from uwml_lib.datasets.raw.caption_files import read_captions
from uwml_lib.datasets.raw.msrvtt import write_videos

Attempt = tuple[str, Callable[[], None]]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 123456\n"
INSTEAD = {
    "a pointer": POINTER,
    "a page": b"<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>\n",
    "nothing": b"",
}
MARK = b"\xef\xbb\xbf"


def quiet(line: str) -> None:
    """Say nothing."""


def must_be_refused(work: Callable[[], object], what: str) -> None:
    """Do what has to end in an error of the kit's own."""
    work()
    raise Wrong(f"accepted {what}")


# Caption files.

IMAGES = ("a.jpg", "b.jpg", "c d.jpg", "e,f.png", "sub/g.jpg")
SPLIT_OF = dict(zip(IMAGES, ("train", "train", "val", "train", "test"), strict=True))
SPLITS = {"train": "train", "val": "dev", "test": "test"}
SAID = ("a dog runs .", "two cats , one bird", 'the "big" box', "10 red balls", "a | bar and a\u00e9roplane")


def captions_of(name: str) -> list[str]:
    """Two captions that no other image has."""
    return [f"{text} of {name[:-4]} {k}" for k, text in enumerate((SAID[len(name) % 5], SAID[ord(name[0]) % 5]))]


WRITTEN = {name: captions_of(name) for name in IMAGES}
PAIRS = [(name, k, caption) for name, captions in WRITTEN.items() for k, caption in enumerate(captions)]


def table(separator: str, *columns: str, header: bool = False) -> str:
    """The captions as lines of some columns, between quotes where commas have it so."""
    text = io.StringIO()
    how = {"quoting": csv.QUOTE_MINIMAL} if separator == "," else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    rows = [dict(image=name, number=str(k), caption=text, split=SPLIT_OF[name]) for name, k, text in PAIRS]
    if separator == "|":
        rows = [{name: cell.replace("|", "-") for name, cell in row.items()} for row in rows]
    for row in [dict(zip(columns, columns, strict=True)), *rows] if header else rows:
        csv.writer(text, delimiter=separator, lineterminator="\n", **how).writerow([row[name] for name in columns])
    return text.getvalue()


COCO = {
    "images": [{"id": 10 + n, "file_name": name} for n, name in enumerate(IMAGES)],
    "annotations": [
        {"id": n, "image_id": 10 + IMAGES.index(name), "caption": text} for n, (name, _, text) in enumerate(PAIRS)
    ],
}
CAPTION_FILES = {
    "coco.json": COCO,
    "names.json": WRITTEN,
    "list.json": [{"image": name, "caption": text, "split": SPLIT_OF[name]} for name, _, text in PAIRS],
    "karpathy.json": {"images": [entry(name, SPLIT_OF[name], captions) for name, captions in WRITTEN.items()]},
    "metadata.jsonl": "".join(
        json.dumps({"file_name": name, "text": text, "split": SPLIT_OF[name]}) + "\n" for name, _, text in PAIRS
    ),
    "numbered.token": "".join(f"{name}#{k}\t{text}\n" for name, k, text in PAIRS),
    "splits.tsv": table("\t", "image", "split", "caption"),
    "all.tsv": table("\t", "image", "number", "caption", "split", header=True),
    "pairs.csv": table(",", "image", "caption", header=True),
    "splits.csv": table(",", "image", "number", "split", "caption"),
    "results.csv": table("|", "image", "number", "caption", header=True),
}
"""Name -> content; what is no text is JSON."""


def damage_coco(content: dict[str, Any], generator: random.Random) -> str:
    """Repeat an id or a name, or leave something out, as where two files were put together."""
    kind = generator.choice(("repeat id", "repeat name", "repeat both", "drop image", "drop id", "text id"))
    one, other = generator.sample(content["images"], 2)
    if kind == "repeat id":
        one["id"] = other["id"]
    elif kind == "repeat name":
        one["file_name"] = other["file_name"]
    elif kind == "repeat both":
        content["images"].append(dict(other))
    elif kind == "drop image":
        content["images"].remove(one)
    elif kind == "drop id":
        container, key = generator.choice(((one, "id"), (generator.choice(content["annotations"]), "image_id")))
        del container[key]
    else:
        one["id"] = str(one["id"])
    return kind


def damage_entries(content: list[dict[str, Any]], generator: random.Random, key: str = "split") -> str:
    """Drop, blank, misspell or contradict one value of a list of objects."""
    kind = generator.choice(("drop", "blank", "misspell", "other", "repeat"))
    one = generator.choice(content)
    if kind == "drop":
        del one[key]
    elif kind == "repeat":
        content.append(json.loads(json.dumps(one)) | {key: generator.choice(("train", "val", "test"))})
    else:
        value = {"blank": generator.choice(("", None, " ")), "misspell": f"{one[key]}s", "other": "test"}[kind]
        one[key] = value
    return f"{kind} {key}"


def repeat_key(text: str, generator: random.Random) -> tuple[str, str]:
    """Write one member of a JSON object twice; the second time with another value."""
    start = generator.choice([place for place, letter in enumerate(text) if letter == "{"])
    inside, end = json.JSONDecoder().raw_decode(text[start:])
    if not inside:
        return text, "untouched"
    key = generator.choice(list(inside))
    return f'{text[: start + end - 1]}, {json.dumps(key)}: "x"{text[start + end - 1 :]}', f"repeat the key {key!r}"


def damage_lines(text: str, name: str, generator: random.Random) -> tuple[str, str]:
    """Damage one line of a text with columns."""
    lines = text.splitlines()
    at = generator.randrange(len(lines))
    kinds = ["blank line", "swap lines", "repeat line", "cut line", "drop end"]
    kinds += ['drop "', 'add "'] * 3 if name.endswith("csv") else []
    separator = "\t" if "\t" in text else "|" if name == "results.csv" else ","
    kinds += ["drop cell", "blank cell", "misspell cell", "drop separator", "repeat cell"] * 2
    kind = generator.choice(kinds)
    if '"' in kind:
        places = [i for i, letter in enumerate(text) if letter == '"' or kind == 'add "']
        place = generator.choice(places)
        return (text[:place] + text[place + 1 :], kind) if "drop" in kind else (text[:place] + '"' + text[place:], kind)
    if kind == "drop end":
        return text.removesuffix("\n"), kind
    cells = next(csv.reader([lines[at]], delimiter=separator)) if separator == "," else lines[at].split(separator)
    column = generator.randrange(1, max(2, len(cells)))
    if kind == "blank line":
        lines.insert(at, generator.choice(("", "  ")))
    elif kind == "repeat line":
        lines.insert(generator.randrange(len(lines)), lines[at])
    elif kind == "swap lines":
        other = generator.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "cut line":
        lines[at] = lines[at][: generator.randrange(len(lines[at]))]
    elif kind == "drop separator":
        place = generator.choice([i for i, letter in enumerate(lines[at]) if letter == separator] or [0])
        lines[at] = lines[at][:place] + generator.choice(("", " ")) + lines[at][place + 1 :]
    else:
        if kind == "drop cell":
            del cells[column:][:1], cells[column : column + 1]
        elif kind == "repeat cell":
            cells.insert(column, cells[min(column, len(cells) - 1)])
        elif column < len(cells):
            cells[column] = "" if kind == "blank cell" else generator.choice(("Train", "tests", "7", "-1", "x", "0"))
        written = io.StringIO()
        csv.writer(written, lineterminator="").writerow(cells)
        lines[at] = written.getvalue() if separator == "," else separator.join(cells)
    return "\n".join(lines) + "\n", f"{kind}, line {at + 1}"


def damage_caption_file(name: str, generator: random.Random) -> tuple[bytes, str]:
    """Return a caption file with one thing damaged, and what."""
    content = json.loads(json.dumps(found)) if not isinstance(found := CAPTION_FILES[name], str) else found
    general = generator.random()
    if general < 0.1:
        text = content if isinstance(content, str) else json.dumps(content)
        return MARK + text.encode(), "mark"
    if general < 0.15:
        instead = generator.choice(tuple(INSTEAD))
        return INSTEAD[instead], instead
    if isinstance(content, str):
        if name.endswith("jsonl"):
            lines = content.splitlines()
            at, kind = generator.randrange(len(lines)), generator.choice(("cut", "blank", "key", "split"))
            if kind == "split":
                entries = [json.loads(line) for line in lines]
                kind = damage_entries(entries, generator)
                return "".join(json.dumps(line) + "\n" for line in entries).encode(), kind
            if kind == "key":
                lines[at], kind = repeat_key(lines[at], generator)
            else:
                lines[at] = lines[at][: generator.randrange(len(lines[at]))] if kind == "cut" else " "
            return "\n".join(lines).encode(), f"{kind}, line {at + 1}"
        text, what = damage_lines(content, name, generator)
        return text.encode(), what
    if generator.random() < 0.3:
        text, what = repeat_key(json.dumps(content), generator)
        return text.encode(), what
    if name == "names.json":
        one = generator.choice(IMAGES)
        content[one] = generator.choice(([], "", [""], [1], [["x"]], {"raw": "x"}, content[one][0]))
        return json.dumps(content).encode(), f"{one}: {content[one]!r}"
    if name == "coco.json":
        what = damage_coco(content, generator)
    else:
        what = damage_entries(content if isinstance(content, list) else content["images"], generator)
    return json.dumps(content).encode(), what


def check_captions(path: Path, what: str) -> None:
    """Every caption that is accepted is one of its own image, every split its own, and no line goes unnoticed."""
    _, captions, splits = read_captions(path, Path("images"), {*IMAGES})

    def plain(text: str) -> str:  # a quote more or less is in the caption that is damaged, a bar between two columns
        return "".join(text.replace('"', "").replace("|", "-").split())

    damaged = sum(plain(text) not in {*map(plain, WRITTEN[name])} for name, texts in captions.items() for text in texts)
    if damaged > (0 if what == "mark" or "swap" in what else 1):
        raise Wrong(f"{damaged} captions are not those of their images: {captions!r:.300}")
    count, lines = sum(map(len, captions.values())), len(PAIRS)
    fewer = 2 if path.name == "names.json" else 1
    if not lines - fewer <= count <= lines + ("repeat" in what):
        raise Wrong(f"{count} captions, and {lines} were written")
    if what != "other split" and splits and splits != {name: SPLITS[SPLIT_OF[name]] for name in captions}:
        raise Wrong(f"splits: found {splits}")
    if what == "mark" and captions != (read_plain(path.name)):
        raise Wrong("a mark changes the captions")


def read_plain(name: str) -> dict[str, list[str]]:
    """What an undamaged file says."""
    return {
        image: [text.replace("|", "-") for text in texts] if name == "results.csv" else texts
        for image, texts in WRITTEN.items()
    }


def attempt_captions(place: Path, generator: random.Random) -> Attempt:
    """Damage a caption file."""
    name = generator.choice(tuple(CAPTION_FILES))
    content, what = damage_caption_file(name, generator)
    path = place / name
    path.write_bytes(content)
    refused = what in INSTEAD or what.startswith("repeat the key") or what in ("repeat id", "repeat name")
    if refused:
        return f"{name}, {what}", lambda: must_be_refused(lambda: check_captions(path, what), what)
    return f"{name}, {what}", lambda: check_captions(path, what)


# Features.

NUMBERS = range(1000, 1006)
WANTED = {"train": NUMBERS[:4], "dev": (1005, 1003, 1004)}
ID_FORMS = (
    "{}.jpg", "COCO_val2014_{:012d}", "val2014/COCO_val2014_{:012d}.jpg", "{:012d}", "./{}.jpg", "{} ", "{}.0", "0{}",
)  # fmt: skip


def rows_of_features() -> list[bytes]:
    """A row of every image and one of an image that no split has."""
    return [tsv_row(str(number), boxes_of(number), features_of(number)) for number in (*reversed(NUMBERS), 9999)]


def damage_cells(line: bytes, kind: str, generator: random.Random) -> bytes:
    """Damage one row of a TSV file."""
    cells = line.rstrip(b"\n").split(b"\t")
    if kind == "id":
        cells[0] = generator.choice(ID_FORMS).format(int(cells[0])).encode()
    elif kind == "no boxes":
        cells[3] = generator.choice((b"0", b"2", b"4", b"-1", b"3.0", b"", b" 3", b"\xc2\xb3", b"+3", b"03"))
    elif kind == "cut":
        column = generator.choice((4, 5))
        cells[column] = cells[column][: generator.randrange(len(cells[column]))]
    elif kind == "letter":
        column = generator.choice((4, 5))
        at = generator.randrange(len(cells[column]))
        cells[column] = cells[column][:at] + bytes([generator.choice(b"Aa0/+= -_\x00")]) + cells[column][at + 1 :]
    elif kind == "swap cells":
        one, other = generator.sample(range(len(cells)), 2)
        cells[one], cells[other] = cells[other], cells[one]
    elif kind == "double":
        cells[5] = base64.b64encode(features_of(int(cells[0])).astype("<f8").tobytes())
    return b"\t".join(cells) + b"\n"


ROW_KINDS = ("id", "no boxes", "cut", "letter", "swap cells", "double")


def damage_rows(rows: list[bytes], generator: random.Random) -> str:
    """Damage some rows, in place."""
    kind = generator.choice((*ROW_KINDS, "words", "columns", "both", "repeat", "blank line", "ends", "several ids"))
    at = generator.randrange(len(rows) - (kind == "repeat"))  # the last row is of no image that is wanted
    if kind in ROW_KINDS:
        rows[at] = damage_cells(rows[at], kind, generator)
    elif kind == "several ids":
        for number in generator.sample(range(len(rows)), 3):
            rows[number] = damage_cells(rows[number], "id", generator)
    elif kind in ("words", "columns"):
        form = wrapped if kind == "words" else ten_columns
        for number in generator.sample(range(len(rows)), generator.randint(1, len(rows))):
            rows[number] = form(rows[number])
    elif kind == "both":
        number = generator.choice(NUMBERS)
        rows.append(tsv_row(f"{number}.jpg", boxes_of(number + 1), features_of(number + 1)))
    elif kind == "repeat":
        rows.append(rows[at])
    elif kind == "blank line":
        rows.insert(at, generator.choice((b"\n", b" \n", b"\t\n")))
    else:
        rows[at] = rows[at].replace(b"\n", generator.choice((b"\r\n", b"", b"\r")))
    return kind


def naive_rows(content: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read a TSV file cell by cell: the number in the id -> boxes and features."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for line in content.replace(b"\r", b"").split(b"\n"):
        cells = [cell[2:-1] if cell.startswith(b"b'") else cell for cell in line.split(b"\t")]
        with contextlib.suppress(ValueError, IndexError):  # of a row that nobody can read
            image = cells[0].decode().removesuffix(".jpg").rpartition("_")[2].rpartition("/")[2]
            boxes, features = (np.frombuffer(base64.b64decode(cell, validate=True), "<f4") for cell in cells[-2:])
            found[image.lstrip("0")] = boxes.reshape(-1, 4), features.reshape(len(boxes) // 4, -1)
    return found


def check_features(folder: Path, naive: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Features and boxes are those that a naive reading finds for every id."""
    for split in WANTED:
        names = (folder / f"{split}_ids.txt").read_text().splitlines()
        (folder / f"{split}_caps.txt").write_text("a dog\n" * len(names))
        dataset = PrecomputedDataset(folder, split)
        boxes, start = dataset.optional_array("boxes", 2, 3), 0
        if dataset.ids != names or len(dataset.features) != len(names):
            raise Wrong(f"{split}: found the images {dataset.ids}, expected {names}")
        for row, name in enumerate(names):
            if name not in naive:
                raise Wrong(f"{split}: accepted a row of {name} that cannot be read")
            wanted_boxes, wanted = naive[name]
            given = boxes[row] if boxes.ndim == 3 else boxes[start : start + len(wanted)]
            start += len(wanted)
            if not np.array_equal(dataset.images(row, row + 1)[0].numpy(), wanted):
                raise Wrong(f"{split}: other features of {name} than the file has")
            if not np.array_equal(given, wanted_boxes):
                raise Wrong(f"{split}: other boxes of {name} than the file has")


def attempt_features(place: Path, generator: random.Random) -> Attempt:
    """Damage TSV files of features, or what lies in the folder that they go to."""
    folder, paths = write_ids(place / "data", **WANTED), [place / "a.tsv", place / "b.tsv"]
    rows = rows_of_features()
    what = generator.choice(("rows",) * 8 + ("instead", "ids", "stale", "empty row file"))
    boxes = generator.choice((0, 3))
    if what == "rows":
        what = damage_rows(rows, generator)
    cut = generator.randrange(1, len(rows))
    for path, part in zip(paths, (rows[:cut], rows[cut:]), strict=True):
        path.write_bytes(b"".join(part))
    content = b"".join(rows[:cut]) + b"\n" + b"".join(rows[cut:])
    refused = what in ("both", "repeat")
    if what == "instead":
        what, path = generator.choice(tuple(INSTEAD)), generator.choice((*paths, folder / "train_ids.txt"))
        path.write_bytes(INSTEAD[what])
        refused = True
    elif what == "ids":
        path = folder / "train_ids.txt"
        what = generator.choice(("mark", "ends", "repeat id", "blank id"))
        text = path.read_bytes()
        more = {"mark": MARK + text, "ends": text.replace(b"\n", b"\r\n"), "repeat id": text + b"1000\n"}
        path.write_bytes(more.get(what, text + b"\n\n"))
        refused = what not in ("mark", "ends")
    elif what == "stale":
        np.save(folder / f"{generator.choice(tuple(WANTED))}_offsets.npy", np.arange(4))
        refused = True
    elif what == "empty row file":
        paths[1].write_bytes(b"\n")

    def use() -> None:
        write_features(folder, paths, boxes, say=quiet)
        for path in folder.glob("*_ids.txt"):
            path.write_bytes(path.read_bytes().removeprefix(MARK))
        check_features(folder, naive_rows(content))

    return f"features, {what}", (lambda: must_be_refused(use, what)) if refused else use


def attempt_archives(place: Path, generator: random.Random) -> Attempt:
    """Damage one `.npz` of a folder that has one a picture."""
    folder, archives = write_ids(place / "data", **WANTED), place / "npz"
    archives.mkdir()
    arrays: dict[int, dict[str, Any]] = {
        number: {"x": features_of(number), "bbox": boxes_of(number), "num_bbox": 3} for number in NUMBERS
    }
    one, other = generator.sample(NUMBERS, 2)
    kinds = ("turned", "bbox missing", "x missing", "cut", "instead", "files swapped", "square", "double",
    "count", "few",
             "nan", "both", "no count")  # fmt: skip
    kind = generator.choice(kinds)
    found = arrays[one]
    if kind == "turned":
        found["x"] = found["x"].T
    elif kind.endswith("missing"):
        del found[kind.split()[0]]
    elif kind == "square":
        found["x"] = found["x"][:, :3]
    elif kind == "double":
        found["x"], found["bbox"] = found["x"].astype(float), found["bbox"].astype(float)
    elif kind == "count":
        found["num_bbox"] = generator.choice((0, 2, 4, -1, np.array([3]), np.array([3, 3]), 3.5, "3"))
    elif kind == "few":
        found.update(x=found["x"][:0], bbox=found["bbox"][:0], num_bbox=0)
    elif kind == "nan":
        found[generator.choice(("x", "bbox"))][1, 1] = generator.choice((np.nan, np.inf))
    elif kind == "no count":
        del found["num_bbox"]
    elif kind == "files swapped":
        arrays[one], arrays[other] = arrays[other], arrays[one]
    for number, values in arrays.items():
        np.savez(archives / f"{number}.jpg.npz", **values)
    path = archives / f"{one}.jpg.npz"
    if kind == "both":
        np.savez(archives / f"{one}.npz", **arrays[other])
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size)])
    elif kind == "instead":
        path.write_bytes(INSTEAD[generator.choice(tuple(INSTEAD))])
    swapped = {one: other, other: one} if kind == "files swapped" else {}
    naive = {
        str(number): (boxes_of(swapped.get(number, number)), features_of(swapped.get(number, number)))
        for number in NUMBERS
    }

    def use() -> None:
        write_features(folder, [archives], generator.choice((0, 3)), say=quiet)
        check_features(folder, naive)

    known = kind in ("turned", "files swapped", "double", "count", "no count")
    return f"archives, {kind}", use if known else lambda: must_be_refused(use, kind)


VIDEOS = {"video0": "train", "video1": "train", "video2": "validate", "video3": "test"}


def attempt_videos(place: Path, generator: random.Random) -> Attempt:
    """Damage the JSON or one file of features of a data set as MSR-VTT is."""
    path, features = place / "videos.json", place / "features"
    features.mkdir()
    videos = [{"video_id": name, "split": split} for name, split in VIDEOS.items()]
    sentences = [{"video_id": name, "caption": f"{name} says {k}"} for k in range(2) for name in VIDEOS]
    for number, name in enumerate(VIDEOS):
        np.save(features / f"{name}.npy", np.full((number + 1, DIM), number, np.float32))
    kind = generator.choice(("instead", "videos", "sentences", "key", "mark", "array", "shuffle"))
    one, what = generator.choice(tuple(VIDEOS)), kind
    if kind == "videos":
        what = damage_entries(videos, generator, generator.choice(("split", "video_id")))
    elif kind == "sentences":
        what = damage_entries(sentences, generator, generator.choice(("caption", "video_id")))
    elif kind == "shuffle":
        generator.shuffle(sentences)
    text = json.dumps({"videos": videos, "sentences": sentences})
    if kind == "key":
        text, what = repeat_key(text, generator)
    path.write_bytes((MARK if kind == "mark" else b"") + text.encode())
    if kind == "instead":
        what = generator.choice(tuple(INSTEAD))
        generator.choice((path, features / f"{one}.npy")).write_bytes(INSTEAD[what])
    elif kind == "array":
        array = np.load(features / f"{one}.npy")
        wrong = {
            "turned": array.T,
            "of one": array[0],
            "empty": array[:0],
            "nan": array * np.nan,
            "text": array.astype(str),
        }
        what = generator.choice(tuple(wrong))
        np.save(features / f"{one}.npy", wrong[what])

    changed = what in ("other split", "repeat caption", "other caption", "misspell caption")

    def use() -> None:
        write_videos(place / "new", features, [path], say=quiet)
        for split in ("train", "dev", "test"):
            check_videos(PrecomputedDataset(place / "new", split), changed)

    refused = kind in ("instead", "key") or what in ("of one", "empty", "nan", "text") or "drop" in what
    return f"videos, {what}", (lambda: must_be_refused(use, what)) if refused else use


def check_videos(dataset: PrecomputedDataset, moved: bool) -> None:
    """Frames and captions are those of the videos."""
    names = [name for name, split in VIDEOS.items() if {"validate": "dev"}.get(split, split) == dataset.split]
    if dataset.ids != names and not moved:
        raise Wrong(f"{dataset.split}: found the videos {dataset.ids}, expected {names}")
    for number, name in enumerate(dataset.ids):
        k = dataset.captions_per_image
        captions = dataset.captions[number * k : (number + 1) * k]
        if not moved and {*captions} - {f"{name} says {n}" for n in range(2)}:
            raise Wrong(f"{name}: found the captions {captions}")
        of = int(name.removeprefix("video"))
        if not np.array_equal(dataset.images(number, number + 1)[0], np.full((of + 1, DIM), of)):
            raise Wrong(f"{name}: other frames than those of its file")


# Folders in the SCAN layout.

SIZES = {"train": 8, "dev": 4, "test": 4}


def write_folder(folder: Path) -> None:
    """Images of noise with two captions each, an id for every caption, boxes; dev stores an image for each caption."""
    generator = np.random.default_rng(0)
    for split, size in SIZES.items():
        features = generator.normal(size=(size, 3, 6)).astype(np.float32)
        features = features.repeat(2, axis=0) if split == "dev" else features
        captions = [f"{split} dog number {i} runs {k} ." for i in range(size) for k in range(2)]
        write_split(folder, split, features, captions)
        np.save(folder / f"{split}_boxes.npy", np.ones((len(features), 3, 4), np.float32))
        number = "" if split == "dev" else "#{}"
        ids = "".join(f"{split}{i}.jpg{number.format(k)}\n" for i in range(size) for k in range(2))
        (folder / f"{split}_ids.txt").write_text(ids)


def caption_major(lines: list[str]) -> list[str]:
    """First the first caption of every image, then the second."""
    return [*lines[::2], *lines[1::2]]


def damage_text(folder: Path, split: str, kind: str, generator: random.Random) -> bool:
    """Damage the ids or captions of a split; return whether it must be noticed."""
    ids, captions = ((folder / f"{split}_{name}.txt") for name in ("ids", "caps"))
    lines, texts = ids.read_text().splitlines(), captions.read_text().splitlines()
    if kind == "ids swapped":
        one, other = generator.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
        noticed = one // 2 != other // 2
    elif kind == "caption-major":
        lines, texts, noticed = caption_major(lines), caption_major(texts), True
    elif kind == "ids lost":
        del lines[generator.randrange(len(lines))]
        noticed = True
    else:  # blanks
        texts, noticed = ["".join(text.split()) for text in texts], False
    ids.write_text("".join(f"{line}\n" for line in lines))
    captions.write_text("".join(f"{text}\n" for text in texts))
    return noticed


def damage_arrays(folder: Path, split: str, kind: str, generator: random.Random) -> str:
    """Damage the features or boxes of a split; return what an audit must say, or "" for an error."""
    path = folder / f"{split}_{'boxes' if kind == 'boxes' else 'ims'}.npy"
    array = np.load(path)
    at = generator.randrange(len(array))
    if kind == "boxes":
        np.save(path, np.delete(array, at, 0) if generator.random() < 0.5 else np.insert(array, at, array[at], 0))
        return ""
    if kind == "zeroed":
        array[at - at % 2 : at - at % 2 + 2] = 0  # in dev, an image is stored in two rows
        np.save(path, array)
        return f"{split}: images with regions of zeros"
    train = np.load(folder / "train_ims.npy")
    rows, noise = generator.sample(range(4), 2), kind == "nearly copied"
    copies = train[rows] * (1 + 0.01 * noise * np.random.default_rng(at).normal(size=train[rows].shape))
    array = np.load(folder / "test_ims.npy")
    array[rows] = copies.astype(array.dtype)
    np.save(folder / "test_ims.npy", array)
    return "test: images nearly equal to one in train" if noise else "also in train: 2 images and 0 captions of test"


def attempt_folder(place: Path, generator: random.Random) -> Attempt:
    """Damage a folder in the SCAN layout."""
    write_folder(folder := place / "folder")
    split = generator.choice(tuple(SIZES))
    kind = generator.choice(("ids swapped", "caption-major", "ids lost", "blanks", "boxes", "zeroed", "copied",
                             "nearly copied", "instead"))  # fmt: skip
    warning, refused = "", True
    if kind == "blanks" and generator.random() < 0.5:
        split = "every split"
        for one in SIZES:
            damage_text(folder, one, kind, generator)
    elif kind in ("ids swapped", "caption-major", "ids lost", "blanks"):
        refused = damage_text(folder, split, kind, generator)
    elif kind == "instead":
        file, what = generator.choice(sorted(folder.iterdir())), generator.choice(tuple(INSTEAD))
        file.write_bytes(INSTEAD[what])
        split, kind = file.name, what
    else:
        warning = damage_arrays(folder, split, kind, generator)
        refused = not warning

    def use() -> None:
        words = build_vocabulary(folder)
        splits = [PrecomputedDataset(folder, name, words) for name in SIZES]
        covered = words_covered({data.split: data for data in splits})
        if kind == "blanks" and covered[split] > 0.5:
            raise Wrong(f"of words without blanks, {covered} are known")
        found = audit(splits).warnings
        if not any(line.startswith(warning) for line in found) and warning:
            raise Wrong(f"the audit says {found}, expected {warning}")
        if refused:
            raise Wrong(f"accepted {kind} of {split}")
        for data in splits:
            if data.ids != [f"{data.split}{i}.jpg" for i in range(SIZES[data.split])]:
                raise Wrong(f"{data.split}: found the ids {data.ids}")

    return f"folder, {split}, {kind}", use


OF_FILES = {
    "captions": attempt_captions, "features": attempt_features, "archives": attempt_archives, "videos": attempt_videos,
    "folder": attempt_folder,
}  # fmt: skip
