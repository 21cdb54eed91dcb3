"""Videos with captions as of MSR-VTT: what becomes of them, what is refused, and what is left alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from uwml_lib.cli import main
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, check_data
from uwml_lib.datasets.raw import items, msrvtt
from uwml_lib.datasets.raw.msrvtt import write_videos
from uwml_lib.support.errors import UWMLError

DIM = 5
SPLIT_OF = {"video0": "train", "video1": "validate", "video2": "train", "video3": "test", "video10": "train"}
LENGTHS = {"video0": 3, "video1": 1, "video2": 7, "video3": 2, "video10": 4}


def frames_of(name: str) -> np.ndarray:
    return np.random.default_rng(LENGTHS[name]).normal(size=(LENGTHS[name], DIM)).astype(np.float32)


def video(name: str, split: str) -> dict:
    return {"video_id": name, "split": split, "category": 1, "url": "https://example.org"}


def sentence(name: str, caption: str) -> dict:
    return {"sen_id": 0, "video_id": name, "caption": caption}


def write_json_of(path: Path, videos: list, sentences: list) -> Path:
    path.write_text(json.dumps({"info": {}, "videos": videos, "sentences": sentences}), encoding="utf-8")
    return path


def sentences_of(*videos: str, count: int = 2) -> list[dict]:
    """In the order of the numbers, so those of a video are apart."""
    return [sentence(name, f"{name} says {number}") for number in range(count) for name in videos]


@pytest.fixture
def jsons(tmp_path) -> list[Path]:
    """Two files as MSR-VTT has them; video2 has a sentence more."""
    first, second = ["video0", "video1", "video2", "video10"], ["video3"]
    extra = [sentence("video2", "one more")]
    return [
        write_json_of(tmp_path / name, [video(x, SPLIT_OF[x]) for x in some], sentences_of(*some) + more)
        for name, some, more in (("trainval.json", first, extra), ("test.json", second, []))
    ]


@pytest.fixture
def features(tmp_path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    for name in SPLIT_OF:
        np.save(folder / f"{name}.npy", frames_of(name))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check(folder: Path) -> None:
    for split, of in (("train", ["video0", "video2", "video10"]), ("dev", ["video1"]), ("test", ["video3"])):
        assert (folder / f"{split}_ids.txt").read_text().splitlines() == of
        captions = [f"{name} says {number}" for name in of for number in range(2)]
        assert (folder / f"{split}_caps.txt").read_text().splitlines() == captions
        ims, offsets = np.concatenate([frames_of(name) for name in of]), np.cumsum([0, *(LENGTHS[x] for x in of)])
        for name, expected in (("ims", ims), ("offsets", offsets.astype(np.int64))):
            np.save(folder / "expected.npy", expected)
            assert (folder / f"{split}_{name}.npy").read_bytes() == (folder / "expected.npy").read_bytes()
            (folder / "expected.npy").unlink()
    assert len(list(folder.iterdir())) == 12


# ------------------------------------------------------------------------------------------------ what is written


def test_every_split_gets_captions_ids_and_frames(tmp_path, jsons, features, capsys):
    np.save(features / "nobody.npy", np.ones((2, 9)))  # of no video
    assert main(["msrvtt", str(tmp_path / "new/msrvtt"), str(features), *map(str, jsons)]) == 0
    check(tmp_path / "new/msrvtt")
    out = capsys.readouterr().out
    assert "train: 3 videos, 2 captions each; 1 caption left out\ndev: 1 video, 2 captions each\n" in out
    assert "train: 3 videos, 14 frames of 5 numbers\n" in out


def test_captions_of_the_chosen_number(tmp_path, jsons, features, capsys):
    words = ["msrvtt", str(tmp_path / "new"), str(features), *map(str, jsons), "--captions-per-video"]
    assert main([*words, "1"]) == 0
    assert (tmp_path / "new/train_caps.txt").read_text() == "video0 says 0\nvideo2 says 0\nvideo10 says 0\n"
    assert "train: 3 videos, 1 caption each; 4 captions left out\n" in capsys.readouterr().out
    assert main([*words, "3"]) == 1
    assert (
        "trainval.json, test.json: 4 of the 5 videos have fewer than 3 captions (--captions-per-video takes another "
        "number, and without it each split keeps its own): video0, video10, video1, video3\n"
    ) in capsys.readouterr().err
    with pytest.raises(UWMLError, match="captions_per_video: found -1, expected at least 1, or 0 for the fewest"):
        write_videos(tmp_path / "new", features, jsons, -1)


def test_each_split_keeps_as_many_captions_as_all_its_videos_have(tmp_path, jsons, features, capsys):
    """As in MSR-VTT 1k-A: many sentences a video in train, one in test."""
    first, second = (json.loads(path.read_text()) for path in jsons)
    first["sentences"] += sentences_of("video0", "video2", "video10", count=4)
    write_json_of(jsons[0], first["videos"], first["sentences"])
    write_json_of(jsons[1], second["videos"], second["sentences"][:1])
    write_videos(tmp_path / "new", features, jsons)
    assert "train: 3 videos, 6 captions each; 1 caption left out\n" in capsys.readouterr().out
    splits = check_data(ExperimentConfig(dataset="new", data_root=str(tmp_path)))
    assert {x.split: (len(x), x.captions_per_image) for x in splits} == {
        "train": (18, 6),
        "dev": (2, 2),
        "test": (1, 1),
    }


def test_other_real_numbers_become_float32(tmp_path, jsons, features):
    np.save(features / "video0.npy", frames_of("video0").astype(np.float64))
    write_videos(tmp_path / "new", features, jsons)
    check(tmp_path / "new")


def test_the_data_set_reads_them(tmp_path, jsons, features):
    write_videos(tmp_path / "new", features, jsons)
    dataset = PrecomputedDataset(tmp_path / "new", "train")
    assert dataset.ids == ["video0", "video2", "video10"] and dataset.captions_per_image == 2
    images = dataset.images(0, 3).numpy()
    assert images.shape == (3, 7, DIM)
    assert np.array_equal(images[0, :3], frames_of("video0")) and np.array_equal(images[1], frames_of("video2"))


def test_a_caption_is_one_line(tmp_path, features):
    one = write_json_of(tmp_path / "a.json", [video("video0", "train")], [sentence("video0", " a\ndog\truns .\r\n")])
    write_videos(tmp_path / "new", features, [one])
    assert (tmp_path / "new/train_caps.txt").read_text() == "a dog runs .\n"
    assert {path.name[:5] for path in (tmp_path / "new").iterdir()} == {"train"}


def test_again_it_changes_nothing_and_after_a_kill_it_goes_on(tmp_path, jsons, features, monkeypatch):
    folder, whole, read = tmp_path / "new", msrvtt._read_frames, []

    def until(features, video):
        if video == "video1":  # dev, when train is done
            raise KeyboardInterrupt
        return whole(features, video)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(msrvtt, "_read_frames", until)
        write_videos(folder, features, jsons)
    assert (folder / "train_ims.npy").exists() and not (folder / "dev_ims.npy").exists()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("train*.npy")}
    monkeypatch.setattr(msrvtt, "_read_frames", lambda features, video: read.append(video) or whole(features, video))
    write_videos(folder, features, jsons)
    check(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("train*.npy")} == times
    assert read == ["video0", "video2", "video10", "video1", "video3"], "one at a time, in order"
    write_videos(folder, features, jsons)
    check(folder)


# ------------------------------------------------------------------------------------------------ what is refused


def refused(words: str, jsons, features, folder) -> str:
    before = contents(folder) if folder.exists() else None
    with pytest.raises(UWMLError, match=words) as error:
        write_videos(folder, features, jsons)
    assert (contents(folder) if folder.exists() else None) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_there_and_other_is_left_alone(tmp_path, jsons, features):
    folder = tmp_path / "new"
    write_videos(folder, features, jsons)
    np.save(features / "video3.npy", frames_of("video3") + 1)
    refused("new/test_ims.npy: found other numbers than these files give; move it away", jsons, features, folder)
    np.save(features / "video3.npy", frames_of("video10"))
    refused("new/test_offsets.npy: found other numbers", jsons, features, folder)
    np.save(features / "video3.npy", frames_of("video3"))
    for name in ("dev_ims", "dev_offsets"):
        whole = (folder / f"{name}.npy").read_bytes()
        (folder / f"{name}.npy").write_bytes(b"damaged")
        refused(f"{name}.npy: not readable as a .npy array", jsons, features, folder)
        (folder / f"{name}.npy").write_bytes(whole)
    (folder / "test_caps.txt").write_text("released\n")
    refused("test_caps.txt: found other lines than trainval.json, test.json gives", jsons, features, folder)


VIDEOS = [video("video0", "train"), video("video1", "validate")]
SENTENCES = sentences_of("video0", "video1")


@pytest.mark.parametrize(
    ("videos", "sentences", "words"),
    [
        (None, SENTENCES, "videos: found nothing, expected a list of at least one"),
        ([], SENTENCES, r"videos: found \[\], expected a list"),
        ([*VIDEOS, 3], SENTENCES, r"videos\[2\]: found 3, expected a JSON object"),
        ([*VIDEOS, {}], SENTENCES, r"videos\[2\]: video_id: found nothing, expected the name of VIDEO_ID.npy"),
        ([video("../video0", "train")], SENTENCES, r"videos\[0\]: video_id: found '../video0', expected the name"),
        ([video("a\\b", "train")], SENTENCES, r"videos\[0\]: video_id: found 'a"),
        ([video("a\nb", "train")], SENTENCES, r"videos\[0\]: video_id: found 'a"),
        ([video(7, "train")], SENTENCES, r"videos\[0\]: video_id: found 7"),
        ([*VIDEOS, VIDEOS[0]], SENTENCES, r"videos\[0\] and .*a.json: videos\[2\] are both video0, expected each onc"),
        ([video("video0", "all")], SENTENCES, r"videos\[0\], video0: split: found 'all', expected one of train, rest"),
        ([video("video0", ["x"])], SENTENCES, r"videos\[0\], video0: split: found \['x'\]"),
        (VIDEOS, None, "sentences: found nothing, expected a list of at least one"),
        (VIDEOS, [*SENTENCES, "x"], r"sentences\[4\]: found 'x', expected a JSON object"),
        (VIDEOS, [sentence("video9", "x")], r"sentences\[0\]: video_id: found 'video9', expected that of a video of a"),
        (VIDEOS, [sentence(["x"], "x")], r"sentences\[0\]: video_id: found \['x'\]"),
        (VIDEOS, [sentence("video0", " \n")], r"sentences\[0\], video0: caption: found ' \\n', expected a text"),
        (VIDEOS, [sentence("video0", None)], r"sentences\[0\], video0: caption: found nothing, expected a text"),
        (VIDEOS, [sentence("video0", "x" * 5001)], r"caption: found 5,001 characters, expected a text"),
    ],
)  # fmt: skip
def test_another_shape_is_refused_by_file_and_place(tmp_path, features, videos, sentences, words):
    path = write_json_of(tmp_path / "a.json", videos, sentences)
    assert refused(words, [path], features, tmp_path / "new").startswith(f"{path}: ")
    assert not (tmp_path / "new").exists()


def test_a_video_without_sentences_is_listed(tmp_path, features, jsons, monkeypatch):
    more = write_json_of(tmp_path / "more.json", [video(f"v{n}", "train") for n in range(4)], sentences_of("v1"))
    monkeypatch.setattr(items, "IDS_SHOWN", 2)
    refused(
        "trainval.json, test.json, more.json: 3 of the 9 videos have no caption: v0, v2 and 1 more",
        [*jsons, more],
        features,
        tmp_path / "new",
    )


def test_a_video_in_two_files_is_refused(tmp_path, features, jsons):
    refused(
        r"test.json: videos\[0\] and .*again.json: videos\[0\] are both video3, expected each once",
        [*jsons, write_json_of(tmp_path / "again.json", [video("video3", "test")], sentences_of("video3"))],
        features,
        tmp_path / "new",
    )


def test_no_json_is_a_sentence(tmp_path, features, jsons, capsys):
    refused("JSON: found no file, expected at least one", [], features, tmp_path / "new")
    (tmp_path / "broken.json").write_text("{")
    assert main(["msrvtt", str(tmp_path / "new"), str(features), str(tmp_path / "broken.json")]) == 1
    assert f"uwml msrvtt: {tmp_path}/broken.json: not readable as JSON" in capsys.readouterr().err


def test_features_that_are_not_there_are_listed(tmp_path, jsons, features):
    for name in ("video0", "video3"):
        (features / f"{name}.npy").unlink()
    refused("features: 2 of the 5 videos have no file: video0, video3", jsons, features, tmp_path / "new")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((2, DIM, 1)), "expected real numbers, at least one, in 2 dimensions"),
        (np.ones((0, DIM)), "expected real numbers, at least one, in 2 dimensions"),
        (np.ones((2, DIM + 1)), "found 6 numbers a frame, expected 5 as in video0.npy"),
        (np.full((2, DIM), "x"), "expected real numbers"),
    ],
)
def test_features_of_another_shape(tmp_path, jsons, features, array, words):
    np.save(features / "video2.npy", array)
    found = refused(words, jsons, features, tmp_path / "new")
    assert found.startswith(f"{features / 'video2.npy'}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, jsons, features, value):
    frames = frames_of("video2").astype(float)
    frames[4, 2] = value
    np.save(features / "video2.npy", frames)
    with pytest.raises(UWMLError, match=r"video2.npy: frame 4 \(counted from 0\) holds NaN, infinity or what is"):
        write_videos(tmp_path / "new", features, jsons)
    assert not list((tmp_path / "new").glob("*ims.npy")) and not list((tmp_path / "new").glob(".*"))
    np.save(features / "video2.npy", frames_of("video2"))  # mended, it goes on
    write_videos(tmp_path / "new", features, jsons)
    check(tmp_path / "new")
