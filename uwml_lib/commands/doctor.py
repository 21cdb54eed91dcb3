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
from uwml_lib.datasets import EMBEDDED, captions_there, check_data, prepare_data
from uwml_lib.datasets.digits.embedded import is_current
from uwml_lib.datasets.vocabulary import NLTK_DATA, available_tokenizer
from uwml_lib.runs.provenance import device_name, package_version, this_device
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.numerics import QUICK_WIDTH, has_bf16_instructions, quick_precision
from uwml_lib.support.progress import counted

NEEDED_MEMORY, NEEDED_DISK = 2e9, 1e9  # bytes: two trainings on scenes side by side; data and runs of scenes
PACKAGES = ("torch", "numpy", "accelerate", "safetensors", "scikit-learn", "nltk", "papermill", "sphinx")


class Check(NamedTuple):
    """One line: what was looked at, whether it will do, what was found, and what to do if it will not."""

    name: str
    ok: bool
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"[OK] {self.name}: {self.found}" if self.ok else f"[FAIL] {self.name}: {self.found}: {self.advice}"


def doctor(dataset: str = "scenes", data_root: str = "") -> dict[str, list[str]]:
    """Check whether this machine can run the kit, and say what to do if it cannot.

    Args:
        dataset: scenes, or the name of a folder in the SCAN layout.
        data_root: Folder that holds the data set's folder; empty means data/.
    """
    checks = []
    for check in examine(dataset, data_root):
        print(check, flush=True)
        checks.append(check)
    if failed := sum(not check.ok for check in checks):
        raise UWMLError(f"{counted(failed, 'check')} failed; see the lines that begin with [FAIL]")
    return {"checks": [str(check) for check in checks]}


def examine(dataset: str = "scenes", data_root: str = "") -> Iterator[Check]:
    """Look at Python, the packages, the device, memory, disk, writable folders, the data set and the tokenizer."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield Check("Python", sys.version_info >= (3, 11), found, "take 3.11 or newer: make setup PYTHON=python3.12")
    missing = [name for name in PACKAGES if package_version(name) is None]
    words = f"{', '.join(missing)} not installed" if missing else f"torch {package_version('torch')} and all others"
    yield Check("packages", not missing, words, "make setup")
    yield Check("device", True, f"{device_name(this_device())}, {os.cpu_count()} cores")
    quick = quick_precision("auto") == "bf16"
    precision = f"bf16 from width {QUICK_WIDTH} on" if quick else "float32"
    words = "instructions for bf16" if has_bf16_instructions() else "no instructions for bf16"
    yield Check("precision", True, f"the CPU has {words}; --mixed-precision auto trains in {precision}")
    free, advice = psutil.virtual_memory().available, "close other programs; 2 GB are needed"
    yield Check("memory", free >= NEEDED_MEMORY, f"{free / 1e9:.1f} GB free", advice)
    yield _writable("data folder", paths.DATA)
    yield _writable("report folder", paths.REPORTS)
    free = shutil.disk_usage(_existing(paths.REPORTS)).free
    yield Check("disk", free >= NEEDED_DISK, f"{free / 1e9:.1f} GB free", "make room; 1 GB is needed")
    optional = dataset in EMBEDDED and not data_root
    yield _data(dataset, data_root, optional)
    punkt = available_tokenizer() == "punkt"
    words = "there" if punkt else "not there" + f" ({dataset} does not need it)" * optional
    advice = f"make setup tries to download it; by hand, put tokenizers/punkt_tab into {NLTK_DATA}"
    yield Check("Punkt sentence tokenizer", punkt or optional, words, advice)


def _data(dataset: str, data_root: str, embedded: bool) -> Check:
    try:
        config = preset(dataset, data_root=data_root)
        if embedded and not is_current(config.data_folder, EMBEDDED[dataset]):
            return Check("data", True, f"{dataset} will be built by the first run")
        if not embedded:
            prepare_data(config)
        config = replace(config, captions=captions_there(config.data_folder))
        sizes = [f"{split.split} {len(split.features):,}" for split in check_data(config, scan=False)]
    except UWMLError as error:
        return Check("data", False, str(error), "data/README.md describes the files")
    return Check("data", True, f"{dataset}, images: {', '.join(sizes)}")


def _writable(name: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return Check(name, True, f"{folder}")
    except OSError as error:
        advice = "mend its permissions or set UWML_HOME to another folder"
        return Check(name, False, f"{folder} ({error.strerror})", advice)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())
