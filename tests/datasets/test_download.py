"""Downloads against a server on this machine that answers as Kaggle does, as far as kagglehub can tell."""

import base64
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import kagglehub
import numpy as np
import pytest
import sklearn  # noqa: F401  # sets two variables when it is first imported
from kagglesdk import kaggle_env

from tests.tiny import write_split, write_tiny
from uwml_lib.cli import main
from uwml_lib.config import preset
from uwml_lib.datasets import Vocabulary, load_split, prepare_data
from uwml_lib.datasets import download as module
from uwml_lib.datasets.download import FILES, by_hand, download, how_to_get, lacks
from uwml_lib.datasets.vocabulary import SPECIALS
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError

DATASET = "f30k_precomp"
NAMES = {f"{split}_{kind}" for split in ("train", "dev", "test") for kind in ("ims.npy", "caps.txt", "ids.txt")}
VOCABULARY = f"{DATASET}_vocab.json"
TRAIN = f"data/data/{DATASET}/train_ims.npy"
METADATA_PREFIX = "/api/v1/datasets.DatasetApiService/"


class Kaggle:
    """What the server holds, how it misbehaves, and what it was asked.

    status: what is answered to a question for a file, or for any ("*"). sent: how many bytes of a file go out before
    the connection breaks. md5: a wrong checksum for a file. zipped: files that come as `name.zip`.
    """

    def __init__(self, files: dict[str, bytes], watched: Path) -> None:
        self.files, self.watched = files, watched
        self.status: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.md5: dict[str, bytes] = {}
        self.zipped: set[str] = set()
        self.asked: list[str] = []
        self.ranges: list[tuple[str, str]] = []
        self.there: dict[str, set[str]] = {}  # the names in the data set's folder while a file was being sent
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        kaggle = self.server.kaggle
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != METADATA_PREFIX + "DownloadDataset":
            return self.answer(404, b'{"code": 404, "message": "no such path"}')
        assert (question["ownerSlug"], question["datasetSlug"]) == ("kuanghueilee", "scan-features")
        assert question["datasetVersionNumber"] == 1
        name = question["fileName"]
        kaggle.asked.append(name)
        status = kaggle.status.get(name, kaggle.status.get("*", 200 if name in kaggle.files else 404))
        if status != 200:
            return self.answer(status, json.dumps({"code": status, "message": "so it is"}).encode())
        ending = ".zip" if name in kaggle.zipped else ""
        return self.answer(302, b"", Location=f"{kaggle.url}/{quote(name)}{ending}")

    def do_GET(self):
        kaggle = self.server.kaggle
        name = unquote(self.path[1:])
        content = kaggle.files[name.removesuffix(".zip")]
        if name.endswith(".zip"):
            content = archive({Path(name).name.removesuffix(".zip"): content})
        kaggle.there[name] = {path.name for path in kaggle.watched.iterdir()}
        checksum = base64.b64encode(kaggle.md5.get(name) or hashlib.md5(content).digest()).decode()
        start = 0
        if "Range" in self.headers:
            kaggle.ranges.append((name, self.headers["Range"]))
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={checksum}")
        self.end_headers()
        self.wfile.write(content[start : kaggle.sent.get(name, len(content))])
        if name in kaggle.sent:
            self.close_connection = True

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> dict[str, bytes]:
    """The Kaggle data set in miniature, laid out as the release: dev and test hold an image once for each caption."""
    folder = write_tiny(tmp_path_factory.mktemp("released"))
    for split in ("train", "dev", "test"):
        features = np.load(folder / f"{split}_ims.npy")
        captions = (folder / f"{split}_caps.txt").read_text().splitlines()
        copies = 1 if split == "train" else 2
        write_split(folder, split, features.repeat(copies, axis=0), captions)
        ids = "".join(f"{1000 + image}\n" * copies for image in range(len(features)))
        (folder / f"{split}_ids.txt").write_text(ids)
    Vocabulary([*SPECIALS, "red"]).save(folder / VOCABULARY)
    files = {f"data/data/{DATASET}/{path.name}": path.read_bytes() for path in folder.iterdir()}
    vocabulary = files.pop(f"data/data/{DATASET}/{VOCABULARY}")
    others = {name.replace(DATASET, "coco_precomp"): b"36 GB" for name in files}
    return {**files, **others, f"vocab/vocab/{VOCABULARY}": vocabulary, "vocab/vocab/coco_precomp_vocab.json": b"{}"}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "root" / DATASET


@pytest.fixture
def kaggle(released, folder, tmp_path, monkeypatch):
    """A server for kagglehub to ask; the account that runs the tests has no credentials, and the files are small."""
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(FILES, DATASET, tuple(file._replace(size=0) for file in FILES[DATASET]))
    kaggle = Kaggle(dict(released), folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.kaggle = kaggle
        kaggle.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, kaggle.url)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield kaggle
        server.shutdown()


