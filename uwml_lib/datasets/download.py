"""Flickr30K and MSCOCO in the SCAN layout, from Kaggle: every file whole and checked, or not there at all."""

import contextlib
import io
import logging
import os
import shlex
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import atomic_path, load_array, make_folder, read_json, read_lines
from uwml_lib.support.progress import Say, headless, say


class Remote(NamedTuple):
    """A file of the Kaggle data set: its path there and its bytes; 0 for text, which is a few megabytes at most."""

    path: str
    size: int = 0

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


# What is on Kaggle, all in one place, and UNVERIFIED HERE: it could not be reached while this was written.
# Version: which there are is unknown; 1 is the one every data set has had. (Without a version, every call would ask the
# network, even with all files there.) Folders: public notebooks and scripts that mount or fetch the data set, such as
# aurora2423abc/Image_Captioning, executed in December 2025; that of the vocabularies by analogy alone. Rows of train:
# the number of images, which that notebook prints for COCO; of dev: issue 65 of kuanghuei/SCAN, counted in a download;
# of test and testall: five an image, as public code reads them. Rows only tell how large the disk must be.
HANDLE = "kuanghueilee/scan-features/versions/1"
PAGE = "https://www.kaggle.com/datasets/kuanghueilee/scan-features"
FEATURES, VOCABULARIES = "data/data/{dataset}", "vocab/vocab"
ROWS = {
    "f30k_precomp": {"test": 5_000, "dev": 5_070, "train": 29_000},
    "coco_precomp": {"testall": 25_000, "test": 5_000, "dev": 5_000, "train": 113_287},
}
BYTES_A_ROW = 36 * 2048 * 4  # float32
READERS: dict[str, Callable[[Path], object]] = {
    ".npy": lambda path: load_array(path, 3), ".txt": read_lines, ".json": read_json,
}  # fmt: skip
"""Ending -> what raises UWMLError unless a file is whole: features must be as long as their header says."""
ARRIVALS = ".download"
"""Where what is not whole lies; inside the data set's folder, so that renaming never crosses to another disk."""
KEPT = "What is here is kept, and the same command goes on from there."
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, RuntimeError)  # raised while unzipping


def _files(dataset: str) -> tuple[Remote, ...]:
    """Small files first and the training features last: where those are, the rest is."""
    folder, rows = FEATURES.format(dataset=dataset), ROWS[dataset]
    texts = [Remote(f"{folder}/{split}_{kind}.txt") for split in rows for kind in ("ids", "caps")]
    features = [Remote(f"{folder}/{split}_ims.npy", count * BYTES_A_ROW) for split, count in rows.items()]
    return (Remote(f"{VOCABULARIES}/{dataset}_vocab.json"), *texts, *features)


FILES = {dataset: _files(dataset) for dataset in ROWS}
"""The files of each data set that can be downloaded, in the order in which they are."""


def lacks(folder: Path) -> str:
    """Return the first file that a training needs and the folder lacks; "" where nothing need be downloaded."""
    needed = (f"{split}_{kind}" for split in ("train", "dev") for kind in ("caps.txt", "ims.npy"))
    return next((name for name in needed if not (folder / name).exists()), "")


def how_to_get(dataset: str, data_root: str) -> str:
    """Say which command downloads a data set, and how much that is."""
    return command_for(dataset, data_root, sum(file.size for file in FILES[dataset]))


def command_for(dataset: str, data_root: str, size: int) -> str:
    """Say which command downloads a data set of so many bytes."""
    root = f" DATA_ROOT={shlex.quote(data_root)}" if data_root else ""
    return f"`make data DATASET={dataset}{root}` downloads {dataset} ({size / 1e9:.1f} GB)"


def by_hand(dataset: str, folder: Path) -> str:
    """Say which files to fetch from which page, and where to put them."""
    vocabulary, *names = (file.name for file in FILES[dataset])
    return (
        f"By hand: fetch {', '.join(names)} from {FEATURES.format(dataset=dataset)} of {PAGE} (and, for the authors' "
        f"checkpoints alone, {vocabulary} from {VOCABULARIES}), unzip what comes as .zip, and put all into {folder}"
    )


