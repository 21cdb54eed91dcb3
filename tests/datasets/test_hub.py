"""Photographs from a server on this machine that answers as the Hugging Face hub does."""

import errno
import functools
import importlib.util
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import file_download
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.backbone import SMALL, random_weights
from tests.hub import SIZES, captions, pictures, published, serving
from tests.tiny import write_tiny
from uwml_lib.cli import main
from uwml_lib.config import preset
from uwml_lib.datasets import PrecomputedDataset, pictures_of, prepare_data
from uwml_lib.datasets import hub as module
from uwml_lib.datasets.hub import ON_THE_HUB, check_backbone, photographs_by_hand
from uwml_lib.datasets.raw import grid_features
from uwml_lib.datasets.raw.grid_features import build_backbone
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, read_lines

FLICKR8K = [Path(name).name for name in ON_THE_HUB["flickr8k"].files]
TEST, VALIDATION, *_ = FLICKR8K


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


built_once = functools.cache(build_backbone)


@pytest.fixture(autouse=True)
def one_backbone(monkeypatch):
    monkeypatch.setattr(grid_features, "build_backbone", built_once)


@pytest.fixture
def no_features(monkeypatch):
    """For tests of what comes before, and takes no time."""
    monkeypatch.setattr(module, "write_pictures", lambda *_, **__: None)


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, bytes]]:
    return {dataset: published(dataset) for dataset in ON_THE_HUB}


