"""`uwml doctor`: can this machine run the kit, and if not, what to do."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil

from uwml_lib.config import preset
from uwml_lib.datasets import EMBEDDED, captions_there, check_data
from uwml_lib.datasets.digits.embedded import is_current
from uwml_lib.datasets.vocabulary import NLTK_DATA, available_tokenizer
from uwml_lib.runs.provenance import device_name, package_version, this_device
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError

NEEDED_MEMORY, NEEDED_DISK = 2e9, 1e9  # bytes: two trainings on scenes side by side; data and runs of scenes
PACKAGES = ("torch", "numpy", "accelerate", "safetensors", "scikit-learn", "nltk", "papermill", "nbconvert")


class Check(NamedTuple):
    """One line: what was looked at, whether it will do, what was found, and what to do if it will not."""

    name: str
    ok: bool
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = "" if self.ok or not self.advice else f": {self.advice}"
        return f"[{'OK' if self.ok else 'FAIL'}] {self.name}: {self.found}{advice}"


def doctor(dataset: str = "scenes", data_root: str = "") -> dict[str, list[str]]:
    """Say whether this machine can run the kit, line by line, and what to do where it cannot.

    Args:
        dataset: scenes, or the name of a folder in the SCAN layout.
        data_root: Folder that holds the data set's folder; empty means data/.
    """
    checks = []
    for check in examine(dataset, data_root):
        print(check, flush=True)
        checks.append(check)
    if failed := sum(not check.ok for check in checks):
        raise UWMLError(f"{failed} of the lines above say FAIL")
    return {"checks": [str(check) for check in checks]}


def examine(dataset: str = "scenes", data_root: str = "") -> Iterator[Check]:
    """Look at Python, the packages, the device, memory, disk, writable folders, the data set and the tokenizer."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", sys.version_info >= (3, 11), found, "take 3.11 or newer: make setup PYTHON=python3.12")
    missing = [name for name in PACKAGES if package_version(name) is None]
    words = f"{', '.join(missing)} not installed" if missing else f"torch {package_version('torch')} and all others"
    yield Check("packages", not missing, words, "make setup")
    yield Check("device", True, f"{device_name(this_device())}, {os.cpu_count()} cores")
    memory = psutil.virtual_memory().available
    yield Check(
        "memory", memory >= NEEDED_MEMORY, f"{memory / 1e9:.1f} GB free", "close other programs; 2 GB are needed"
    )
    for name, folder in (("data folder", paths.DATA), ("report folder", paths.REPORTS)):
        yield _writable(name, folder)
    disk = shutil.disk_usage(_existing(paths.REPORTS)).free
    yield Check("disk", disk >= NEEDED_DISK, f"{disk / 1e9:.1f} GB free", "make room; 1 GB is needed")
    yield _data(dataset, data_root)
    punkt = available_tokenizer() == "punkt"
    optional = dataset in EMBEDDED and not data_root
    words = "there" if punkt else "not there" + (f" ({dataset} does not need it)" if optional else "")
    advice = f"make setup tries to download it; by hand, put tokenizers/punkt_tab into {NLTK_DATA}"
    yield Check("Punkt sentence tokenizer", punkt or optional, words, advice)


def _data(dataset: str, data_root: str) -> Check:
    try:
        config = preset(dataset, data_root=data_root)
        if dataset in EMBEDDED and not data_root and not is_current(config.data_folder, EMBEDDED[dataset]):
            return Check("data", True, f"{dataset} will be built by the first run")
        config = replace(config, captions=captions_there(config.data_folder))
        sizes = [f"{split.split} {len(split.features):,}" for split in check_data(config, scan=False)]
    except UWMLError as error:
        return Check("data", False, str(error), "data/README.md describes the files")
    return Check("data", True, f"{dataset}, images: {', '.join(sizes)}")


def _writable(name: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            pass
    except OSError as error:
        return Check(
            name, False, f"{folder} ({error.strerror})", "mend its permissions or set UWML_HOME to another folder"
        )
    return Check(name, True, f"{folder}")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())
