"""The embedded data set: digits of one split only, captions true to their picture, files whole and reproducible."""

import hashlib
import itertools
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from uwml_lib.datasets.digits import drawing, embedded, scenes
from uwml_lib.datasets.digits.embedded import SPLITS, Shown, build_embedded, crop, is_current
from uwml_lib.datasets.digits.scenes import SCENES, ScenesSettings, Thing, is_between, places, relations
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, write_json

TINY = ScenesSettings(train=24, dev=12, test=12, classifier_epochs=1)
tell = TINY.caption


def silent(_: str) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    assert build_embedded(folder, TINY, silent) is True
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    for name, data in contents(built).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def many() -> Shown:
    """Enough pictures for every form of caption."""
    return ScenesSettings(train=300).draw("train")


# Files


@pytest.mark.parametrize("split", SPLITS)
def test_scan_layout(built: Path, split: str) -> None:
    n = getattr(TINY, split)
    features = np.load(built / f"{split}_ims.npy")
    boxes = np.load(built / f"{split}_boxes.npy")
    pictures = np.load(built / f"{split}_pictures.npy")
    assert (features.shape, features.dtype) == ((n, 12, 128), np.float32)
    assert (boxes.shape, boxes.dtype) == ((n, 12, 4), np.float32)
    assert (pictures.shape, pictures.dtype) == ((n, 80, 80, 3), np.uint8)
    assert np.isfinite(features).all() and (features >= 0).all()
    assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[..., :2] < boxes[..., 2:]).all()
    np.testing.assert_array_equal(features[..., -5:-1], boxes)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    np.testing.assert_allclose(features[..., -1], area, rtol=1e-6)
    assert features[..., :-5].std(axis=(0, 1)).max() > 0.1, "activations must tell regions apart"
    if split == "train":
        assert np.square(features[..., :-5]).mean() == pytest.approx(0.25, rel=1e-4), "as large as the geometry"

    captions = (built / f"{split}_caps.txt").read_text(encoding="utf-8").splitlines()
    ids = (built / f"{split}_ids.txt").read_text(encoding="utf-8").splitlines()
    assert len(captions) == 5 * n and all(captions)
    assert ids == [f"{split}_{i:05d}" for i in range(n)]


def test_manifest_describes_every_file(built: Path) -> None:
    manifest = read_json(built / "manifest.json")
    files = contents(built)
    files.pop("manifest.json")
    assert len(files) == 18
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert manifest["settings"] == {"train": 24, "dev": 12, "test": 12, "seed": 0, "classifier_epochs": 1}
    assert manifest["format_version"] == ScenesSettings.format_version
    assert set(manifest["versions"]) == {"numpy", "torch", "scikit-learn"}
    assert all(0 <= share <= 1 for share in manifest["classifier_accuracy"].values())
    assert set(manifest["classifier_accuracy"]) == {"digit", "colour", "background"}


