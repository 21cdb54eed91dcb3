"""Caption files: every form comes to the same captions, and what is wrong is named with its place."""

import json
from pathlib import Path

import pytest

from uwml_lib.datasets.raw.caption_files import read_captions
from uwml_lib.support.errors import UWMLError

NAMES = {"a.jpg", "b.jpg", "my cat, asleep.png", "sub/c.jpg", "#1.jpg", "bare"}
CAPTIONS = {"a.jpg": ["A dog, running .", 'the "dog"'], "b.jpg": ["two  cats"]}
EXPECTED = {"a.jpg": ["A dog, running .", 'the "dog"'], "b.jpg": ["two cats"]}
PAIRS = [(name, caption) for name, captions in CAPTIONS.items() for caption in captions]


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


def read(tmp_path: Path, content, name: str = "captions.txt"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_captions(path, Path("images"), NAMES)


# ------------------------------------------------------------------------------------------------ forms

QUOTED = ['a.jpg,"A dog, running ."', 'a.jpg,"the ""dog"""', "b.jpg,two  cats"]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (lines(*(f"{name}\t{caption}" for name, caption in PAIRS)), "a tab"),
        (lines(*(f"{name}#{n}\t{caption}" for n, (name, caption) in enumerate(PAIRS))), "a tab"),
        (lines(*(f"{name}\t{caption}" for name, caption in PAIRS)).replace("two  cats", "two\rcats"), "a tab"),
        (lines("image\tcaption", *(f"{name}\t{caption}" for name, caption in PAIRS)), "a tab"),
        (lines(*QUOTED), "a comma"),
        (lines("image,caption", *QUOTED), "a comma"),
        (lines('"file_name","comment"', *QUOTED, ""), "a comma"),
        (lines("", "a.jpg,A dog, running .", *QUOTED[1:]), "a comma"),
        (lines(*QUOTED).replace("\n", "\r\n"), "a comma"),
        ("\ufeff" + lines(*QUOTED).replace("running .", "running\n."), "a comma"),
        (lines(*(f"{name} {caption}" for name, caption in PAIRS)), "a blank"),
        (lines(*(f"  {name}#0   {caption}" for name, caption in PAIRS)), "a blank"),
    ],
)
def test_text(tmp_path, content, form):
    assert read(tmp_path, content) == (f"lines of a name, {form} and a caption", EXPECTED)