def place_all_but(folder: Path, released: dict[str, bytes], *absent: str) -> None:
    """Lay out the data set as an earlier download would have, for a test that is about the rest."""
    folder.mkdir(parents=True)
    for file in FILES[DATASET]:
        if file.path not in absent:
            (folder / file.name).write_bytes(released[file.path])


def fetch(folder: Path) -> list[str]:
    """Do what `uwml data` does before it checks, and return what it said."""
    said: list[str] = []
    prepare_data(preset(DATASET, data_root=str(folder.parent)), said.append, fetch=True)
    return said


def refused(folder: Path) -> str:
    with pytest.raises(UWMLError) as error:
        fetch(folder)
    return str(error.value)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------------ what is fetched


def test_the_files_asked_for_are_downloaded_and_no_others(kaggle, folder, released, capfd, monkeypatch):
    monkeypatch.setattr(paths, "AUDITS", folder.parent.parent / "audits")
    before = dict(os.environ)
    assert main(["data", "--dataset", DATASET, "--data-root", str(folder.parent)]) == 0
    output = capfd.readouterr()
    assert "train: 40 images of 3 regions x 9 numbers, 2 captions each" in output.out
    assert "dev: 12 images of 3 regions x 9 numbers, 2 captions each" in output.out
    assert output.err == ""  # no bars where nobody is looking
    assert kaggle.asked == [file.path for file in FILES[DATASET]]
    assert names(folder) == NAMES | {VOCABULARY}
    for number, file in enumerate(FILES[DATASET]):
        assert (folder / file.name).read_bytes() == released[file.path]
        whole = {earlier.name for earlier in FILES[DATASET][:number]}
        assert kaggle.there[file.path] - {".download"} == whole, "a name appears only with the whole file"
    assert dict(os.environ) == before
    assert not (folder.parent.parent / ".cache").exists()
    kaggle.asked.clear()
    assert fetch(folder) == []
    assert kaggle.asked == []


def test_what_a_training_needs_is_enough_for_a_folder_filled_by_hand(kaggle, folder, released):
    write_tiny(folder, {"train": 4, "dev": 3})
    assert lacks(folder) == ""
    fetch(folder)
    assert kaggle.asked == []
    (folder / "train_caps.txt").write_text("mine\n" * 8)
    (folder / "dev_ims.npy").unlink()
    for file in FILES[DATASET]:
        if not (folder / file.name).exists() and file.name not in ("dev_ims.npy", "test_ids.txt"):
            (folder / file.name).write_bytes(released[file.path])
    fetch(folder)
    assert kaggle.asked == [f"data/data/{DATASET}/test_ids.txt", f"data/data/{DATASET}/dev_ims.npy"]
    assert (folder / "train_caps.txt").read_text() == "mine\n" * 8


