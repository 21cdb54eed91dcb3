"""The embedded clips: captions true to their clip and its order, which the frames without their order do not tell."""

import hashlib
import itertools
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from uwml_lib import config
from uwml_lib.datasets import EMBEDDED, check_data, prepare_data
from uwml_lib.datasets.digits.clips import CLIPS, MOTION_NAMES, ClipsSettings, Event
from uwml_lib.datasets.digits.drawing import COLOURS, NUMBERS, handwritten_digits
from uwml_lib.datasets.digits.embedded import SPLITS, Shown, build_embedded, crop, is_current
from uwml_lib.studies.engine import base_config
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json

TINY = ClipsSettings(train=11, dev=5, test=4, classifier_epochs=1)
SMOKE = CLIPS["clips_smoke"]
tell = SMOKE.caption


def silent(_: str) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "clips_smoke"
    assert build_embedded(folder, SMOKE, silent) is True
    return folder


@pytest.fixture(scope="module")
def many() -> Shown:
    return ClipsSettings(train=300).draw("train")


# Files


@pytest.mark.parametrize("split", SPLITS)
def test_layout_of_variable_length(smoke: Path, split: str) -> None:
    n = getattr(SMOKE, split)
    offsets, features, pictures = (np.load(smoke / f"{split}_{name}.npy") for name in ("offsets", "ims", "pictures"))
    assert (offsets.shape, offsets.dtype) == ((n + 1,), np.int64)
    frames = int(offsets[-1])
    assert offsets[0] == 0 and np.diff(offsets).min() >= 4 and np.diff(offsets).max() <= 21
    assert len(set(np.diff(offsets))) > 5
    assert (features.shape, features.dtype) == ((frames, 128), np.float32)
    assert (pictures.shape, pictures.dtype) == ((frames, 36, 36, 3), np.uint8)
    assert np.isfinite(features).all() and (features >= 0).all() and (features[:, -3:] <= 1).all()
    captions = (smoke / f"{split}_caps.txt").read_text(encoding="utf-8").splitlines()
    assert len(captions) == 5 * n and all(captions)
    assert (smoke / f"{split}_ids.txt").read_text().splitlines() == [f"{split}_{i:05d}" for i in range(n)]
    drawn = SMOKE.draw(split)
    np.testing.assert_array_equal(pictures, drawn.pixels)
    np.testing.assert_array_equal(np.diff(offsets), drawn.frames.sum(axis=1))
    for line, caption in enumerate(captions):
        read(caption, drawn.contents[line // 5])


def test_smoke_preset_learns(smoke: Path) -> None:
    manifest = read_json(smoke / "manifest.json")
    assert manifest["classifier_accuracy"]["digit"] > 0.3 and manifest["classifier_accuracy"]["colour"] > 0.8
    assert set(manifest["files"]) == {path.name for path in smoke.iterdir()} - {"manifest.json"}
    assert len(manifest["files"]) == 18


def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    build_embedded(tmp_path / "one", TINY, silent)
    build_embedded(tmp_path / "two", TINY, silent)
    assert torch.equal(torch.get_rng_state(), before)
    build_embedded(tmp_path / "three", ClipsSettings(**{**vars(TINY), "seed": 1}), silent)
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    for files in (one, two, three):
        del files["manifest.json"]  # it holds the duration
    assert one == two
    assert {name for name in one if one[name] == three[name]} == {f"{split}_ids.txt" for split in SPLITS}


def test_a_damaged_folder_is_built_again_and_a_current_one_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    build_embedded(folder, TINY, silent)
    whole = contents(folder)
    assert build_embedded(folder, TINY, pytest.fail) is False
    (folder / "dev_offsets.npy").write_bytes(whole["dev_offsets.npy"][:-1])
    assert not is_current(folder, TINY)
    assert build_embedded(folder, TINY, silent) is True
    assert contents(folder)["dev_offsets.npy"] == whole["dev_offsets.npy"]


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train_boxes.npy").touch()  # of scenes
    with pytest.raises(UWMLError, match=r"found train_boxes.npy, which is not of this data set"):
        build_embedded(tmp_path, TINY, silent)
    with pytest.raises(UWMLError, match="clips, dev: found 0, expected at least 1"):
        ClipsSettings(dev=0)


def test_a_training_finds_them_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setitem(EMBEDDED, "clips_smoke", TINY)
    smoke = base_config(config.StudyOptions("clips", profile="smoke"))
    assert base_config(config.StudyOptions("clips_smoke", profile="smoke")) == smoke == config.preset("clips_smoke")
    assert prepare_data(smoke, silent) == tmp_path / "clips_smoke"
    assert is_current(tmp_path / "clips_smoke", TINY)
    assert [len(split.features) for split in check_data(smoke)] == [TINY.train, TINY.dev, TINY.test]


# Clips


def test_splits_share_no_handwritten_digit() -> None:
    for split in SPLITS:
        drawn = ClipsSettings(train=50, dev=50, test=50).draw(split)
        assert set(drawn.source.ravel()) <= set(handwritten_digits(0)[2][split])


def test_a_pair_tells_each_other_backwards(many: Shown) -> None:
    opposite = {"right": "left", "up": "down", "grow": "shrink", "still": "still"}
    opposite |= {b: a for a, b in opposite.items()}
    for i in range(0, 300, 2):
        backwards = [Event(x.digit, x.colour, opposite[x.motion]) for x in reversed(many.contents[i])]
        assert many.contents[i + 1] == backwards != many.contents[i]
    assert set(map(len, many.contents)) == {1, 2, 3}
    assert {x.motion for i in range(300) for x in many.contents[i]} == set(MOTION_NAMES)
    assert len(ClipsSettings(train=3).draw("train").contents) == 3, "the last one may be alone"


def test_a_frame_shows_what_happens(many: Shown) -> None:
    """One digit, of its colour, where it should be; the place goes the way of the motion, evenly, within the frame."""
    palette = np.array([rgb for rgb, _ in COLOURS.values()])
    start = np.concatenate([[0], many.frames.ravel().cumsum()])
    x, y, extent = many.place.T
    assert (many.place[:, :2] - extent[:, None] / 2 >= -1e-6).all()
    assert (many.place[:, :2] + extent[:, None] / 2 <= 1 + 1e-6).all()
    right = total = 0
    for i in range(100):
        for k, event in enumerate(many.contents[i]):
            rows = slice(start[3 * i + k], start[3 * i + k + 1])
            way = many.place[rows][-1] - many.place[rows][0]
            expected = {
                "right": way[0] > 0.3, "left": way[0] < -0.3, "up": way[1] < -0.3, "down": way[1] > 0.3,
                "grow": way[2] > 0.15, "shrink": way[2] < -0.15, "still": True,
            }  # fmt: skip
            assert expected[event.motion]
            assert (np.abs(way) > 1e-6).sum() == (event.motion != "still")
            steps = np.diff(many.place[rows], axis=0)
            np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-6)
            for frame, place in zip(many.pixels[rows], many.place[rows], strict=True):
                bright = frame.max(axis=2) > 150
                rowed, columned = np.nonzero(bright)
                middle = (np.array([columned.mean(), rowed.mean()]) + 0.5) / 36
                assert np.abs(middle - place[:2]).max() < 0.12
                mean = frame[bright].mean(axis=0)
                right += list(COLOURS)[((palette - mean) ** 2).sum(axis=1).argmin()] == event.colour
                total += 1
    assert right / total > 0.95


def test_what_is_cut_out_is_what_is_there() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 36, 36, 3), dtype=np.uint8)
    place = np.array([[18, 20, 16], [10, 26, 16]], np.float32) / 36
    exact = SimpleNamespace(normal=lambda *_: 0.0)
    shown = Shown([], np.zeros((2, 2, 1), int), np.zeros((2, 1), int), np.ones((2, 1), int), place, pixels)
    crops = crop(pixels, SMOKE.find(shown, exact).boxes)
    restored = ((crops + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(restored[0], pixels[0, 12:28, 10:26], atol=0.05)
    np.testing.assert_allclose(restored[1], pixels[1, 18:34, 2:18], atol=0.05)


# Why the data are worth having: order carries meaning.


def accuracy_of_a_probe(x: np.ndarray, y: np.ndarray, x_dev: np.ndarray, y_dev: np.ndarray) -> float:
    """The share of dev that a linear classifier, fitted on train, gets right."""
    inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(y)
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(x.shape[1] + 1, int(y.max()) + 1, generator=generator) / 100).requires_grad_()

    def logits(values: torch.Tensor) -> torch.Tensor:
        return F.pad((values - mean) / deviation, (0, 1), value=1) @ weights

    optimizer = torch.optim.Adam([weights], lr=0.02, weight_decay=0.01)
    for _ in range(200):
        loss = F.cross_entropy(logits(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float((logits(torch.from_numpy(x_dev).float()).argmax(dim=1).numpy() == y_dev).mean())


def test_order_carries_meaning(smoke: Path) -> None:
    """The mean of an event's frames tells digit and colour, but left from right only their order does."""
    means, ways, labels = {}, {}, {}
    for split in ("train", "dev"):
        drawn, features = SMOKE.draw(split), np.load(smoke / f"{split}_ims.npy")
        used = np.flatnonzero(drawn.frames.ravel())
        ends = drawn.frames.ravel().cumsum()[used]
        starts = ends - drawn.frames.ravel()[used]
        means[split] = np.stack([features[a:b].mean(axis=0) for a, b in zip(starts, ends, strict=True)])
        ways[split] = features[ends - 1] - features[starts]
        digit, colour = drawn.kinds.reshape(2, -1)[:, used]
        motion = np.array([MOTION_NAMES.index(event.motion) for events in drawn.contents for event in events])
        labels[split] = {"digit": digit, "colour": colour, "motion": motion}

    def probe(of: dict[str, np.ndarray], name: str, only: tuple[int, ...] = ()) -> float:
        inputs = []
        for split in ("train", "dev"):
            y = labels[split][name]
            rows = np.isin(labels[split]["motion"], only) if only else np.full(len(y), True)
            inputs += [of[split][rows], y[rows] - min(only, default=0)]
        return accuracy_of_a_probe(*inputs)

    assert probe(means, "digit") > 0.35 and probe(means, "colour") > 0.8
    for only in ((0, 1), (2, 3), (4, 5)):  # right or left, up or down, growing or shrinking
        assert 0.2 < probe(means, "motion", only) < 0.8
        assert probe(ways, "motion", only) > 0.9


# Captions: read back by a grammar of the test's own, and compared with what happens in the clip.

COLOUR_OF = {word: name for name, (_, words) in COLOURS.items() for word in words}
COLOUR, VALUE, NOUN = "|".join(COLOUR_OF), "|".join(NUMBERS) + r"|\d", "digit|number|numeral"
THING = re.compile(
    rf"\ban? (?:(?P<early>{COLOUR}) )?(?:(?:{NOUN}) (?P<value>{VALUE})|(?P<bare>{VALUE})|(?:{NOUN}))\b"
    rf"(?: in (?P<late>{COLOUR}))?(?= |$)"
)
MOTION_OF = {
    "right": r"(?:mov(?:es|ed|ing)|go(?:es|ing)|went|slid(?:es|ing)?) (?:to the )?right",
    "left": r"(?:mov(?:es|ed|ing)|go(?:es|ing)|went|slid(?:es|ing)?) (?:to the )?left",
    "up": r"(?:(?:mov(?:es|ed|ing)|go(?:es|ing)|went) up|ris(?:es|ing)|rose|climb(?:s|ed|ing))",
    "down": r"(?:(?:mov(?:es|ed|ing)|go(?:es|ing)|went) down|f(?:alls|ell|alling)|s(?:inks|ank|inking))",
    "grow": r"(?:gr(?:ows|ew|owing)|g(?:ets|ot|etting) bigger|bec(?:omes|ame|oming) larger)",
    "shrink": r"(?:shr(?:inks|ank|inking)|(?:g(?:ets|ot|etting)|bec(?:omes|ame|oming)) smaller)",
    "still": r"(?:st(?:ands|ood|anding) still|stay(?:s|ed|ing) (?:in place|where it is))",
}
MOTION = "|".join(f"(?P<{name}>{words})" for name, words in MOTION_OF.items())
OPENER = re.compile(r"^(a video of|a clip of|we see) ")
# A caption with its things as T and its motions as M -> what the order of the things in it is: the places of the
# mentioned ones in time, "any", or which of the ends.
FRAMES = {
    "T M": "any", "T and T": "any", "T , T and T": "any",
    "(?:at first|at the beginning) T M": "first", "(?:at the end|finally) T M": "last",
    "T M (?:, then|and then|, after that|before|, followed by) T M": "in order",
    "T (?:, then|and then|followed by|before) T": "in order",
    "T M after T M": "reversed", "after T M , T M": "in order", "T after T": "reversed",
    "first T M(?: , then T M)? (?:, then|and finally|, and at last) T M": "all",
    rf"(?P<count>{VALUE}) (?:{NOUN})s (?:one after the other|in a row) , the first (?:is T|one is T M)": "first",
    rf"(?P<count>{VALUE}) (?:{NOUN})s (?:one after the other|in a row) , the last (?:is T|one is T M)": "last",
}  # fmt: skip


def number(word: str) -> int:
    return int(word) if word.isdigit() else NUMBERS.index(word)


def read(caption: str, events: list[Event]) -> str:
    """Return the frame of a caption; raise AssertionError if it cannot be read or is not true of the events."""
    text = OPENER.sub("", caption.lower().removesuffix(" ."))
    things = list(THING.finditer(text))
    text = THING.sub("T", text)
    # A thing's motion, if it has one, follows it at once.
    motions = [re.match(rf" (?:{MOTION})", text[place + 1 :]) for place, letter in enumerate(text) if letter == "T"]
    text = re.sub(rf"T (?:{re.sub('[?]P<[a-z]+>', '?:', MOTION)})", "T M", text)
    found = [(frame, match) for frame in FRAMES if (match := re.fullmatch(frame, text))]
    assert len(found) == 1, f"{caption!r} cannot be read: {text!r}"
    ((frame, match),) = found
    if "count" in match.groupdict():
        assert number(match["count"]) == len(events), caption

    def fits(thing: re.Match[str], motion: re.Match[str] | None, event: Event) -> bool:
        value, colour = thing["value"] or thing["bare"], thing["early"] or thing["late"]
        assert value or colour, thing[0]
        return (
            (value is None or number(value) == event.digit)
            and (colour is None or COLOUR_OF[colour] == event.colour)
            and (motion is None or motion.lastgroup == event.motion)
        )

    def holds(places: tuple[int, ...]) -> bool:
        order = {
            "any": True, "first": places[0] == 0, "last": places[0] == len(events) - 1,
            "in order": list(places) == sorted(places), "reversed": list(places) == sorted(places, reverse=True),
            "all": places == tuple(range(len(events))),
        }  # fmt: skip
        return order[FRAMES[frame]] and all(map(fits, things, motions, (events[place] for place in places)))

    orders = itertools.permutations(range(len(events)), len(things))
    assert any(map(holds, orders)), f"{caption!r} is not true of {events}"
    return frame


def test_every_caption_is_true_and_every_form_occurs(many: Shown) -> None:
    rng = random.Random(0)
    frames = [read(tell(many.contents[i], rng), many.contents[i]) for i in range(300) for _ in range(10)]
    assert set(frames) == set(FRAMES)


def test_the_same_words_for_ever() -> None:
    """Names of run folders depend on the data, and so on every draw of the captions, in its order."""
    events = [Event(3, "red", "right"), Event(5, "green", "up"), Event(7, "white", "still")]
    rng = random.Random(0)
    text = "\n".join(tell(events[: 1 + number % 3], rng) for number in range(300))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "359ed5f3ab741bc8"


def test_the_reader_of_captions_notices_lies() -> None:
    three, five, seven = Event(3, "red", "right"), Event(5, "green", "up"), Event(7, "white", "still")
    events = [three, five, seven]
    for truth in (
        "A red three moves to the right , then a green five goes up .", "a 5 rises after a digit in red slid right",
        "after a red three went right , a white number seven stands still", "a white 7 and a scarlet three",
        "first a 3 moves right , then a 5 climbs and finally a 7 stays in place", "we see a 3 followed by a 7",
        "3 numbers in a row , the last one is a numeral 7 staying where it is", "At first a red digit slides right",
    ):  # fmt: skip
        read(truth, events)
    for lie in (
        "a green five goes up , then a red three moves to the right", "a red three moves to the left",
        "a green 5 rises before a digit in red slides right", "first a 3 moves right and finally a 7 stands still",
        "a 7 followed by a 3", "two digits in a row , the first is a red three", "a red five", "at the end a 5 rises",
        "a red digit and a red digit", "a five falls", "three digits in a row , the first is a 5", "a red 3", "seven",
        "a red three moves to the right , then a white seven falls", "a 3 after a 5",
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            read(lie, events)


def test_most_captions_are_false_of_the_clip_told_backwards(many: Shown) -> None:
    rng = random.Random(0)
    false = 0
    for i in range(0, 300, 2):
        for _ in range(5):
            try:
                read(tell(many.contents[i], rng), many.contents[i + 1])
            except AssertionError:
                false += 1
    assert 0.85 < false / 750 < 1


def test_captions_are_varied_and_hold_only_words_and_separate_marks(many: Shown) -> None:
    rng = random.Random(1)
    captions = [tell(many.contents[i], rng) for i in range(300) for _ in range(5)]
    assert len(set(captions)) > 0.9 * len(captions)
    for caption in captions:
        assert re.fullmatch(r"(?:[A-Za-z]+|\d)(?: (?:[a-z]+|\d|,))*(?: \.)?", caption), caption
        assert not re.search(r"\ban (?![aeiou8])|\ban one\b|\ba (?!one\b)[aeiou8]", caption.lower()), caption
