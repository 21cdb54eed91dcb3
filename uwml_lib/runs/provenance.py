"""Where a number comes from: command, versions, commit, machine."""

import functools
import hashlib
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from uwml_lib.datasets.audit import audit_of
from uwml_lib.support.numerics import this_device
from uwml_lib.support.paths import CHECKOUT

LIBRARY = CHECKOUT / "uwml_lib"
PACKAGES = ("torch", "numpy", "accelerate", "scikit-learn", "nltk")


def provenance(device: torch.device | str, data: str = "") -> dict[str, Any]:
    """Return the command, the versions, a digest of the library, the git commit, the machine and the time.

    data: fingerprint of the data, if what `uwml data` found in them is to be told: under "audit", None if it was not
    asked.

    clean_tree: no tracked file was changed, and the library has no file unknown to git; None, like the commit, where
    the kit does not lie in a git checkout of its own.
    """
    own = _git("rev-parse", "--show-toplevel") == str(CHECKOUT)
    changes = [_git("status", "--porcelain", *more) for more in (["--untracked-files=no"], ["--", str(LIBRARY)])]
    return {
        "command": _command(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "library": library_digest(),
        "commit": _git("rev-parse", "HEAD") if own else None,
        "clean_tree": changes == ["", ""] if own else None,
        "machine": f"{platform.system()} {platform.machine()}, {device_name(device)}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **({"audit": audit_of(data)} if data else {}),
    }


@functools.cache
def library_digest() -> str:
    """Return a digest of the source of this library, as it lies on the disk."""
    digest = hashlib.sha256()
    for source in sorted([*LIBRARY.rglob("*.py"), *LIBRARY.rglob("*.mplstyle")]):
        digest.update(source.relative_to(LIBRARY).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def environment() -> str:
    """Say in one line which versions and which device a notebook runs on."""
    versions = ", ".join(f"{name} {package_version(name)}" for name in ("uwml-kit", "torch", "numpy"))
    return f"Python {platform.python_version()}, {versions}; {device_name(this_device())}"


def device_name(device: torch.device | str) -> str:
    """Return the name of a graphics card, or the kind of the device."""
    kind = torch.device(device).type
    return torch.cuda.get_device_name(device) if kind == "cuda" else kind.upper()


def package_version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _command() -> str:
    """The command as it is typed, but for absolute paths: a script of the checkout by its path, else `uwml`."""
    script, program = Path(sys.argv[0]).resolve(), ["uwml"]
    if script.suffix == ".py" and script.is_relative_to(CHECKOUT) and not script.is_relative_to(LIBRARY):
        program = ["python", script.relative_to(CHECKOUT).as_posix()]
    return shlex.join([*program, *map(_without_place, sys.argv[1:])])


def _without_place(word: str) -> str:
    """A word of a command; of an absolute path what says nothing of this machine, for runs are published."""
    option, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return word
    shown = path.relative_to(CHECKOUT).as_posix() if path.is_relative_to(CHECKOUT) else f".../{path.name}"
    return option + equals + shown


def _git(*arguments: str) -> str | None:
    try:
        words = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.check_output(words, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
