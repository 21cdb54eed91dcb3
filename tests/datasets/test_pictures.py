"""From a folder of images and a caption file to a data set; the weights are random ones of a file, so no network."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.backbone import SMALL, random_weights
from tests.raw import entry
from uwml_lib.cli import main
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, check_data
from uwml_lib.datasets.digits.scenes import ScenesSettings
from uwml_lib.datasets.raw import pictures
from uwml_lib.datasets.raw.grid_features import build_backbone, grid_boxes, grid_features, load_picture
from uwml_lib.datasets.raw.growing import JOURNAL
from uwml_lib.datasets.raw.pictures import split_names, write_pictures
from uwml_lib.runs.search import Search
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_lines, read_sealed_json, sha256_of, write_json
from uwml_lib.training import train

COUNT = 20
NAMES = [f"{number:02d}.png" for number in range(COUNT)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return ScenesSettings(train=COUNT).draw("train").pixels


@pytest.fixture
def images(tmp_path, drawn) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels in zip(NAMES, drawn, strict=True):
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def captions(tmp_path) -> Path:
    return write(tmp_path / "captions.txt", {name: 2 for name in NAMES})


def caption(name: str, number: int) -> str:
    return f"caption {number} of {name}"


def write(path: Path, counts: dict[str, int]) -> Path:
    rows = [f"{name}\t{caption(name, k)}\n" for name, count in counts.items() for k in range(count)]
    path.write_text("".join(rows))
    return path


@pytest.fixture
def make(images, captions, tmp_path, weights):
    """Write the data set, with other arguments than usual."""

    def call(**options) -> Path:
        given = {"images": images, "captions": captions, "backbone": SMALL, "weights": weights, "batch_size": 4,
                 "say": lambda line: None} | options  # fmt: skip
        write_pictures(tmp_path / "mine", given.pop("images"), given.pop("captions"), **given)
        return tmp_path / "mine"

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# ------------------------------------------------------------------------------------------------ what is written


def test_through_the_command_to_the_data_set(images, captions, tmp_path, weights, capsys):
    folder = tmp_path / "data/mine"
    words = ["pictures", str(folder), str(images), str(captions), "--backbone", SMALL, "--weights", str(weights)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert (
        f"{captions}: lines of a name, a tab and a caption; 40 captions of 20 images; files without captions: 0\n"
        in out
    )
    assert "1/2 looking at 16 images of train, 2 images of dev, 2 images of test\n" in out
    assert re.search(r"2/2 features by mobilenetv3_small_050 on \w+: 36 regions of 288 numbers\n", out)
    assert f"{folder}/train_ims.npy: 16 x 36 x 288\n" in out
    assert f"now train on it: uwml train --dataset mine --data-root {folder.parent}\n" in out
    sizes = {"train": 16, "dev": 2, "test": 2}
    splits = {split: PrecomputedDataset(folder, split) for split in sizes}
    assert {split: len(dataset.features) for split, dataset in splits.items()} == sizes
    assert sorted(name for dataset in splits.values() for name in dataset.ids) == NAMES
    for dataset in splits.values():
        assert dataset.captions == [caption(name, k) for name in dataset.ids for k in range(2)]
        assert dataset.features.shape[1:] == (36, 288)
    check_data(ExperimentConfig(dataset="mine", data_root=str(folder.parent)))


def test_features_and_boxes_are_those_of_each_picture(make, images, weights):
    Image.new("RGB", (120, 30), "red").save(images / NAMES[3])
    folder, backbone = make(grid=3), build_backbone(SMALL, weights)
    for split in ("train", "dev", "test"):
        dataset = PrecomputedDataset(folder, split)
        boxes = dataset.optional_array("boxes", 3)
        assert boxes.dtype == dataset.features.dtype == np.float32
        for row, name in enumerate(dataset.ids):
            picture = load_picture(images / name)
            expected = grid_features(backbone, backbone.transform(picture)[None], 3)[0]
            torch.testing.assert_close(dataset.images(row, row + 1)[0], expected)
            size = np.array([120, 30] if name == NAMES[3] else [80, 80])
            np.testing.assert_allclose(boxes[row], grid_boxes((7, 7), 3) * np.tile(size, 2), rtol=1e-6)


def test_what_the_features_are_of_is_written_down(make, images, weights):
    found = read_json(make(seed=3, dev=20) / "pictures.json")
    assert found.pop("images") == str(images)
    assert found.pop("timm")
    assert found == {
        "regions": "grid", "backbone": SMALL, "resolution": 224, "grid": 6, "weights": str(weights),
        "digest": build_backbone(SMALL, weights).digest, "dev": 20, "test": 10, "seed": 3,
    }  # fmt: skip


def test_every_image_of_a_split_gets_as_many_captions(make, captions, capsys):
    names = split_names(NAMES, 10, 10, 0)
    counts = {name: 7 if name in names["test"] else 2 + k % 3 for k, name in enumerate(NAMES)}
    write(captions, counts)
    folder = make(say=print)
    out, left_out = capsys.readouterr().out, sum(counts[name] - 2 for name in names["train"])
    assert f"train: 16 images, 2 captions each; {left_out} captions left out\n" in out
    assert "test: 2 images, 7 captions each\n" in out
    for split, number in (("train", 2), ("test", 7)):
        dataset = PrecomputedDataset(folder, split)
        assert dataset.captions == [caption(name, k) for name in dataset.ids for k in range(number)]
    shutil.rmtree(folder)
    folder = make(captions_per_image=1)
    dataset = PrecomputedDataset(folder, "train")
    assert dataset.captions == [caption(name, 0) for name in dataset.ids]
    shutil.rmtree(folder)
    few = sum(count < 4 for count in counts.values())
    with pytest.raises(UWMLError, match=rf"captions.txt: {few} of the 20 images have fewer than 4 captions \(--capt"):
        make(captions_per_image=4)


def test_images_without_captions_are_left_out(make, images, captions, capsys):
    write(captions, {name: 1 for name in NAMES[2:]})
    (images / "more").mkdir()
    shutil.copy(images / NAMES[2], images / "more/UPPER.JPG")
    (images / "notes.txt").touch()
    folder = make(say=print)
    assert "18 captions of 18 images; files without captions: 4\n" in capsys.readouterr().out
    assert sum(len(read_lines(folder / f"{split}_ids.txt")) for split in ("train", "dev", "test")) == 18


def test_images_in_folders(make, images, captions):
    (images / "more").mkdir()
    for name in NAMES:
        (images / name).rename(images / "more" / name)
    write(captions, {f"more/{name}": 1 for name in NAMES})
    assert {name[:5] for name in PrecomputedDataset(make(), "train").ids} == {"more/"}


def test_a_picture_alone_gets_the_features_it_has_in_the_data_set(make, images, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(weights.parent)
    folder = make(grid=3, weights=Path(weights.name))
    monkeypatch.chdir(tmp_path)
    dataset = PrecomputedDataset(folder, "train")
    picture = images / dataset.ids[5]
    torch.testing.assert_close(pictures.picture_features(folder, picture), dataset.images(5, 6))

    config = ExperimentConfig("mine", str(tmp_path), epochs=1, batch_size=8, embed_size=8, word_dim=6, regions=5)
    search = Search(train(config, tmp_path / "run", say=lambda line: None), "train", say=lambda line: None)
    by_item, by_file = (search.captions_for(image) for image in (dataset.ids[5], picture))
    assert (by_item.number, by_file.number, by_file.question) == (5, None, str(picture))
    scores = [[match.score for match in matches.found] for matches in (by_item, by_file)]
    np.testing.assert_allclose(*scores, atol=1e-5)

    other, about = tmp_path / "other.safetensors", read_json(folder / "pictures.json")
    save_file({name: value + 1 for name, value in load_file(weights).items()}, other)
    wrong = {
        "other.safetensors: found other weights, or another input, expected those that made": {"weights": str(other)},
        "gone: no such file": {"weights": "gone"},
        "pictures.json: digest: found None, expected type str": {"digest": None},
    }
    for words, change in wrong.items():
        write_json(folder / "pictures.json", about | change)
        with pytest.raises(UWMLError, match=words):
            pictures.picture_features(folder, picture)
    write_json(folder / "pictures.json", about | {"grid": 2})
    with pytest.raises(UWMLError, match=r"png: found features \(4, 288\), expected \(.*, 288\), as of"):
        Search(tmp_path / "run", "train").captions_for(picture)
    with pytest.raises(UWMLError, match="captions.txt: not readable as an image"):
        pictures.picture_features(folder, tmp_path / "captions.txt")


def test_resolution_is_kept_for_a_picture_alone(make, images, weights):
    folder, backbone = make(grid=3, resolution=96), build_backbone(SMALL, weights, resolution=96)
    dataset = PrecomputedDataset(folder, "train")
    pixels = backbone.transform(load_picture(images / dataset.ids[5]))[None]
    expected = grid_features(backbone, pixels, 3)
    torch.testing.assert_close(dataset.images(5, 6), expected)
    torch.testing.assert_close(pictures.picture_features(folder, images / dataset.ids[5]), expected)


def test_a_folder_of_before_there_were_kinds_and_resolutions(make, images, weights):
    """pictures.json then named backbone, digest, timm, weights and grid, and the rest of the digest was the same."""
    folder = make()
    about, picture = read_json(folder / "pictures.json"), images / NAMES[0]
    features = pictures.picture_features(folder, picture)
    config = {
        "input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225), "crop_pct": 1.0, "crop_mode": "squash",
    }  # fmt: skip
    digest = hashlib.sha256(f"{SMALL} {config}".encode())
    for name, value in build_backbone(SMALL, weights).model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    assert about["digest"] == digest.hexdigest()
    splits = split_names(NAMES, 10, 10, 0)
    places = [(split, row, name) for split, names in splits.items() for row, name in enumerate(names)]
    inputs = json.dumps([about["digest"], 6, places, [sha256_of(images / name) for _, _, name in places]])
    assert read_sealed_json(folder / JOURNAL)["inputs"] == hashlib.sha256(inputs.encode()).hexdigest()
    del about["regions"], about["resolution"]
    write_json(folder / "pictures.json", about)
    assert torch.equal(pictures.picture_features(folder, picture), features)


# ------------------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize("count", [3, 4, 10, 99, 1000])
def test_splits_share_all_names(count):
    names = [str(number) for number in range(count)]
    splits = split_names(names, 10, 20, 0)
    assert list(splits) == ["train", "dev", "test"]
    assert sorted(sum(splits.values(), [])) == sorted(names)
    assert len(splits["dev"]) == max(1, round(count / 10))
    assert len(splits["test"]) == max(1, round(count / 5))


def test_splits_depend_on_the_seed_and_not_on_the_order():
    shuffled = random.Random(1).sample(NAMES, COUNT)
    assert split_names(shuffled, 10, 10, 0) == split_names(NAMES, 10, 10, 0)
    assert split_names(NAMES, 10, 10, 1) != split_names(NAMES, 10, 10, 0)
    assert split_names(NAMES, 10, 10, 0)["dev"] == ["08.png", "01.png"]  # for ever


@pytest.mark.parametrize(
    ("dev", "test"), [(0, 10), (10, 0), (-1, 10), (50, 50), (99, 2), (float("nan"), 10), (10, 100)]
)
def test_shares_that_cannot_be(dev, test):
    with pytest.raises(UWMLError, match="dev, test: found .* percent, expected both above 0, and below 100 together"):
        split_names(NAMES, dev, test, 0)


def test_too_few_images():
    with pytest.raises(UWMLError, match="dev, test: found 45 and 54 percent of 4 images, expected some images left"):
        split_names(NAMES[:4], 45, 54, 0)
    with pytest.raises(
        UWMLError, match="images with captions: found 2, expected at least 3, for one in each of train, dev and"
    ):
        split_names(NAMES[:2], 10, 10, 0)


def split_tsv(path: Path, splits: dict[str, str]) -> Path:
    path.write_text("".join(f"{name}\t{caption(name, 0)}\t{split}\n" for name, split in splits.items()))
    return path


def test_given_splits_are_kept(make, images, tmp_path, capsys):
    splits = {name: ("test", "restval", "validate", "train")[number % 4] for number, name in enumerate(NAMES)}
    folder = make(captions=split_tsv(tmp_path / "splits.tsv", splits), say=print)
    assert (
        "splits: as this file gives them, so --dev, --test and --seed are without effect\n" in capsys.readouterr().out
    )
    kept = {split: PrecomputedDataset(folder, split).ids for split in ("train", "dev", "test")}
    assert kept == {
        "train": [name for name, split in splits.items() if split in ("restval", "train")],
        "dev": NAMES[2::4], "test": NAMES[::4],
    }  # fmt: skip
    assert PrecomputedDataset(folder, "dev").captions == [caption(name, 0) for name in NAMES[2::4]]
    about = read_json(folder / "pictures.json")
    assert about["splits"] == "splits.tsv"
    assert not {"dev", "test", "seed"} & set(about)


def test_karpathys_json_gives_five_captions_and_splits(make, tmp_path):
    images = [
        entry(name, ("train", "val")[n % 2], [caption(name, k) for k in range(5)]) for n, name in enumerate(NAMES)
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset": "mine", "images": images}), encoding="utf-8-sig")
    folder = make(captions=tmp_path / "dataset.json", grid=1)
    assert not list(folder.glob("test_*"))
    assert PrecomputedDataset(folder, "train").ids == NAMES[::2]
    dev = PrecomputedDataset(folder, "dev")
    assert dev.captions == [caption(name, k) for name in NAMES[1::2] for k in range(5)]


def test_given_splits_must_do_for_a_training(make, tmp_path):
    path = split_tsv(tmp_path / "splits.tsv", {name: "train" for name in NAMES})
    words = (
        "splits.tsv: found 20 images of train, 0 images of dev, 0 images of test, expected at least 1 of train and 1"
    )
    refused(words, make, tmp_path, captions=path)
    path = split_tsv(path, {name: "val" for name in NAMES})
    refused("found 0 images of train, 20 images of dev", make, tmp_path, captions=path)


# ------------------------------------------------------------------------------------------------ what is refused


def refused(words: str, make, tmp_path, **options) -> None:
    """Refused, and nothing is written."""
    before = contents(tmp_path / "mine")
    with pytest.raises(UWMLError, match=words):
        make(**options)
    assert contents(tmp_path / "mine") == before


def test_arguments_that_cannot_be(make, images, tmp_path):
    for name in ("grid", "captions_per_image", "batch_size"):
        refused(f"{name}: found 0, expected at least 1", make, tmp_path, **{name: 0})
    refused("grid: found 8, expected no more than the 7 x 7 of the feature map of mobilenetv3", make, tmp_path, grid=8)
    refused("nowhere: no such folder, expected one of images", make, tmp_path, images=tmp_path / "nowhere")
    refused("captions.txt: no such folder", make, tmp_path, images=tmp_path / "captions.txt")
    refused("absent: no such file", make, tmp_path, captions=tmp_path / "absent")


def test_all_that_are_no_pictures_are_listed(make, images, tmp_path):
    (images / NAMES[1]).write_bytes(b"")
    (images / NAMES[4]).write_bytes((images / NAMES[4]).read_bytes()[:-4000])
    with pytest.raises(UWMLError) as error:
        make()
    found = str(error.value)
    assert found.startswith(f"{images}: 2 of the 20 images cannot be read: ")
    assert f"{NAMES[1]}: not readable as an image (" in found
    assert f"{NAMES[4]}: not readable as an image (" in found
    assert contents(tmp_path / "mine") == {}


def test_files_of_another_making_are_left_alone(make, captions, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/dev_caps.txt").write_text("downloaded\n")
    refused("dev_caps.txt: found other lines than captions.txt gives; move it away", make, tmp_path)
    (tmp_path / "mine/dev_caps.txt").unlink()
    (tmp_path / "mine/dev_ims.npy").write_text("downloaded")
    refused("dev_ims.npy: is there already; move it away", make, tmp_path)
    (tmp_path / "mine/dev_ims.npy").unlink()
    make()
    refused("train_ims.npy: is there already; move it away", make, tmp_path, grid=3)
    refused("train_caps.txt: found other lines", make, tmp_path, seed=1)
    refused("train_ims.npy: is there already; move it away", make, tmp_path, backbone="mobilenetv3_small_050.lamb_in1k")


def test_numbers_that_are_not_finite(make, monkeypatch, tmp_path):
    def features(backbone, pixels, grid):
        found = grid_features(backbone, pixels, grid).clone()
        found[1, 0, 0] = torch.nan
        return found

    monkeypatch.setattr(pictures.grids, "grid_features", features)
    second = split_names(NAMES, 10, 10, 0)["train"][1]
    with pytest.raises(UWMLError, match=f"images/{second}: mobilenetv3_small_050 gives NaN or infinity for this image"):
        make()


# ------------------------------------------------------------------------------------------------ kills


def stop_after(batches: int, make, monkeypatch) -> None:
    """Stop in the middle, as a kill would."""
    left = batches

    def features(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return grid_features(*arguments)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(pictures.grids, "grid_features", features)
        make()


def test_interrupted_it_goes_on_to_the_same_bytes(make, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "IMAGES_A_STEP", 8)
    whole = contents(make())
    shutil.rmtree(folder := make())
    stop_after(3, make, monkeypatch)
    assert read_sealed_json(folder / JOURNAL)["done"] == 8
    assert not list(folder.glob("*.npy"))
    make(say=print)
    assert "36 regions of 288 numbers; 8 images were done before\n" in capsys.readouterr().out
    assert contents(folder) == whole
    monkeypatch.setattr(pictures.grids, "grid_features", None)  # finished, it computes nothing
    make()
    assert contents(folder) == whole


def test_what_came_in_the_meantime_is_left_alone(make, monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "IMAGES_A_STEP", 4)
    stop_after(2, make, monkeypatch)
    (tmp_path / "mine/dev_ims.npy").write_text("downloaded")
    refused("dev_ims.npy: is there already; move it away", make, tmp_path)


@pytest.mark.parametrize("change", ["picture", "grid", "weights"])
def test_other_inputs_begin_anew(make, monkeypatch, images, change, tmp_path, capsys):
    monkeypatch.setattr(pictures, "IMAGES_A_STEP", 4)
    stop_after(2, make, monkeypatch)
    options = {"say": print}
    if change == "picture":
        Image.new("RGB", (80, 80), "red").save(images / NAMES[0])
    elif change == "grid":
        options["grid"] = 2
    else:
        options["weights"] = tmp_path / "other.safetensors"
        save_file(build_backbone(SMALL, pretrained=False).model.state_dict(), options["weights"])
    folder = make(**options)
    assert "; 8 images done of other inputs are done anew\n" in capsys.readouterr().out
    whole = contents(folder)
    shutil.rmtree(folder)
    assert contents(make(**options)) == whole


# Writes the data set, but is killed when the journal is written the n-th time.
KILLED = """
import os, signal, sys
from pathlib import Path
from uwml_lib.datasets.raw import growing, pictures

