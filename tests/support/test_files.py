"""Files that appear whole or not at all, JSON that says what is wrong with it, and one process a folder."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from uwml_lib.datasets.raw.grid_features import load_picture
from uwml_lib.datasets.raw.npz_files import read_npz
from uwml_lib.released.checkpoints import load_released_checkpoint
from uwml_lib.runs.checkpoints import load_state
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import (
    atomic_folder,
    atomic_path,
    check_files,
    load_array,
    lock,
    make_folder,
    read_json,
    read_lines,
    read_sealed_json,
    sha256_of,
    write_json,
    write_sealed_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------ whole or not at all


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with atomic_folder(path) as temporary:
            (temporary / content).mkdir()
            write_text(temporary / content / "file.txt", content)
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "folder"
    with atomic_folder(path) as temporary:
        write_text(temporary / "old", "")
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as temporary:
        write_text(temporary / "half", "")
        raise ZeroDivisionError
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_be_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    with atomic_folder(path) as temporary:
        write_text(temporary / "old", "")
    replace = os.replace

    def replace_but_not_the_new(source, target):
        if str(source).endswith(".part") and target == path:
            raise PermissionError("no")
        replace(source, target)

    with pytest.raises(UWMLError, match="folder: cannot be written"), atomic_folder(path):  # noqa: PT012
        monkeypatch.setattr(os, "replace", replace_but_not_the_new)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_left_overs_of_a_killed_process_do_no_harm(tmp_path):
    part = tmp_path / ".folder.part"
    part.mkdir()
    (part / "half").touch()
    (tmp_path / ".file.part").write_text("half")
    with atomic_folder(tmp_path / "folder") as temporary:
        write_text(temporary / "file", "")
    write_text(tmp_path / "file", "whole")
    assert names(tmp_path / "folder") == ["file"]
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "whole"


def test_killed_between_the_two_renames_the_old_folder_comes_back(tmp_path):
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "old").touch()
    with pytest.raises(RuntimeError, match="stop"), atomic_folder(tmp_path / "folder"):
        raise RuntimeError("stop")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["old"]


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UWMLError, match="cannot make this folder") as error:
            make_folder(path)
        assert str(path) in str(error.value)
    with pytest.raises(UWMLError, match="cannot make this folder"):
        write_text(tmp_path / "file" / "x.txt", "")
    assert make_folder(tmp_path / "new" / "folder").is_dir()


# ------------------------------------------------------------------------------------------------ JSON


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, "café"], "b": {"c": True}}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert (tmp_path / "value.json").read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "value.json").write_text('{"a": "café"}', encoding=encoding)
    assert read_json(tmp_path / "value.json") == {"a": "café"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(tmp_path, number):
    write_json(tmp_path / "value.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"a": number})
    assert read_json(tmp_path / "value.json") == {"a": 1}
    assert names(tmp_path) == ["value.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as JSON"),
        (b'{"a": 1', "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not readable as JSON"),
        (b'{"a": [{"b": 1, "c": 2, "b": 3}]}', "the key 'b' stands more than once in an object, with 1 and 3"),
        (b"[1]", "expected a JSON dict at the top level, found list"),
        (b"null", "expected a JSON dict at the top level, found NoneType"),
    ],
)
def test_broken_json(tmp_path, content, message):
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(UWMLError, match=message) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ")


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(UWMLError, match="absent.json: no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(UWMLError, match="not readable, for it is a folder"):
        read_json(tmp_path)
    write_json(tmp_path / "list.json", [1])
    assert read_json(tmp_path / "list.json", list) == [1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among files here")
@pytest.mark.parametrize("read", [read_json, load_state, read_lines, lambda path: load_array(path, 3)])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(UWMLError, match=f"{name}: not readable, for it is no regular file"):
            read(tmp_path / name)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 8531000128\n" % 0
READERS = {
    "array": lambda path: load_array(path, 3), "npz": read_npz, "picture": load_picture, "state": load_state,
    "released": load_released_checkpoint, "JSON": read_json, "lines": read_lines,
}  # fmt: skip


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "is a web page, not the file itself; download that again"),
        (b"\xef\xbb\xbf<HTML>404", "is a web page, not the file itself; download that again"),
    ],
)
def test_what_a_clone_or_a_download_left_in_place_of_a_file_is_named(tmp_path, read, content, words):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UWMLError) as error:
        read(path)
    assert str(error.value) == f"{path}: {words}"


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x04]\x94.", b"PK\x03\x04", b"\x93NUM"])
def test_nobody_is_advised_to_unpickle_what_is_no_array(tmp_path, content):
    path = tmp_path / "file.npy"
    path.write_bytes(content)
    with pytest.raises(UWMLError, match=r"file\.npy: (found an empty file|not readable as a \.npy array)") as error:
        load_array(path, 2)
    assert "pickle" not in str(error.value)


def test_through_a_link_the_file_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for number in range(3):
        with atomic_folder(tmp_path / "link") as temporary:
            write_text(temporary / "file", str(number))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/file").read_text() == "2"
    assert names(tmp_path) == ["link", "real"]


def test_through_a_link_a_file_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


# ------------------------------------------------------------------------------------------------ as they were written


def test_sealed_json_that_was_changed_since(tmp_path):
    path = tmp_path / "results.json"
    write_sealed_json(path, {"rsum": 400.0})
    assert read_sealed_json(path) == {"rsum": 400.0}
    path.write_text(path.read_text().replace("400", "500"))
    with pytest.raises(UWMLError, match="results.json: was changed after it was written"):
        read_sealed_json(path)


def test_files_that_were_changed_since(tmp_path):
    (tmp_path / "a").write_text("a")
    digests = {"a": sha256_of(tmp_path / "a")}
    check_files(tmp_path, digests)
    (tmp_path / "a").write_text("b")
    with pytest.raises(UWMLError, match="a: was changed after it was written"):
        check_files(tmp_path, digests)


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    (tmp_path / "captions.txt").write_bytes("one\u2028still one\r\ntwo\x0cstill two\n\n".encode())
    assert read_lines(tmp_path / "captions.txt") == ["one\u2028still one", "two\x0cstill two", ""]


@pytest.mark.parametrize("change", [-4, 4])
def test_an_array_that_is_shorter_or_longer_than_it_says(tmp_path, change):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((3, 2), np.float32))
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(UWMLError, match="x.npy: "):
        load_array(path, 2)


# ------------------------------------------------------------------------------------------------ one process a folder

HOLD = """
import sys, time
from pathlib import Path
from uwml_lib.support.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_says_so_and_waits(tmp_path):
    folder, said, entered = tmp_path / "run", [], threading.Event()

    def enter():
        with lock(folder, said.append):
            entered.set()

    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=enter)
        waiting.start()
        time.sleep(0.3)
        assert not entered.is_set()
        assert said == ["run: another process is at work here; waiting for it"]
        other.stdin.close()
        waiting.join(timeout=30)
    assert entered.is_set()


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
    said = []
    with lock(tmp_path / "run", said.append):
        assert said == []


def test_who_holds_a_lock_may_take_it_again_and_others_wait_until_the_end(tmp_path):
    taken = threading.Event()

    def take() -> None:
        with lock(tmp_path / "run", said.append):
            taken.set()

    said = []
    with lock(tmp_path / "run"):
        other = threading.Thread(target=take)
        with lock(tmp_path / "run", lambda line: pytest.fail(line)):
            pass
        other.start()
        assert not taken.wait(0.1), "taking it again, and giving it back, gave it up"
    other.join()
    assert taken.is_set() and said == ["run: another process is at work here; waiting for it"]


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "run"):
        raise ZeroDivisionError
    said = []
    with lock(tmp_path / "run", said.append), lock(tmp_path / "other", said.append):
        assert said == []
