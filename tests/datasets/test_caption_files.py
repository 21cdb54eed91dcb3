"""Caption files: every form comes to the same captions, and what is wrong is named with its place."""

import json
from pathlib import Path

import pytest

from tests.raw import entry
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


def refused(words: str, *arguments) -> None:
    with pytest.raises(UWMLError, match=words):
        read(*arguments)


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
        (lines(*(f"  {name}#{n}   {caption}" for n, (name, caption) in enumerate(PAIRS))), "a blank"),
        (lines(*(f"{name}| {caption}" for name, caption in PAIRS)), "a vertical bar"),
    ],
)
def test_text(tmp_path, content, form):
    assert read(tmp_path, content) == (f"lines of a name, {form} and a caption", EXPECTED, {})


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
    assert read(tmp_path, content, "captions.JSON") == (form, EXPECTED, {})


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
            r"no file in images for 2 names, .*'no.jpg' \(line 2\), 'd.jpg'",
        ),
        (
            "image,kind,caption\na.jpg,y,x\n",
            "line 1: found the columns image, kind, caption, expected an image and a c",
        ),
        ("image\tcaption\tmore\na.jpg\tx\n", "line 1: found the columns image, caption, more, expected an image and"),
        ("image.id,caption\na.jpg,x\n", r"no file in images for 1 name, .*'image.id' \(line 1\)"),
        ('a.jpg,x\nb.jpg,"' + "y" * 140_000, "line 2: not readable as CSV .*, expected every quote closed"),
        ("a.jpg,x\nb.jpg,y\0\n", "line 2, 'b.jpg': found|line 2: not readable as CSV"),
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
        ({"../a.jpg": "x"}, r"no file in images for 1 name, .*'../a.jpg' \(caption 1\)"),
        ([OBJECTS[0], "a.jpg"], r"\[1\]: found 'a.jpg', expected an object with one of image, file_name, filename and"),
        ([OBJECTS[0], {"name": "a.jpg"}], r"\[1\]: found {'name': 'a.jpg'}, expected an object with"),
        ([OBJECTS[0], {"image": "a.jpg"}], r"\[1\]: found {'image': 'a.jpg'}, expected an object with one of image"),
        (
            [{**OBJECTS[0], "file_name": "b.jpg"}],
            r"\[0\]: found {'image': 'a.jpg', 'caption': .*, expected .* with one of",
        ),
        (
            [{**OBJECTS[0], "text": "x"}],
            r"\[0\]: found {.*, expected an object with one of .* and one of caption, capt",
        ),
        ([{"image": "no.jpg", "caption": "x"}], r"'no.jpg' \(\[0\]\)"),
        ({"images": COCO["images"]}, "annotations: found nothing, expected a list"),
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


# ------------------------------------------------------------------------------------------------ quotes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('b.jpg,x\na.jpg,"Stop, says he\nb.jpg,y\na.jpg,"Stop"\n', "line 2: not readable as CSV"),
        ('b.jpg,x\na.jpg,"Stop\nb.jpg,y\na.jpg,Stop"\n', "line 2: found a quote that is still open in line 3"),
        ('b.jpg,x\na.jpg,"Stop\n"my cat, asleep.png",y\n', "line 2: not readable as CSV"),
        ('b.jpg,x\na.jpg,"Stop, says he\n', "line 2: not readable as CSV .*unexpected end of data"),
        ('b.jpg,x\na.jpg,"Stop" he says\n', "line 2: not readable as CSV .*, expected every quote closed; a caption w"),
        ('a.jpg,"Stop" he says\n', "line 1: not readable as CSV"),
    ],
)
def test_a_quote_swallows_no_lines(tmp_path, content, words):
    refused(rf"captions.txt: {words}", tmp_path, content)


def test_quotes_that_are_closed_or_mean_nothing(tmp_path):
    assert read(tmp_path, 'a.jpg,"""Stop"", he\nsays"\nb.jpg,a 5" disc\n')[1] == (
        {"a.jpg": ['"Stop", he says'], "b.jpg": ['a 5" disc']}
    )
    for separator in "\t| ":
        assert read(tmp_path, f'a.jpg{separator}"Stop\nb.jpg{separator}x\n')[1] == {"a.jpg": ['"Stop'], "b.jpg": ["x"]}


# ------------------------------------------------------------------------------------------------ more columns