pictures.IMAGES_A_STEP = 4
folder, images, captions, weights, times = sys.argv[1:]
whole, left = growing.write_sealed_json, int(times)

def until(*arguments):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments)

growing.write_sealed_json = until
paths = Path(folder), Path(images), Path(captions)
pictures.write_pictures(*paths, backbone="mobilenetv3_small_050", weights=Path(weights), batch_size=4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_kill_costs_nothing(make, images, captions, tmp_path, weights, times):
    whole = {name: hashlib.sha256(content).digest() for name, content in contents(make()).items()}
    shutil.rmtree(folder := tmp_path / "mine")
    command = [sys.executable, "-c", KILLED, *map(str, (folder, images, captions, weights, times))]
    assert subprocess.run(command, capture_output=True, check=False, env=os.environ).returncode == -9
    make()
    assert {name: hashlib.sha256(content).digest() for name, content in contents(folder).items()} == whole


# ------------------------------------------------------------------------------------------------ to a trained model


@pytest.mark.slow
def test_a_model_trains_on_it(images, tmp_path, weights):
    listed = [{"image": name, "captions": [f"digit {name[:2]} here", f"a picture of {name[:2]}"]} for name in NAMES]
    (tmp_path / "captions.json").write_text(json.dumps(listed))
    folder = tmp_path / "data/mine"
    words = ["pictures", str(folder), str(images), str(tmp_path / "captions.json"), "--grid", "2"]
    assert main([*words, "--backbone", SMALL, "--weights", str(weights)]) == 0
    config = ExperimentConfig(
        dataset="mine", data_root=str(folder.parent), embed_size=8, word_dim=6, epochs=1, batch_size=16, device="cpu"
    )
    results = read_sealed_json(train(config, tmp_path / "run") / "results.json")
    assert results["split"] == "test"
    assert results["metrics"]["rsum"] > 0
