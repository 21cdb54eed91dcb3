"""Files that appear whole or not at all, and JSON that says what is wrong with it."""

import contextlib
import hashlib
import json
import os
import reprlib
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from uwml_lib.support.errors import UWMLError, expect

IN_PLACE_OF_A_FILE = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`",
    b"<!doctype html": "a web page, not the file itself; download that again",
    b"<html": "a web page, not the file itself; download that again",
}
"""First bytes, lower case, of what a clone or a download may leave under the name of a file -> what that is."""


@contextlib.contextmanager
def atomic_path(path: Path | str, also: type[Exception] = OSError) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, else removed.

    The next process overwrites what a killed one leaves; hold the folder's lock. also: what a library raises on a full
    disk, besides OSError. Raises UWMLError, naming the file, if it cannot be written.
    """
    path = Path(path).resolve()  # through a link, what it leads to is replaced, not the link
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.part")
    with writing(path, also):
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of `path`, else it is removed; see `atomic_path`."""
    path = Path(path).resolve()
    make_folder(path.parent)
    temporary, retired = (path.with_name(f".{path.name}.{kind}") for kind in ("part", "old"))

    def tidy() -> None:
        if retired.exists() and not path.exists():  # stopped or killed between the two renames below
            os.replace(retired, path)
        for folder in (temporary, retired):
            shutil.rmtree(folder, ignore_errors=True)

    with writing(path), contextlib.ExitStack() as afterwards:
        tidy()
        afterwards.callback(tidy)
        temporary.mkdir()
        yield temporary
        for file in filter(Path.is_file, temporary.rglob("*")):
            _sync(file)
        if path.exists():
            os.replace(path, retired)
        os.replace(temporary, path)


@contextlib.contextmanager
def writing(path: Path, also: type[Exception] = OSError) -> Iterator[None]:
    """Turn what the system says of a full disk, a quota or a missing permission into a sentence."""
    try:
        yield
    except (OSError, also) as error:
        reason = getattr(error, "strerror", None) or f"is the disk full? {error}"
        raise UWMLError(f"{path}: cannot be written ({reason}); what was there before is kept") from error


def _sync(path: Path) -> None:
    with open(path, "r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def check_is_file(path: Path) -> None:
    """Raise UWMLError unless there is a file that may be read, and no pointer of Git LFS or web page in its place.

    Reading a pipe or a device might never end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise UWMLError(f"{path}: not readable, for it is {kind}")
        with path.open("rb") as file:
            start = file.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    except FileNotFoundError as error:
        raise UWMLError(f"{path}: no such file") from error
    except OSError as error:
        raise UWMLError(f"{path}: not readable ({error.strerror})") from error
    for beginning, what in IN_PLACE_OF_A_FILE.items():
        if start.startswith(beginning):
            raise UWMLError(f"{path}: is {what}")


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; a file in the way or a missing permission is a `UWMLError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UWMLError(f"{path}: cannot make this folder ({error.strerror}); choose another or mend it") from error
    return path


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_lines(path: Path | str, lines: Iterable[str]) -> None:
    """Write UTF-8 lines atomically."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_lines(path: Path) -> list[str]:
    """Read UTF-8 lines without their ends, or a byte order mark; raises UWMLError naming the file."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UWMLError(f"{path}: not readable as UTF-8 text ({error})") from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_bytes(path: Path) -> bytes:
    """Read a file; raises UWMLError naming it."""
    check_is_file(path)
    return path.read_bytes()


def load_array(path: Path, *dimensions: int) -> np.ndarray:
    """Memory-map an array of real numbers with one of these numbers of dimensions; raises UWMLError naming the file."""
    check_is_file(path)
    expect(path.stat().st_size, path, "an empty file", "an array of numpy's, .npy")
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # np.load would advise to unpickle what is no array
    except Exception as error:  # numpy's parser of a damaged header raises many kinds
        raise UWMLError(f"{path}: not readable as a .npy array ({error})") from error
    if array.ndim not in dimensions or array.dtype.kind not in "fiu" or not array.size:
        wanted = " or ".join(map(str, dimensions))
        of_numbers = f"real numbers, at least one, in {wanted} dimensions"
        raise UWMLError(f"{path}: found {array.dtype} {array.shape}, expected {of_numbers}")
    if (expected := array.offset + array.nbytes) != (size := path.stat().st_size):
        raise UWMLError(f"{path}: found {size:,} bytes, expected {expected:,} for {array.shape}")
    return array


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, for they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str, kind: type = dict) -> Any:
    """Read a JSON file whose top level is `kind`; raises `UWMLError` if it is missing, broken or of another shape."""
    value = parse_json(path, read_bytes(Path(path)))
    if not isinstance(value, kind):
        raise UWMLError(f"{path}: expected a JSON {kind.__name__} at the top level, found {type(value).__name__}")
    return value


def parse_json(where: Path | str, content: str | bytes) -> Any:
    """Parse JSON, of bytes with or without a byte order mark; raises UWMLError naming where it stands."""
    try:  # int refuses NaN and Infinity, which are no JSON
        return json.loads(content, parse_constant=int, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UWMLError(f"{where}: not readable as JSON ({error})") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its pairs, as `object_pairs_hook`; raises UWMLError if a key stands there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        both = " and ".join(reprlib.repr(value) for key, value in pairs if key == twice)
        raise UWMLError(f"the key {reprlib.repr(twice)} stands more than once in an object, with {both}")
    return values


@contextlib.contextmanager
def lock(folder: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a folder for this process alone; a second process says so, waits, and goes on when the first is done.

    Who holds it may take it once more, in the same thread.
    """
    folder = folder.resolve()  # one lock, whatever links lead here
    make_folder(folder.parent)
    guard = FileLock(folder.parent / f".{folder.name}.lock", is_singleton=True)
    try:
        held = guard.acquire(blocking=False)
    except Timeout:
        say(f"{folder.name}: another process is at work here; waiting for it")
        held = guard.acquire()
    with held:
        yield


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raises UWMLError naming it."""
    check_is_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise UWMLError, naming the file, if a file of a folder is gone or does not have the SHA-256 noted for it."""
    for name, digest in digests.items():
        path = folder / name
        if sha256_of(path) != digest:
            raise UWMLError(f"{path}: was changed after it was written; remove {folder} to run again")


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON with a digest of itself under the key `seal`."""
    write_json(path, {**value, "seal": seal_of(value)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read what `write_sealed_json` wrote, without the seal; raises UWMLError if it was changed since."""
    value = read_json(path)
    seal = value.pop("seal", None)
    if seal != seal_of(value):
        raise UWMLError(f"{path}: was changed after it was written; remove it, and the same command makes it anew")
    return value


def seal_of(value: Any) -> str:
    """Return the SHA-256 of plain values, in whatever order they are."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
