"""Execute the numbered notebooks headlessly and render them; a notebook that failed is never called done."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets.config import Config

from uwml_lib.runs.provenance import library_digest
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import make_folder

EXPERIMENTS = {
    "05_loss_comparison": "compare",
    "06_choosing_coefficients": "compare",
    "07_fidelity": "fidelity",
    "08_other_models": "models",
    "09_video_text": "videos",
}
"""Notebook -> the make target whose runs it shows; all others show those of `make reproduce`."""
TIMEOUT = 1800  # seconds a cell may take


def all_notebooks(name: str | None = None) -> list[Path]:
    """Return the numbered notebooks, in order; those of one make target alone, if named.

    Raises UWMLError if the package was installed without its checkout.
    """
    if not (notebooks := sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))):
        raise UWMLError(
            f"{paths.NOTEBOOKS}: no notebooks here; the pipeline needs the checkout, installed by `pip install -e`"
        )
    return [path for path in notebooks if name in (None, EXPERIMENTS.get(path.stem, "reproduce"))]


def executed(folder: Path) -> list[Path]:
    """Return the executed copies in a folder, in order; damaged ones are left out."""
    return [copy for notebook in all_notebooks() if _key_of(copy := folder / notebook.name)]


def discard_stale(notebooks: Sequence[Path], parameters: dict[str, Any], folder: Path, inputs: str) -> None:
    """Remove executed copies that show something else by now, so that none is taken for done if a later one fails."""
    for notebook in notebooks:
        if not is_current(notebook, parameters, folder, inputs):
            (folder / notebook.name).unlink(missing_ok=True)


def execute(notebook: Path, parameters: dict[str, Any], folder: Path, inputs: str, say: Callable[[str], None]) -> Path:
    """Execute a notebook into `folder` and return the executed copy; one that is current is left alone.

    It is current if it was made from the same notebook, parameters, library and `inputs` (a digest of what it reads).
    Raises UWMLError for parameters the notebook does not have, and if a cell fails: the failed copy is then kept as
    `NAME.failed.ipynb` for reading.
    """
    done, failed = folder / notebook.name, folder / f"{notebook.stem}.failed.ipynb"
    if is_current(notebook, parameters, folder, inputs):
        say(f"{notebook.stem}: executed before")
        return done
    check_parameters(notebook, parameters)
    make_folder(folder)
    done.unlink(missing_ok=True)  # what it shows is out of date
    say(f"{notebook.stem}: executing")
    part = folder / f"{notebook.stem}.part.ipynb"
    try:
        with TemporaryDirectory(prefix="uwml-") as sockets:
            papermill.execute_notebook(
                notebook, part, parameters, kernel_name="python3", cwd=str(paths.NOTEBOOKS), progress_bar=False,
                execution_timeout=TIMEOUT, config=_kernel(sockets),
            )  # fmt: skip
    except (papermill.PapermillExecutionError, DeadKernelError, CellTimeoutError) as error:
        os.replace(part, failed)
        what = f"{error.ename}: {error.evalue}" if isinstance(error, papermill.PapermillExecutionError) else str(error)
        raise UWMLError(f"{notebook.name}: a cell failed with {what} (see {failed})") from error
    content = nbformat.read(part, as_version=4)
    for item in (content, *content.cells):  # times and paths of this machine
        for name in ("papermill", "execution"):
            item.metadata.pop(name, None)
    content.metadata["uwml_key"] = _key(notebook, parameters, inputs)
    nbformat.write(content, part)
    os.replace(part, done)
    failed.unlink(missing_ok=True)
    return done


def is_current(notebook: Path, parameters: dict[str, Any], folder: Path, inputs: str) -> bool:
    """Say whether the copy in `folder` was made from this notebook, these parameters and inputs, and this library."""
    return _key_of(folder / notebook.name) == _key(notebook, parameters, inputs)


def _key_of(copy: Path) -> str | None:
    """The key that an executed copy was made under; None if it is not there or damaged."""
    try:
        return nbformat.read(copy, as_version=4).metadata.get("uwml_key")
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Raise UWMLError, with the nearest right name, for parameters a notebook does not have; papermill only warns."""
    known = list(papermill.inspect_notebook(notebook))
    for name in parameters:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
            raise UWMLError(f"{notebook.name}: has no parameter {name}{hint}")


def _kernel(sockets: str) -> Config:
    """Talk to the kernel through sockets in a folder: no network port, no warning about unencrypted TCP."""
    return Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {})


def _key(notebook: Path, parameters: dict[str, Any], inputs: str) -> str:
    digest = hashlib.sha256(notebook.read_bytes())
    digest.update(json.dumps([library_digest(), parameters, inputs], sort_keys=True).encode())
    return digest.hexdigest()