TWO = {"a.jpg": ["a dog , brown", "two"], "b.jpg": ["x"]}
ROWS = [("a.jpg", "0", "a dog , brown", "train"), ("a.jpg", "1", "two", "train"), ("b.jpg", "0", "x", "val")]
GIVEN = {"a.jpg": "train", "b.jpg": "dev"}


def table(separator: str, *columns: int, header: str = "", rows=ROWS) -> str:
    quoted = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in rows]
    return header + lines(*(separator.join(row[column] for column in columns) for row in quoted))


@pytest.mark.parametrize("separator", ["\t", ",", "|"])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("columns", [(0, 2), (0, 1, 2), (0, 2, 3), (0, 3, 2), (0, 1, 2, 3), (0, 3, 1, 2)])
def test_numbers_and_splits_are_no_part_of_captions(tmp_path, separator, header, columns):
    names = separator.join(("image", "number", "caption", "split")[column] for column in columns) + "\n"
    form, captions, splits = read(tmp_path, table(separator, *columns, header=names if header else ""))
    assert captions == TWO
    assert splits == (GIVEN if 3 in columns else {})
    assert ("and a column of numbers" in form, "and a column of splits" in form) == (1 in columns, 3 in columns)


def test_flickr30k_has_a_line_without_a_bar(tmp_path):
    rows = ["image_name| comment_number| comment", "a.jpg| 0| A dog .", "a.jpg| 1   A dog with 2 cats .", "b.jpg| 0| x"]
    form, captions, _ = read(tmp_path, lines(*rows), "results.csv")
    assert form == "lines of a name, a vertical bar and a caption, and a column of numbers"
    assert captions == {"a.jpg": ["A dog .", "A dog with 2 cats ."], "b.jpg": ["x"]}
    assert read(tmp_path, "a.jpg|2 dogs\nb.jpg|3 dogs\n")[1] == {"a.jpg": ["2 dogs"], "b.jpg": ["3 dogs"]}


def test_captions_with_commas_and_without_quotes(tmp_path):
    for header in ("", "image,caption\n"):
        found = read(tmp_path, f"{header}a.jpg,a dog, brown\na.jpg,two, three, four\nb.jpg,a train\n")[1]
        assert found == {"a.jpg": ["a dog, brown", "two, three, four"], "b.jpg": ["a train"]}
    assert read(tmp_path, "image,caption\na.jpg,a dog, brown\n")[1] == {"a.jpg": ["a dog, brown"]}
    assert read(tmp_path, "a.jpg a train\nb.jpg a dog\n")[1] == {"a.jpg": ["a train"], "b.jpg": ["a dog"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a.jpg\tx\ttrain\nb.jpg\ty\n", "found a split in line 1 and none in line 2, expected an image and a caption"),
        ("a.jpg\tx\ttrain\nb.jpg\ty\t\n", "found a split in line 1 and none in line 2"),
        ("a.jpg,x,y\nb.jpg,y,test\n", "found a split in line 2 and none in line 1, .* a caption with quotes or commas"),
        ("a.jpg,x\n\nb.jpg,1,y\n", "found a number in line 3 and none in line 1"),
        ("a.jpg\t1\tx\nb.jpg\ty\n", "found a number in line 1 and none in line 2"),
        (
            "a.jpg\tx\nb.jpg\ty\tmore\n",
            "line 2: found 'more' in another column, expected an image and a caption, and in",
        ),
        ("a.jpg\tx\tTrain\nb.jpg\ty\ttest\n", "found a split in line 2 and none in line 1"),
        ("a.jpg,x,0.3\nb.jpg,y,0.1\n", "line 1: found '0.3' in another column, expected .* goes between quotes"),
        ("a.jpg|x|0.3\nb.jpg|y|0.1\n", "line 1: found '0.3' in another column"),
        ("a.jpg 0 x\nb.jpg  0 y\n", "found a number in every line, expected a tab between the columns"),
        ("a.jpg x train\nb.jpg y test\n", "found a split in every line, expected a tab between the columns"),
        (
            "a.jpg,7,x\nb.jpg,9,y\n",
            "line 1: found the number 7 beside one of 1 captions of 'a.jpg', expected these numb",
        ),
        ("a.jpg\t1\tx\na.jpg\t1\ty\n", "line 1 and .*: line 2 are both caption 1 of 'a.jpg', expected each once"),
        ("a.jpg#1\tx\na.jpg#1\ty\n", "line 1 and .*: line 2 are both caption 1 of 'a.jpg', expected each once"),
    ],
)
def test_columns_that_cannot_be(tmp_path, content, words):
    refused(rf"captions.txt: {words}", tmp_path, content)