def test_same_seed_same_bytes_and_caller_undisturbed(built: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(123)
        np.random.seed(123)
        random.seed(123)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        build_embedded(tmp_path / "again", TINY, silent)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        assert random.getstate() == before[2]
    finally:
        torch.set_num_threads(threads)
    first, again = contents(built), contents(tmp_path / "again")
    first.pop("manifest.json"), again.pop("manifest.json")  # it holds the duration
    assert first == again


def test_another_seed_differs(built: Path, tmp_path: Path) -> None:
    build_embedded(tmp_path / "other", ScenesSettings(train=24, dev=12, test=12, classifier_epochs=1, seed=1), silent)
    first, other = contents(built), contents(tmp_path / "other")
    same = {name for name in first if first[name] == other[name]}
    assert same == {"train_ids.txt", "dev_ids.txt", "test_ids.txt"}
    colours = [ScenesSettings(train=24, seed=seed).draw("train").kinds[1] for seed in (0, 1)]
    assert (colours[0] != colours[1]).any(), "not the digits alone may differ"


def test_current_folder_is_left_alone(copy: Path) -> None:
    times = {file: file.stat().st_mtime_ns for file in copy.iterdir()}
    assert build_embedded(copy, TINY, pytest.fail) is False
    assert {file: file.stat().st_mtime_ns for file in copy.iterdir()} == times


@pytest.mark.parametrize("name", ["train", "dev", "test", "seed", "classifier_epochs"])
def test_any_other_setting_is_not_current(built: Path, name: str) -> None:
    changed = {**vars(TINY), name: getattr(TINY, name) + 1}
    assert not is_current(built, ScenesSettings(**changed))


def test_damage_is_not_current(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_current(copy, TINY)
    for file in sorted(copy.iterdir()):
        data = file.read_bytes()
        file.unlink()
        assert not is_current(copy, TINY), f"{file.name} missing"
        file.write_bytes(data[:-1] if file.suffix != ".json" else b"{}")
        assert not is_current(copy, TINY), f"{file.name} cut short"
        file.write_bytes(data)
    manifest = read_json(copy / "manifest.json")
    del manifest["files"]["dev_ids.txt"]
    write_json(copy / "manifest.json", manifest)
    assert not is_current(copy, TINY), "a file that the manifest does not list"


def test_older_format_is_not_current(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScenesSettings, "format_version", ScenesSettings.format_version + 1)
    assert not is_current(built, TINY)


def test_missing_file_is_built_again(copy: Path) -> None:
    whole = contents(copy)
    (copy / "test_ims.npy").unlink()
    assert build_embedded(copy, TINY, silent) is True
    assert contents(copy)["test_ims.npy"] == whole["test_ims.npy"]
    assert is_current(copy, TINY)


def test_failure_leaves_the_old_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, threads, state = contents(copy), torch.get_num_threads(), torch.get_rng_state()

    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(embedded, "write_json", fail)  # late: most files are written by then
    with pytest.raises(RuntimeError, match="the disk is full"):
        build_embedded(copy, ScenesSettings(train=8, dev=4, test=4, classifier_epochs=1), silent)
    assert contents(copy) == whole
    assert [path.name for path in copy.parent.iterdir()] == ["tiny"]
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("three years of work")
    with pytest.raises(UWMLError, match="not of this data set"):
        build_embedded(tmp_path, TINY, silent)
    assert (tmp_path / "thesis.tex").read_text() == "three years of work"
    with pytest.raises(UWMLError, match="found a file"):
        build_embedded(tmp_path / "thesis.tex", TINY, silent)


def test_a_foreign_file_among_ours_is_not_removed(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    (copy / "notes.txt").write_text("precious")
    with pytest.raises(UWMLError, match=r"found notes.txt, .*not of this data set"):
        build_embedded(copy, TINY, silent)
    assert (copy / "notes.txt").read_text() == "precious"


def test_a_changed_file_of_the_same_size_is_noticed_and_built_again(copy: Path) -> None:
    whole = contents(copy)
    changed = bytearray(whole["train_ims.npy"])
    changed[-1] ^= 1
    (copy / "train_ims.npy").write_bytes(changed)
    assert build_embedded(copy, TINY, silent) is True
    assert contents(copy)["train_ims.npy"] == whole["train_ims.npy"]


@pytest.mark.parametrize("wrong", [{"train": 1}, {"dev": 0}, {"test": 0}, {"seed": -1}, {"classifier_epochs": 0}])
def test_impossible_settings(wrong: dict[str, int]) -> None:
    with pytest.raises(UWMLError, match=next(iter(wrong))):
        ScenesSettings(**wrong)


def test_smoke_preset_learns(tmp_path: Path) -> None:
    lines: list[str] = []
    build_embedded(tmp_path / "smoke", SCENES["scenes_smoke"], lines.append)
    accuracy = read_json(tmp_path / "smoke" / "manifest.json")["classifier_accuracy"]
    assert accuracy["digit"] > 0.3 and accuracy["colour"] > 0.7 and accuracy["background"] > 0.7
    assert lines and all(line and len(line) < 200 for line in lines)


# Pictures and regions


def test_splits_share_no_handwritten_digit() -> None:
    pools = drawing.handwritten_digits(0)[2]
    assert sorted(np.concatenate(list(pools.values()))) == list(range(1797))
    for split in SPLITS:
        pictures = ScenesSettings(train=200, dev=200, test=200).draw(split)
        assert set(pictures.source.ravel()) <= set(pools[split])


def test_picture_shows_what_it_says(many: Shown) -> None:
    """Three to five things, boxes of their size, apart from each other, pixels of the named colour, nothing else."""
    palette = np.array([rgb for rgb, _ in drawing.COLOURS.values()])
    right = total = 0
    assert set(map(len, many.contents)) == {3, 4, 5}
    for i in range(100):
        things, boxes = many.contents[i], many.place[i, : len(many.contents[i])]
        elsewhere = np.ones((80, 80), bool)
        for a, b in itertools.combinations(boxes, 2):
            assert scenes.iou(a, b) < 0.25
        for thing, (x1, y1, x2, y2) in zip(things, boxes, strict=True):
            assert 0.2 < y2 - y1 < 0.45 if thing.large else 0.12 < y2 - y1 < 0.27
            left, top, end, bottom = (round(float(v) * 80) for v in (x1, y1, x2, y2))
            pixels = many.pixels[i, top:bottom, left:end].reshape(-1, 3).astype(float)
            elsewhere[top:bottom, left:end] = False
            bright = pixels[pixels.max(axis=1) > 140]
            nearest = ((bright[:, None] - palette) ** 2).sum(-1).argmin(1)
            total += 1
            right += drawing.COLOUR_NAMES[np.bincount(nearest, minlength=len(palette)).argmax()] == thing.colour
        assert (many.pixels[i][elsewhere].max(axis=1) > 160).mean() < 0.01
    assert not many.place[np.arange(5) >= many.frames.sum(axis=1)[:, None]].any()
    assert right / total > 0.97


def test_digit_is_drawn_upright_and_unmirrored() -> None:
    """What is drawn resembles the real digit more than any flip of it."""
    glyph = np.zeros((1, 8, 8), np.float32)
    glyph[0, 1:7, 2] = glyph[0, 6, 2:7] = 1  # an L
    ink = drawing.ink(glyph, 80, np.array([[0.25, 0.75]]), np.array([0.4]), np.array([0.0]))[0, 0].numpy()
    y, x = np.nonzero(ink > 0.3)
    assert (x.min() + x.max() + 1) / 160 == pytest.approx(0.275, abs=0.03)
    assert (y.min() + y.max() + 1) / 160 == pytest.approx(0.75, abs=0.03)
    drawn = ink[44:76, 4:36].reshape(8, 4, 8, 4).mean(axis=(1, 3))
    flips = [drawn, drawn[::-1], drawn[:, ::-1], drawn.T]
    assert np.argmax([(flip * glyph[0]).sum() for flip in flips]) == 0


def test_every_digit_is_proposed(many: Shown) -> None:
    boxes, labels, *_ = TINY.find(many, np.random.default_rng(0))
    digit, colour = labels.reshape(2, -1, 12)
    first_slot_background = 0
    for i in range(len(boxes)):
        for k, thing in enumerate(many.contents[i]):
            overlap = scenes.iou(boxes[i], many.place[i, k])
            assert ((overlap >= 0.499) & (overlap <= 0.901)).any(), "every digit must be covered"
            for region in np.flatnonzero(overlap > 0.6):
                assert digit[i, region] == thing.digit
                assert drawing.COLOUR_NAMES[colour[i, region]] == thing.colour
        first_slot_background += int(digit[i, 0] == 10)
    background = (digit == 10).mean()
    assert 0.15 < background < 0.5
    assert first_slot_background / len(boxes) == pytest.approx(background, abs=0.1), "the order must be random"
    assert np.array_equal(digit == 10, colour == 9)


def test_iou_by_hand() -> None:
    square = np.array([0.0, 0.0, 1.0, 1.0])
    assert scenes.iou(square, np.array([0.5, 0.0, 1.5, 1.0])) == pytest.approx(1 / 3)
    assert scenes.iou(square, square) == 1
    assert scenes.iou(square, np.array([1.0, 1.0, 2.0, 2.0])) == 0
    assert scenes.iou(np.zeros(4), np.zeros(4)) == 0


def test_crop_samples_the_pixels() -> None:
    """A box of 16 x 16 whole pixels gives these pixels; one of 32 x 32 the means of their 2 x 2 blocks."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3), dtype=np.uint8)
    boxes = np.array([[[10, 20, 26, 36], [0, 40, 32, 72]], [[64, 64, 80, 80], [3, 5, 35, 37]]], np.float32) / 80
    crops = crop(pixels, boxes)
    assert crops.shape == (4, 3, 16, 16)
    restored = ((crops + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(restored[0], pixels[0, 20:36, 10:26], atol=0.02)
    np.testing.assert_allclose(restored[2], pixels[1, 64:80, 64:80], atol=0.02)
    for row, block in ((1, pixels[0, 40:72, 0:32]), (3, pixels[1, 5:37, 3:35])):
        means = block.astype(float).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(restored[row], means, atol=0.02)


# Captions: read back by a grammar of the test's own, and compared with what is in the picture.

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PLURALS = ["zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines"]
COLOUR_OF = {
    "red": "red", "scarlet": "red", "orange": "orange", "yellow": "yellow", "golden": "yellow", "green": "green",
    "turquoise": "turquoise", "cyan": "turquoise", "blue": "blue", "purple": "purple", "violet": "purple",
    "pink": "pink", "white": "white",
}  # fmt: skip
COLOUR = "|".join(COLOUR_OF)
VALUE = "|".join(WORDS) + r"|\d"
NOUN = "digit|number|numeral"
PHRASE = re.compile(
    rf"\b(?:a|an) (?:(?P<big>big|large|huge)|(?P<small>small|little|tiny))? ?(?P<early>{COLOUR})? ?"
    rf"(?:(?:{NOUN}) (?P<value>{VALUE})|(?P<bare>{VALUE})|(?:{NOUN}))\b(?: in (?P<late>{COLOUR}))?(?= |$)"
)
OPENER = re.compile(r"^(there is|there are|a picture of|an image of|this is|these are|we can see) ")
VERB = r"(?: is| sits| stands| is written| is placed)?"
PLACE = r"(?:at|on|in) the [a-z]+(?: [a-z]+)*?"
RELATION = {
    "(?:to the )?left of": lambda a, b: b.x - a.x > abs(a.y - b.y),
    "(?:to the )?right of": lambda a, b: a.x - b.x > abs(a.y - b.y),
    "above|over": lambda a, b: b.y - a.y > abs(a.x - b.x),
    "below|under|beneath": lambda a, b: a.y - b.y > abs(a.x - b.x),
    "next to|beside": lambda a, b: 0.45 > abs(a.x - b.x) > abs(a.y - b.y),
}


def in_place(words: str, thing: Thing) -> bool:
    where = {
        "left": thing.x < 0.34, "right": thing.x > 0.66, "top": thing.y < 0.34, "upper": thing.y < 0.34,
        "bottom": thing.y > 0.66, "lower": thing.y > 0.66, "middle": 0.33 < thing.x < 0.67 and 0.33 < thing.y < 0.67,
        "center": 0.33 < thing.x < 0.67 and 0.33 < thing.y < 0.67,
    }  # fmt: skip
    named = [word for word in words.split() if word not in ("at", "on", "in", "the", "side", "corner")]
    assert named and all(word in where for word in named), words
    return all(where[word] for word in named)


def fits(phrase: re.Match[str], thing: Thing) -> bool:
    value, colour = phrase["value"] or phrase["bare"], phrase["early"] or phrase["late"]
    assert value or colour, phrase[0]
    return (
        (value is None or (int(value) if value.isdigit() else WORDS.index(value)) == thing.digit)
        and (colour is None or COLOUR_OF[colour] == thing.colour)
        and (not phrase["big"] or thing.large)
        and (not phrase["small"] or not thing.large)
    )


def near_middle(a: Thing, b: Thing, c: Thing) -> bool:
    middle = np.array([(b.x + c.x) / 2, (b.y + c.y) / 2])
    return bool(np.linalg.norm(middle - [a.x, a.y]) < 0.5 * np.hypot(b.x - c.x, b.y - c.y) - 0.03)


def form_of(caption: str, things: list[Thing]) -> str:
    """Return which form a caption has; raise AssertionError if it cannot be read or is not true of the things."""
    text = OPENER.sub("", caption.lower().removesuffix(" ."))
    phrases = list(PHRASE.finditer(text))
    frame = PHRASE.sub("N", text)

    def true(claim: object = lambda *_: True, among: list[Thing] = things) -> None:
        rows = itertools.permutations(among, len(phrases))
        ok = any(all(map(fits, phrases, row)) and claim(*row) for row in rows)
        assert ok, f"{caption!r} is not true of {things}"

    for words, holds in RELATION.items():
        if re.fullmatch(rf"N{VERB} (?:{words}) N", frame):
            true(holds)
            return words
    if frame == "N between N and N":
        true(near_middle)
        return "between"
    if match := re.fullmatch(rf"N{VERB} ({PLACE})", frame):
        true(lambda a: in_place(match[1], a))
        return "place"
    if match := re.fullmatch(rf"N ({PLACE}) and N ({PLACE})", frame):
        true(lambda a, b: in_place(match[1], a) and in_place(match[2], b))
        return "two places"
    if frame in ("N and N", "N with N", "N , N and N"):
        true()
        return "list"
    if match := re.fullmatch(
        rf"({VALUE}) (?:{NOUN})s (?:including|with|, one is|, one of them is) N(?: ({PLACE}))?", frame
    ):
        assert (int(match[1]) if match[1].isdigit() else WORDS.index(match[1])) == len(things), caption
        true(lambda a: match[2] is None or in_place(match[2], a))
        return "count"
    match = re.fullmatch(rf"({'|'.join(WORDS)}) (?:({COLOUR}) (?:{NOUN})s|({'|'.join(PLURALS)}))( and N)?", frame)
    assert match, f"{caption!r} cannot be read: {frame!r}"
    group = [x for x in things if (COLOUR_OF[match[2]] == x.colour if match[2] else PLURALS[x.digit] == match[3])]
    assert len(group) == WORDS.index(match[1]) >= 2, f"{caption!r} is not true of {things}"
    true(among=[thing for thing in things if thing not in group])
    return "group"


def test_every_caption_is_true(many: Shown) -> None:
    rng = random.Random(0)
    forms = [
        form_of(tell(many.contents[i], rng), many.contents[i]) for i in range(len(many.contents)) for _ in range(8)
    ]
    assert set(forms) == {*RELATION, "between", "place", "two places", "list", "count", "group"}


def test_the_same_words_for_ever() -> None:
    """Names of run folders depend on the data, and so on every draw of the captions, in its order."""
    things = [Thing(7, "red", True, 0.2, 0.5), Thing(3, "blue", False, 0.8, 0.5), Thing(7, "blue", False, 0.5, 0.48)]
    rng = random.Random(0)
    text = "\n".join(tell(things, rng) for _ in range(300))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6d664d2672da58bb"


@pytest.mark.parametrize("split", SPLITS)
def test_line_5i_k_describes_picture_i(built: Path, split: str) -> None:
    pictures = TINY.draw(split)
    np.testing.assert_array_equal(np.load(built / f"{split}_pictures.npy"), pictures.pixels)
    for line, caption in enumerate((built / f"{split}_caps.txt").read_text(encoding="utf-8").splitlines()):
        form_of(caption, pictures.contents[line // 5])


def test_the_reader_of_captions_notices_lies() -> None:
    seven, three = Thing(7, "red", True, 0.2, 0.5), Thing(3, "blue", False, 0.8, 0.5)
    zero = Thing(0, "red", False, 0.5, 0.5)
    things = [seven, three, zero]
    for truth in (
        "A big red 7 is to the left of a blue three .", "a zero between a 3 and a seven", "Two red digits and a three",
        "three numbers , one of them is a digit in blue on the right", "a tiny zero in red in the center .",
    ):  # fmt: skip
        form_of(truth, things)
    for lie in (
        "A big red 7 is to the right of a blue three .", "a 3 between a 0 and a seven", "two blue digits and a seven",
        "four numbers including a digit in blue", "a zero in red on the left", "a tiny 7 and a zero",
        "a red 3 with a 7", "a 7 above a 3", "a red digit , a red digit and a red digit", "a 7 beside a 3",
        "Two red digits and a 7", "seven",
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            form_of(lie, things)


def test_captions_are_as_varied_and_partial_as_real_ones(many: Shown) -> None:
    rng = random.Random(0)
    captions = [tell(many.contents[i], rng) for i in range(len(many.contents)) for _ in range(5)]

    def share(pattern: str) -> float:
        return sum(re.search(pattern, caption) is not None for caption in captions) / len(captions)

    assert 0.4 < share(r" \.$") < 0.8 and 0.3 < share(r"^[A-Z]") < 0.7
    assert share(r"\d") > 0.2 and share(r"(?i)\b(three|seven)\b") > 0.2
    assert share(r"(?i)scarlet|golden|cyan|violet") > 0.05 and share(r"(?i)huge|tiny") > 0.1
    assert len(set(captions)) > 0.95 * len(captions)
    mentions = [len(PHRASE.findall(caption.lower())) for caption in captions]
    assert {1, 2, 3} <= set(mentions) <= {0, 1, 2, 3}
    for caption in captions:
        assert not re.search(r"\ban (?![aeiou8])|\ban one\b|\ba (?!one\b)[aeiou8]", caption.lower()), caption


def test_relations_by_hand() -> None:
    def at(x: float, y: float) -> Thing:
        return Thing(0, "red", True, x, y)

    middle = at(0.5, 0.5)
    assert relations(at(0.2, 0.5), middle) == ["left", "beside"]
    assert relations(at(0.95, 0.45), at(0.4, 0.5)) == ["right"]
    assert relations(at(0.5, 0.2), middle) == ["above"]
    assert relations(at(0.45, 0.9), middle) == ["below"]
    assert relations(at(0.2, 0.2), middle) == [], "a diagonal is neither"
    assert relations(at(0.45, 0.5), middle) == [], "too close to call"
    assert is_between(middle, at(0.2, 0.5), at(0.8, 0.5))
    assert not is_between(at(0.2, 0.5), middle, at(0.8, 0.5))
    assert not is_between(at(0.5, 0.8), at(0.2, 0.5), at(0.8, 0.5))
    assert places(at(0.1, 0.9)) == ["bottom left", "bottom", "left"]
    assert places(middle) == ["middle"]


@pytest.mark.skipif("UWML_SHARED" not in os.environ, reason="needs nltk's Punkt data, found through UWML_SHARED")
def test_sentence_splitting_changes_no_token(many: Shown, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(Path(os.environ["UWML_SHARED"]) / "nltk_data")])
    words = nltk.tokenize.NLTKWordTokenizer()
    rng = random.Random(1)
    captions = [tell(many.contents[i], rng) for i in range(len(many.contents)) for _ in range(10)]
    for caption in captions + (built / "train_caps.txt").read_text(encoding="utf-8").splitlines():
        assert nltk.tokenize.word_tokenize(caption) == words.tokenize(caption) == caption.split()


def test_captions_hold_only_words_and_separate_marks(many: Shown) -> None:
    """What keeps the tokenizers in agreement: at most one full stop, last and after a space; commas apart."""
    rng = random.Random(2)
    for i in range(len(many.contents)):
        caption = tell(many.contents[i], rng)
        assert re.fullmatch(r"(?:[A-Za-z]+|\d)(?: (?:[a-z]+|\d|,))*(?: \.)?", caption), caption