def test_two_at_once_download_once(kaggle, folder, released):
    place_all_but(folder, released, TRAIN)
    others = [threading.Thread(target=fetch, args=(folder,)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert kaggle.asked == [TRAIN]
    download(DATASET, folder)
    assert kaggle.asked == [TRAIN]
    assert names(folder) == NAMES | {VOCABULARY}


def test_a_training_downloads_nothing_and_names_the_command(kaggle, folder):
    config = preset(DATASET, data_root=str(folder.parent))
    with pytest.raises(UWMLError) as error:
        prepare_data(config)
    assert str(folder / "train_caps.txt") in str(error.value)
    assert f"`make data DATASET={DATASET} DATA_ROOT={folder.parent}`" in str(error.value)
    assert kaggle.asked == [] and not folder.exists()


def test_sizes_are_those_of_the_release():
    assert how_to_get("f30k_precomp", "") == "`make data DATASET=f30k_precomp` downloads f30k_precomp (11.5 GB)"
    assert how_to_get("coco_precomp", "/a b") == (
        "`make data DATASET=coco_precomp DATA_ROOT='/a b'` downloads coco_precomp (43.7 GB)"
    )
    assert [file.name for file in FILES["coco_precomp"]][-4:] == [
        "testall_ims.npy", "test_ims.npy", "dev_ims.npy", "train_ims.npy"
    ]  # fmt: skip


def test_a_vocabulary_that_is_not_there_is_left_out_and_said(kaggle, folder, released):
    place_all_but(folder, released, f"vocab/vocab/{VOCABULARY}", TRAIN)
    del kaggle.files[f"vocab/vocab/{VOCABULARY}"]
    assert any(f"not on Kaggle as vocab/vocab/{VOCABULARY}, and left out" in line for line in fetch(folder))
    assert names(folder) == NAMES


# ------------------------------------------------------------------------------------------------------------ going on


def test_a_broken_download_goes_on_where_it_stopped(kaggle, folder, released):
    place_all_but(folder, released, TRAIN)
    large = io.BytesIO()
    np.save(large, np.ones((40, 3, 2**14)))
    kaggle.files[TRAIN] = large.getvalue()
    kaggle.sent[TRAIN] = 3 * 2**20 - 1000
    message = refused(folder)
    assert message.startswith("train_ims.npy: Kaggle cannot be reached, or the connection broke")
    assert "the same command goes on from there. By hand: fetch" in message
    assert "train_ims.npy" not in names(folder)
    kaggle.sent.clear()
    kaggle.asked.clear()
    fetch(folder)
    assert kaggle.asked == [TRAIN]
    assert kaggle.ranges == [(TRAIN, f"bytes={2 * 2**20}-")]  # kagglehub reads a megabyte at a time
    assert (folder / "train_ims.npy").read_bytes() == large.getvalue()
    assert ".download" not in names(folder)


# -------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("damage", ["checksum", "short", "no array", "no text", "no json", "a zip"])
def test_damaged_files_are_removed_and_fetched_again(kaggle, folder, released, damage):
    name, content = {
        "checksum": (TRAIN, released[TRAIN]),
        "short": (TRAIN, released[TRAIN][:-8]),
        "no array": (TRAIN, b"<html>"),
        "no text": (f"data/data/{DATASET}/dev_caps.txt", b"\xff\xfe\xfd"),
        "no json": (f"vocab/vocab/{VOCABULARY}", b"{"),
        "a zip": (TRAIN, archive({"train_ims.npy": released[TRAIN]})),
    }[damage]
    place_all_but(folder, released, name, TRAIN)
    kaggle.files[name] = content
    if damage == "checksum":
        kaggle.md5[name] = b"0" * 16
    message = refused(folder)
    assert message.startswith(f"{Path(name).name}: what Kaggle sent is damaged and was removed (")
    assert "By hand: fetch" in message
    assert not {Path(name).name, ".download"} & names(folder)
    kaggle.files[name] = released[name]
    kaggle.md5.clear()
    fetch(folder)
    assert names(folder) == NAMES | {VOCABULARY}


def test_files_that_kaggle_zips_are_unzipped(kaggle, folder, released):
    kaggle.zipped |= {TRAIN, f"data/data/{DATASET}/dev_caps.txt"}
    place_all_but(folder, released, *kaggle.zipped)
    fetch(folder)
    for name in kaggle.zipped:
        assert (folder / Path(name).name).read_bytes() == released[name]


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "set KAGGLE_API_TOKEN to it or put its kaggle.json into ~/.kaggle/"),
        (403, "set KAGGLE_API_TOKEN to it or put its kaggle.json into ~/.kaggle/"),
        (404, f"Kaggle has no data/data/{DATASET}/test_ids.txt in kuanghueilee/scan-features/versions/1 (404)"),
        (500, "Kaggle answers 500; try again later"),
    ],
)
def test_a_refusal_says_what_to_do(kaggle, folder, status, words):
    kaggle.status["*"] = status
    message = refused(folder)
    assert words in message
    assert message.endswith(by_hand(DATASET, folder))


def test_offline_says_what_to_fetch_from_where_and_where_to_put_it(kaggle, folder, monkeypatch):
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:9")
    message = refused(folder)
    assert message.startswith(f"{VOCABULARY}: Kaggle cannot be reached")
    assert message.endswith(f"put all into {folder}")
    assert "https://www.kaggle.com/datasets/kuanghueilee/scan-features" in message
    assert all(name in message for name in NAMES)
    readme = (Path(__file__).parents[2] / "data/README.md").read_text(encoding="utf-8")
    assert module.PAGE in readme and f"data/data/{DATASET}" in readme  # the same, for who never gets as far


def test_credentials_that_cannot_be_read(kaggle, folder, tmp_path):
    (tmp_path / "kaggle.json").write_text("{")
    assert f"Invalid Kaggle credentials file at {tmp_path / 'kaggle.json'}" in refused(folder)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_asked(kaggle, folder, monkeypatch):
    monkeypatch.setitem(FILES, DATASET, module._files(DATASET))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(20.0e9))
    said = []
    with pytest.raises(UWMLError, match=f"{DATASET}: found 20.0 GB free, expected 20.1: the files, and the largest"):
        download(DATASET, folder, said.append)
    assert said == [f"{DATASET}: 11.5 GB from {module.PAGE} into {folder}, where 20.0 GB are free"]
    assert kaggle.asked == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(20.1e9))
    kaggle.status["*"] = 500
    assert "Kaggle answers 500" in refused(folder)


def test_a_disk_that_fills_up_meanwhile(kaggle, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kagglehub, "dataset_download", full)
    assert "cannot be written (No space left on device)" in refused(folder)


def test_without_kagglehub_one_sentence_says_how_to_get_it(kaggle, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert refused(folder) == "a download needs kagglehub: `make setup`, or pip install '/path/to/the/kit[data]'"


def test_the_downloaded_split_is_the_one_that_was_released(folder, released):
    place_all_but(folder, released)
    dev = load_split(preset(DATASET, data_root=str(folder.parent)), "dev")
    assert (len(dev.features), dev.captions_per_image, dev.ids[:2]) == (12, 2, ["1000", "1001"])
    stored = np.load(io.BytesIO(released[f"data/data/{DATASET}/dev_ims.npy"]))
    assert np.array_equal(dev.features, stored[::2])