# ------------------------------------------------------------------------------------------------ JSON with splits


OF_COCO = ("train", "validation", "test")


def karpathy(**more) -> dict:
    images = [entry(name, {"a.jpg": "restval", "b.jpg": "val"}[name], captions) for name, captions in CAPTIONS.items()]
    return {"dataset": "mine", "images": [{**image, **more} for image in images]}


@pytest.mark.parametrize("keys", [("file_name", "text"), ("image", "caption")])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_json_lines(tmp_path, keys, mark):
    rows = [json.dumps(dict(zip(keys, pair, strict=True))) for pair in PAIRS]
    content = mark + lines(rows[0], "", *rows[1:])
    assert read(tmp_path, content, "metadata.jsonl") == ("JSON, a line an image", EXPECTED, {})


def test_json_lines_that_cannot_be(tmp_path):
    good = json.dumps({"file_name": "a.jpg", "text": "x"})
    for line, words in {
        "{": "not readable as JSON", '"a.jpg"': "found 'a.jpg', expected an object with one of image",
        '{"file_name": "b.jpg"}': "found {'file_name': 'b.jpg'}, expected an object",
        '{"file_name": "b.jpg", "text": "x", "text": "y"}': "not readable as JSON .the key 'text' stands more",
    }.items():  # fmt: skip
        refused(f"metadata.jsonl: line 2: {words}", tmp_path, lines(good, line), "metadata.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        karpathy(),
        {**COCO, "images": [dict(image, split=split) for image, split in zip(COCO["images"], OF_COCO, strict=True)]},
        [{**item, "split": {"a.jpg": "train", "b.jpg": "dev"}[item["image"]]} for item in OBJECTS],
    ],
)  # fmt: skip
def test_splits_of_json(tmp_path, content):
    assert read(tmp_path, content, "captions.json")[1:] == (EXPECTED, GIVEN)


def test_karpathys_images_may_be_in_folders(tmp_path):
    content = {"images": [entry("c.jpg", "train", ["x"], filepath="sub"), entry("a.jpg", "val", ["y"], filepath="sub")]}
    assert read(tmp_path, content, "captions.json")[2] == {"sub/c.jpg": "train", "a.jpg": "dev"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            karpathy(split="evaluation"),
            r"images\[0\], sentences\[0\], 'a.jpg': split: found 'evaluation', expected one of",
        ),
        (karpathy(split=["test"]), r"'a.jpg': split: found \['test'\], expected one of"),
        (karpathy(filename=3), r"images\[0\]: filename: found 3, expected the name of a file"),
        (karpathy(filename="a.jpg"), r"images\[0\] and .*: images\[1\] are both 'a.jpg', expected each once"),
        ([{**OBJECTS[0], "split": "test"}, OBJECTS[2]], "1 of the 2 images have no split: b.jpg"),
        (
            [{**OBJECTS[0], "split": "test"}, OBJECTS[1]],
            r"\[0\], 'a.jpg' has the split test, and .* has no split, expec",
        ),
        (
            [{**OBJECTS[0], "split": "test"}, {**OBJECTS[1], "split": "train"}],
            r"\[0\], 'a.jpg' has the split test, and .*: \[1\], 'a.jpg' has the split train, expected one split",
        ),
        (
            {**COCO, "images": [*COCO["images"], {"id": 7, "file_name": "bare"}]},
            r"images\[0\], 'a.jpg', and .*: images\[3\], 'bare', are both of the id 7, expected each once",
        ),
        (
            {**COCO, "images": [*COCO["images"], {"id": 8, "file_name": "a.jpg"}]},
            r"images\[0\], id 7, and .*: images\[3\], id 8, are both of 'a.jpg', expected each once",
        ),
        ({**COCO, "images": [{"id": True, "file_name": "a.jpg"}]}, r"images\[0\]: found .*, expected an id"),
        ('{"a.jpg": ["x"], "b.jpg": "y", "a.jpg": ["z"]}', r"the key 'a.jpg' stands .*, with \['x'\] and \['z'\]"),
    ],
)
def test_keys_and_splits_that_contradict_each_other(tmp_path, content, words):
    refused(words, tmp_path, content, "captions.json")