def download(dataset: str, folder: Path, say: Say = say) -> None:
    """Bring the files that a data set's folder lacks from Kaggle; hold the folder's lock.

    Called again after an interruption it goes on where it stopped; a file that is there is left alone. The released
    vocabulary, which only scoring the authors' checkpoints needs, is passed over with a line if Kaggle lacks it.
    Raises UWMLError where the disk is too small, Kaggle cannot be reached or refuses, or what it sent is damaged.
    """
    if not lacks(folder):  # another process brought it while this one waited for the lock
        return
    missing = [file for file in FILES[dataset] if not (folder / file.name).exists()]
    arrivals = make_folder(folder) / ARRIVALS
    size, largest = sum(file.size for file in missing), max(file.size for file in missing)
    why = "the files, and the largest once more while it is unzipped"
    check_space(folder, PAGE, size, size + largest - bytes_in(arrivals), why, say)
    for number, file in enumerate(missing, 1):
        say(f"{number}/{len(missing)} {file.name}" + (f", {file.size / 1e9:.1f} GB" if file.size else ""))
        if (arrived := _fetch(file, arrivals, by_hand(dataset, folder))) is None:
            say(f"  not on Kaggle as {file.path}, and left out: only scoring the authors' checkpoints needs it")
            continue
        with atomic_path(folder / file.name) as temporary:
            os.replace(arrived, temporary)
    shutil.rmtree(arrivals, ignore_errors=True)


def bytes_in(folder: Path) -> int:
    """Return how many bytes lie in a folder, however deep; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_space(folder: Path, page: str, size: int, needed: int, why: str, say: Say) -> None:
    """Say how much will be downloaded; raise UWMLError, before anything is, if the disk cannot hold it.

    size: of the download, needed: of all that the disk must hold, both in bytes. why: what that is, for the error.
    """
    free = shutil.disk_usage(folder).free
    say(f"{folder.name}: {size / 1e9:.1f} GB from {page} into {folder}, where {free / 1e9:.1f} GB are free")
    expected = f"{needed / 1e9:.1f}: {why}; make room, or name another disk with DATA_ROOT"
    expect(needed <= free, folder, f"{free / 1e9:.1f} GB free", expected)


def bars() -> contextlib.AbstractContextManager[object]:
    """Keep a library's progress bars, on the standard error, where nobody looks at them out of what is written."""
    quiet = headless() or not sys.stderr.isatty()
    return contextlib.redirect_stderr(io.StringIO()) if quiet else contextlib.nullcontext()


def _fetch(file: Remote, arrivals: Path, by_hand: str) -> Path | None:
    """Download one file into `arrivals`, going on where an earlier attempt stopped, check it, and return where it lies.

    kagglehub unzips what Kaggle has zipped. Returns None for a vocabulary that Kaggle lacks. Raises UWMLError, ending
    in the words `by_hand`; what is damaged is removed before.
    """
    from unittest import mock  # slow to import

    try:
        import kagglehub
        import requests
        from kagglehub.exceptions import DataCorruptionError
    except ModuleNotFoundError as error:
        raise UWMLError("a download needs kagglehub: `make setup`, or pip install '/path/to/the/kit[data]'") from error

    logging.getLogger("kagglehub").setLevel(logging.WARNING)
    # It reads the folder from here alone: its `output_dir` refuses to go on with a file that is there in part.
    settings = {"KAGGLEHUB_CACHE": str(arrivals), "DISABLE_KAGGLE_CACHE": "1", "DISABLE_COLAB_CACHE": "1"}
    kept = f"{KEPT} {by_hand}"
    try:
        with mock.patch.dict(os.environ, settings), bars():
            arrived = Path(kagglehub.dataset_download(HANDLE, path=file.path))
        READERS[arrived.suffix](arrived)
        return arrived
    except requests.HTTPError as error:
        status = error.response.status_code  # type: ignore[union-attr]  # raised for an answer, which it carries
        if status == 404 and file.path.startswith(VOCABULARIES):
            return None
        raise UWMLError(f"{file.name}: {_reason(status, file)} {kept}") from error
    except requests.RequestException as error:
        reason = f"Kaggle cannot be reached, or the connection broke ({type(error).__name__})"
        raise UWMLError(f"{file.name}: {reason}. {kept}") from error
    except (DataCorruptionError, UWMLError, *DAMAGED) as error:
        shutil.rmtree(arrivals)  # the next attempt must not go on from it
        found = " ".join(str(error).split()).split(f"{file.name}: ")[-1]
        said = f"what Kaggle sent is damaged and was removed ({found}); the same command fetches it again"
        raise UWMLError(f"{file.name}: {said}. {by_hand}") from error
    except OSError as error:
        raise UWMLError(f"{file.name}: cannot be written ({error.strerror}). {kept}") from error
    except ValueError as error:  # credentials that are no JSON
        raise UWMLError(f"{file.name}: {error}. {kept}") from error


def _reason(status: int, file: Remote) -> str:
    if status in (401, 403):
        where = "set KAGGLE_API_TOKEN to it or put its kaggle.json into ~/.kaggle/"
        token = f"make a token at https://www.kaggle.com/settings, and {where}"
        return f"Kaggle refuses ({status}), for want of credentials or because those here are not good: {token}."
    if status == 404:
        return f"Kaggle has no {file.path} in {HANDLE} (404); mend the names in uwml_lib/datasets/download.py."
    return f"Kaggle answers {status}; try again later."