OBJECTS = [{"image": name, "caption": caption} for name, caption in PAIRS]
COCO = {
    "info": {},
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": "x", "file_name": "b.jpg"}, {"id": 1, "file_name": "none.jpg"}],
    "annotations": [
        {"id": n, "image_id": {"a.jpg": 7, "b.jpg": "x"}[name], "caption": caption}
        for n, (name, caption) in enumerate(PAIRS)
    ],
}


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (COCO, "COCO's JSON"),
        (OBJECTS, "JSON, a list of images"),
        ([{"file_name": name, "captions": captions} for name, captions in CAPTIONS.items()], "JSON, a list of images"),
        ([{"filename": name, "caption": captions} for name, captions in CAPTIONS.items()], "JSON, a list of images"),
        (CAPTIONS, "JSON from names to captions"),
        ({**CAPTIONS, "b.jpg": CAPTIONS["b.jpg"][0]}, "JSON from names to captions"),
    ],
)
def test_json(tmp_path, content, form):
    assert read(tmp_path, content, "captions.JSON") == (form, EXPECTED)


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_with_blanks_commas_and_numbers(tmp_path, name, separator):
    written = f'"{name}"' if separator == "," and "," in name else name
    assert read(tmp_path, lines(f"{written}{separator}a caption here", "b.jpg#3" + separator + "more"))[1] == (
        {"b.jpg": ["a caption here", "more"]} if name == "b.jpg" else {name: ["a caption here"], "b.jpg": ["more"]}
    )


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty, expected captions"),
        ("\n \n", "is empty, expected captions"),
        ("\nA dog runs\n", r"line 2: found 'A dog runs', expected the name of an image of images, then a tab, a comma"),
        ("a.jpg\tx\nb.jpg\t \n", "line 2, 'b.jpg': found ' ', expected a text of 1 to 5,000 characters"),
        ("a.jpg,x\nb.jpg\n", "line 2, 'b.jpg': found '', expected a text"),
        ('a.jpg,"x\n\ny"\nb.jpg,\n', "line 4, 'b.jpg': found '', expected a text"),
        ("a.jpg x\nb.jpg\n", "line 2, 'b.jpg': found '', expected a text"),
        ("a.jpg\t" + "x" * 5001, "line 1, 'a.jpg': found 5,001 characters, expected"),
        (
            "a.jpg\tx\nno.jpg\ty\nno.jpg\tz\nd.jpg\tx\n",
            r"2 names are of no file in images, .*'no.jpg' \(line 2\), 'd.jpg'",
        ),
        ("image,number,caption\na.jpg,1,x\n", "line 1: found the columns image, number, caption, expected two"),
        ("image\tcaption\tmore\na.jpg\tx\n", "line 1: found the columns image, caption, more, expected two"),
        ("image.id,caption\na.jpg,x\n", r"1 names are of no file in images, .*'image.id' \(line 1\)"),
        ('a.jpg,x\nb.jpg,"' + "y" * 140_000, "after line 1: not readable as CSV .*; is a quote left open?"),
        ("a.jpg,x\nb.jpg,y\0\n", "line 2, 'b.jpg': found|after line 1: not readable as CSV"),
    ],
)
def test_text_that_cannot_be(tmp_path, content, words):
    with pytest.raises(UWMLError, match=words) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 'captions.txt'}: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ('"a.jpg"', "found 'a.jpg', expected captions as a JSON object or a list"),
        ({}, "found no captions, expected at least one"),
        ([], "found no captions, expected at least one"),
        ({"a.jpg": []}, "found no captions, expected at least one"),
        ({"a.jpg": ["x", ""]}, "caption 2, 'a.jpg': found '', expected a text"),
        ({"a.jpg": 3}, "caption 1, 'a.jpg': found 3, expected a text"),
        ({"a.jpg": "\ud800"}, r"caption 1, 'a.jpg': found '\\ud800', expected a text"),
        ({"../a.jpg": "x"}, r"1 names are of no file in images, .*'../a.jpg' \(caption 1\)"),
        ([OBJECTS[0], "a.jpg"], r"\[1\]: found 'a.jpg', expected an object with one of image, file_name, filename and"),
        ([OBJECTS[0], {"name": "a.jpg"}], r"\[1\]: found {'name': 'a.jpg'}, expected an object with"),
        ([OBJECTS[0], {"image": "a.jpg"}], r"\[1\], 'a.jpg': found nothing, expected a text"),
        ([{"image": "no.jpg", "caption": "x"}], r"'no.jpg' \(\[0\]\)"),
        ({**COCO, "annotations": None}, "annotations: found nothing, expected a list"),
        ({**COCO, "images": [3]}, r"images\[0\]: found 3, expected a JSON object"),
        ({**COCO, "images": [{"id": [], "file_name": "a.jpg"}]}, r"images\[0\]: found {.*, expected an id and a file"),
        (
            {**COCO, "annotations": [{"image_id": 8}]},
            r"annotations\[0\]: found {'image_id': 8}, expected the image_id of",
        ),
        ({**COCO, "annotations": [{"image_id": []}]}, r"annotations\[0\]: found {'image_id': \[\]}, expected"),
        ({**COCO, "annotations": [{"image_id": 7}]}, r"annotations\[0\], 'a.jpg': found nothing, expected a text"),
        ({**COCO, "annotations": [{"image_id": 1, "caption": "x"}]}, r"'none.jpg' \(annotations\[0\]\)"),
    ],
)
def test_json_that_cannot_be(tmp_path, content, words):
    with pytest.raises(UWMLError, match=words) as error:
        read(tmp_path, content, "captions.json")
    assert str(error.value).startswith(f"{tmp_path / 'captions.json'}: ")


def test_no_file(tmp_path):
    for name in ("captions.txt", "captions.json"):
        with pytest.raises(UWMLError, match=f"{name}: no such file"):
            read_captions(tmp_path / name, Path("images"), NAMES)


def test_a_column_of_numbers_is_no_part_of_captions(tmp_path):
    (tmp_path / "captions.csv").write_text("a.png,0,a dog runs\na.png,1,a brown dog\n")
    with pytest.raises(UWMLError, match=r"captions.csv: found 3 columns, the second of numbers, expected two"):
        read_captions(tmp_path / "captions.csv", tmp_path, {"a.png"})
    (tmp_path / "captions.csv").write_text("a.png,0,a dog runs\na.png,two, a brown dog\n")  # captions with commas
    _, found = read_captions(tmp_path / "captions.csv", tmp_path, {"a.png"})
    assert found["a.png"][1] == "two, a brown dog"