@pytest.fixture
def hub(monkeypatch, tmp_path, files):
    """The hub with Flickr8k; nobody has a token, and broken connections are tried again at once."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    for dataset, source in ON_THE_HUB.items():
        monkeypatch.setitem(ON_THE_HUB, dataset, source._replace(size=0, images=SIZES))
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        hub.files = dict(files["flickr8k"])
        yield hub


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "root/flickr8k"


@pytest.fixture
def fetch(weights):
    """Do what `uwml data` does before it checks, and return what it said."""

    def call(folder: Path, **options) -> list[str]:
        said: list[str] = []
        options = {"backbone": SMALL, "weights": weights} | options
        prepare_data(preset(folder.name, data_root=str(folder.parent)), said.append, fetch=True, **options)
        return said

    return call


@pytest.fixture
def refused(fetch):
    def call(folder: Path, **options) -> str:
        with pytest.raises(UWMLError) as error:
            fetch(folder, **options)
        return str(error.value)

    return call


def check(folder: Path, features: bool = False) -> None:
    """The photographs are there, all of them and no others; the features too, if they were made."""
    assert not (folder / ".download").exists()
    made = {name: content for split, size in SIZES.items() for name, content in pictures(split, size).items()}
    assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == made
    assert len(read_lines(folder / "captions.jsonl")) == len(made)
    for split, size in SIZES.items() if features else ():
        dataset = PrecomputedDataset(folder, split)
        assert dataset.ids == [f"{split}_{number}.jpg" for number in range(size)]
        assert dataset.captions == [text for number in range(size) for text in captions(number)]
        assert dataset.features.shape == (size, 36, 288)


# ------------------------------------------------------------------------------------------------------ what is fetched


@pytest.mark.parametrize("dataset", ON_THE_HUB)
def test_through_the_command_to_the_data_set(hub, files, tmp_path, weights, dataset, capfd, monkeypatch):
    monkeypatch.setattr(paths, "AUDITS", tmp_path / "audits")
    hub.files, folder = dict(files[dataset]), tmp_path / "root" / dataset
    words = ["data", "--dataset", dataset, "--data-root", str(folder.parent)]
    assert main([*words, "--backbone", SMALL, "--weights", str(weights)]) == 0
    output, source = capfd.readouterr(), ON_THE_HUB[dataset]
    lines = output.out.splitlines()
    assert lines[0] == f"{dataset}: {module.TERMS}"
    assert lines[1].startswith(f"{dataset}: 0.0 GB from {source.page} into {folder}, where ")
    assert lines[2] == f"1/{len(source.files)} {Path(source.files[0]).name}, 0.00 GB"
    assert "photographs: 8 images of train, 3 images of dev, 2 images of test" in lines
    assert "train: 8 images of 36 regions x 288 numbers, 5 captions each" in lines
    assert "warning: expected" not in output.out
    assert output.err == ""  # no bars where nobody is looking
    assert hub.asked == ["list", *(Path(name).name for name in source.files)]
    check(folder, features=True)

    hub.asked.clear()
    assert main(words) == 0 and hub.asked == []


@pytest.fixture
def usual_backbone(monkeypatch):
    """Let a small model with random weights be the one that is taken where none is named."""
    build = functools.cache(lambda name, *_, **options: build_backbone(name, pretrained=False, **options))
    monkeypatch.setattr(grid_features, "build_backbone", build)
    for place in (grid_features, module):
        monkeypatch.setattr(place, "BACKBONE", SMALL)
    monkeypatch.setattr(grid_features, "RESOLUTION", 192)


def test_the_usual_backbone_is_announced_before_its_weights_come(hub, folder, fetch, usual_backbone, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    said = fetch(folder, backbone=None, weights=None)
    seconds = "20 s on one core without a graphics card, a tenth of that with `uwml data --dataset flickr8k"
    assert said[1] == f"features by {SMALL}: {seconds} --backbone resnet50.tv_in1k`"
    assert said[2].startswith("flickr8k: 0.0 GB from ")
    about = read_json(folder / "pictures.json")
    assert (about["backbone"], about["resolution"], about["weights"]) == (SMALL, 192, "timm's")
    check_backbone(folder, None)
    check(folder, features=True)


def test_without_a_name_it_goes_on_with_the_backbone_that_began(hub, folder, fetch, weights, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("uwml_lib.datasets.raw.growing._write_rows", stop)
        fetch(folder)
    fetch(folder, backbone=None, weights=None)
    check_backbone(folder, SMALL, weights)


def test_pictures_of_the_photographs(hub, folder, fetch):
    fetch(folder)
    pictures = pictures_of(data := PrecomputedDataset(folder, "dev"))
    assert len(pictures) == SIZES["dev"] and pictures[1].shape == (16, 20, 3)
    assert [picture.shape for picture in pictures[:2]] == [(16, 20, 3)] * 2
    with Image.open(folder / "images" / data.ids[1]) as picture:
        assert np.array_equal(pictures[1], np.asarray(picture))
    moved = folder.rename(folder.with_name("moved"))
    assert len(pictures_of(data := PrecomputedDataset(moved, "dev"))) == SIZES["dev"]
    (moved / "images" / data.ids[2]).unlink()
    assert pictures_of(data) is None
    (moved / "pictures.json").unlink()
    assert pictures_of(PrecomputedDataset(moved, "train")) is None


def test_features_by_another_backbone_are_told_apart_and_made_anew(hub, folder, fetch, weights, tmp_path, capfd):
    fetch(folder)
    words = ["data", "--dataset", "flickr8k", "--data-root", str(folder.parent), "--backbone"]
    assert main([*words, "resnet18"]) == 1
    assert f"found features by {SMALL}, expected those by resnet18; move *_ims" in capfd.readouterr().err
    other = tmp_path / "other.safetensors"
    state = load_file(weights)
    save_file({**state, "conv_stem.weight": 2 * state["conv_stem.weight"]}, other)
    assert main([*words, SMALL, "--weights", str(other)]) == 1
    assert f"found features by other weights, expected those of {other}; move *_ims" in capfd.readouterr().err
    before = np.load(folder / "train_ims.npy")
    for path in (*folder.glob("*_ims.npy"), *folder.glob("*_boxes.npy")):
        path.unlink()
    hub.asked.clear()
    fetch(folder, weights=other)
    check_backbone(folder, SMALL, other)
    assert hub.asked == [] and not np.array_equal(np.load(folder / "train_ims.npy"), before)


def test_a_training_downloads_nothing_and_names_the_command(folder):
    with pytest.raises(UWMLError) as error:
        prepare_data(preset("flickr8k", data_root=str(folder.parent)))
    command = f"`make data DATASET=flickr8k DATA_ROOT={folder.parent}` downloads flickr8k (1.1 GB)"
    assert str(error.value).startswith(f"{folder / 'train_caps.txt'}: no such file; {command}")
    assert not folder.exists()
    write_tiny(folder, {"train": 4, "dev": 3})
    prepare_data(preset("flickr8k", data_root=str(folder.parent)))  # somebody's own
    (folder / ".download").mkdir()
    with pytest.raises(UWMLError, match="test_caps.txt: no such file"):  # features are on their way
        prepare_data(preset("flickr8k", data_root=str(folder.parent)))


def test_what_makes_features_is_asked_for_photographs_alone(capfd):
    assert main(["data", "--dataset", "scenes", "--backbone", SMALL]) == 1
    assert "found the data set scenes, expected one of flickr8k, flickr30k" in capfd.readouterr().err


def test_weights_are_looked_for_before_anything_is_downloaded(hub, folder, refused):
    message = refused(folder, weights=folder / "none.safetensors")
    assert message == f"{folder}/none.safetensors: no such file"
    assert hub.asked == [] and not (folder / ".download").exists()


def test_a_token_tells_the_hub_who_asks(hub, no_features, folder, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    fetch(folder)
    assert hub.tokens == {"Bearer hf_mine"}


# ------------------------------------------------------------------------------------------------------------ going on


def test_a_broken_download_goes_on_where_it_stopped(hub, no_features, folder, refused, fetch, monkeypatch):
    name = ON_THE_HUB["flickr8k"].files[1]
    monkeypatch.setattr(file_download.constants, "DOWNLOAD_CHUNK_SIZE", 256)
    hub.sent[name] = 1000
    message = refused(folder)
    assert message.startswith(f"{VALIDATION}: the hub cannot be reached, or the connection broke (RemoteProtocolError)")
    assert message.endswith(photographs_by_hand("flickr8k", folder))
    hub.sent.clear()
    hub.asked.clear()
    hub.ranges.clear()
    fetch(folder)
    assert hub.asked == ["list", *FLICKR8K[1:]]
    assert hub.ranges == [(VALIDATION, "bytes=768-")]
    check(folder)


def test_files_that_are_there_are_not_asked_for(hub, no_features, folder, fetch):
    (folder / ".download").mkdir(parents=True)
    for name, content in hub.files.items():
        (folder / ".download" / Path(name).name).write_bytes(content)
    hub.status["*"] = 500
    fetch(folder)
    assert hub.asked == []
    check(folder)


@pytest.mark.parametrize("step", ["write_photographs", "write_pictures", "rmtree"])
def test_interrupted_after_the_download_it_goes_on_without_the_network(hub, folder, fetch, monkeypatch, step):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil if step == "rmtree" else module, step, stop)
        fetch(folder)
    assert (folder / ".download" / TEST).exists()
    assert (folder / "images").exists() == (step != "write_photographs")
    hub.status["*"] = 500
    hub.asked.clear()
    fetch(folder)
    assert hub.asked == []
    check(folder, features=True)


def test_photographs_that_were_written_are_not_written_again(hub, no_features, folder, fetch, monkeypatch):
    real, written = Path.write_bytes, []

    def write(path: Path, content: bytes) -> int:
        written.append(path.name.removeprefix(".").removesuffix(".part"))
        if len(written) == 4:
            raise KeyboardInterrupt
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        fetch(folder)
    fetch(folder)
    assert len(written) == 1 + sum(SIZES.values()) and written[3] == written[4]
    check(folder)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ("list", 401, "jxie/flickr8k: the hub refuses (401): look at https://huggingface.co/datasets/jxie/flickr8k"),
        (TEST, 403, f"{TEST}: the hub refuses (403): look at https://huggingface.co/datasets/jxie/flickr8k"),
        (TEST, 403, "make a token at https://huggingface.co/settings/tokens and set HF_TOKEN to it"),
        ("list", 404, "jxie/flickr8k: the hub has no such thing in jxie/flickr8k at 56f58c967835f7c508d684f36bd789"),
        (TEST, 404, "(404); mend the names in uwml_lib/datasets/hub.py"),
        (TEST, 500, f"{TEST}: the hub answers 500; try again later. What is here is kept"),
    ],
)
def test_a_refusal_says_what_to_do(hub, folder, refused, asked, status, words):
    hub.status[asked] = status
    message = refused(folder)
    assert words in message
    assert message.endswith(photographs_by_hand("flickr8k", folder))


@pytest.mark.parametrize("how", ["no server", "HF_HUB_OFFLINE"])
def test_offline_says_what_to_fetch_from_where_and_where_to_put_it(hub, folder, refused, monkeypatch, how):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message, source = refused(folder), ON_THE_HUB["flickr8k"]
    assert message.startswith("jxie/flickr8k: the hub cannot be reached, or the connection broke (")
    assert f"fetch {', '.join(source.files)} from {source.page}/tree/{source.revision}" in message
    assert f"put them into {folder}/.download" in message


def test_the_by_hand_of_the_readme_names_the_same(hub):
    readme = (Path(__file__).parents[2] / "data/README.md").read_text(encoding="utf-8")
    for source in ON_THE_HUB.values():
        assert f"{source.page}/tree/{source.revision}" in readme
        assert all(Path(name).name in readme for name in source.files)


def test_an_answer_that_is_no_list(hub, folder, refused, monkeypatch):
    monkeypatch.setattr("tests.hub.json.dumps", lambda value: "<html>Please log in</html>")
    assert refused(folder).startswith("jxie/flickr8k: found an answer that is no list of files (")


def test_a_file_that_the_list_lacks(hub, folder, refused):
    del hub.files[ON_THE_HUB["flickr8k"].files[0]]
    message = refused(folder)
    assert f"found {', '.join(hub.files)}, expected data/{TEST}; mend the names in uwml_lib" in message


def test_damaged_files_are_removed_and_fetched_again(hub, no_features, folder, refused, fetch):
    hub.digests[f"data/{TEST}"] = "0" * 64
    message = refused(folder)
    assert message.startswith(f"{TEST}: what the hub sent is damaged and was removed (SHA-256 ")
    assert f"expected {'0' * 64}); the same command fetches it again" in message
    assert list((folder / ".download").iterdir()) == []
    hub.digests.clear()
    fetch(folder)
    check(folder)


def test_what_is_longer_than_the_file_is_not_gone_on_with(hub, no_features, folder, fetch):
    (folder / ".download").mkdir(parents=True)
    (folder / f".download/{TEST}.part").write_bytes(b"?" * 10**6)
    fetch(folder)
    check(folder)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_asked(hub, folder, refused, monkeypatch):
    source = ON_THE_HUB["flickr8k"]._replace(size=1_103_000_000, images={"train": 6000, "dev": 1000, "test": 1000})
    monkeypatch.setitem(ON_THE_HUB, "flickr8k", source)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(2.4e9))
    expected = "2.5: the files, the photographs in them, and 0.3 of features; make room, or name another disk"
    assert refused(folder).startswith(f"{folder}: found 2.4 GB free, expected {expected}")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "cannot be written (No space left on device)"),
        (OSError("Consistency check failed: 1.\nPlease retry"), "did not come whole (Consistency check failed: 1.)"),
    ],
)
def test_a_disk_that_fills_up_and_a_file_of_another_length(hub, folder, refused, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(file_download, "http_get", fail)
    by_hand = photographs_by_hand("flickr8k", folder)
    assert (
        refused(folder) == f"{TEST}: {words}. What is here is kept, and the same command goes on from there. {by_hand}"
    )


@pytest.mark.parametrize("package", ["huggingface_hub", "pyarrow"])
def test_without_a_package_one_sentence_says_how_to_get_it(hub, folder, refused, monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else real(name))
    install = "`make setup`, or pip install '/path/to/the/kit[data,vision]'"
    assert refused(folder) == f"photographs from the hub need {package}: {install}"


def test_pictures_of_somebody_else_are_left_alone(hub, folder, refused):
    (folder / "images").mkdir(parents=True)
    (folder / "images/mine.jpg").touch()
    assert refused(folder) == f"{folder}: found images without captions.jsonl, expected both; move images away"
    assert (folder / "images/mine.jpg").exists() and hub.asked == []


def test_other_numbers_of_images_are_said(hub, no_features, folder, fetch, monkeypatch):
    usual = {"train": 9, "dev": 3, "test": 2}
    monkeypatch.setitem(ON_THE_HUB, "flickr8k", ON_THE_HUB["flickr8k"]._replace(images=usual))
    said = "\n".join(fetch(folder))
    assert "warning: expected 9 of train, 3 of dev, 2 of test: these are not the usual splits" in said
    check(folder)
