"""Execute the numbered notebooks headlessly and render them; a notebook that failed is never called done."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from modulefinder import ModuleFinder
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets.config import Config

from uwml_lib.config import nearest
from uwml_lib.datasets import EMBEDDED
from uwml_lib.reports.site.sources import key_of
from uwml_lib.studies.side_by_side import workers
from uwml_lib.studies.study import Study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import make_folder
from uwml_lib.support.paths import CHECKOUT
from uwml_lib.support.progress import Say, headless

TIMEOUT = 1800  # seconds a cell may take
READ_NO_DATA = ("00_start_here", "06_twelve_losses", "13_your_own_photographs")
"""They show the same for every data set, so they are executed for the kit's own alone."""


def paths_of(study: Study, dataset: str) -> list[Path]:
    """Return the notebooks that show a study of a data set; raises UWMLError for a package without its checkout."""
    stems = [stem for stem in study.notebooks if dataset in EMBEDDED or stem not in READ_NO_DATA]
    notebooks = [paths.NOTEBOOKS / f"{stem}.ipynb" for stem in stems]
    if missing := [path for path in notebooks if not path.exists()]:
        raise UWMLError(f"{missing[0]}: no such notebook; a study needs the checkout, installed by `pip install -e`")
    return notebooks


def execute_all(notebooks: Sequence[Path], parameters: dict[str, Any], folder: Path, inputs: str, say: Say) -> None:
    """Execute notebooks into `folder`, see `execute`, as many at a time as there are cores for.

    Copies that show something else by now go first, so that none is taken for done if another one fails. Of several
    that fail, the error is that of the first.
    """
    for notebook in notebooks:
        if not is_current(notebook, parameters, folder, inputs):
            (folder / notebook.name).unlink(missing_ok=True)
    with headless_kernels(), ThreadPoolExecutor(workers(1)) as pool:  # each waits for a kernel, a process of its own
        done = [pool.submit(execute, notebook, parameters, folder, inputs, say) for notebook in notebooks]
        try:
            for each in done:
                each.result()
        except BaseException:  # Ctrl-C too
            pool.shutdown(cancel_futures=True)
            raise


def execute(notebook: Path, parameters: dict[str, Any], folder: Path, inputs: str, say: Say) -> Path:
    """Execute a notebook into `folder` and return the executed copy; one that is current is left alone.

    It is current if it was made from the same notebook, parameters, `inputs` (a digest of what it reads) and code: the
    modules of this library that it imports, and those that they import. Raises UWMLError for parameters that the
    notebook does not have, and if a cell fails: the failed copy is then kept as `NAME.failed.ipynb` for reading.
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
        with TemporaryDirectory(prefix="uwml-") as sockets, headless_kernels():
            # Sockets in a folder instead of TCP: no network port, and no warning that it is not encrypted.
            sockets_of = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}
            whole = [str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, part)]  # which it formats
            papermill.execute_notebook(
                *whole, parameters, kernel_name="python3", cwd=str(paths.NOTEBOOKS), progress_bar=False,
                execution_timeout=TIMEOUT, config=Config(KernelManager=sockets_of),
                shutdown_kernel="immediate",  # else it is interrupted first, and may say so as an error
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


@contextlib.contextmanager
def headless_kernels() -> Iterator[None]:
    """Let kernels that are started know that nobody looks; within another one it changes nothing."""
    with contextlib.nullcontext() if headless() else mock.patch.dict(os.environ, UWML_HEADLESS="1"):
        yield


def is_current(notebook: Path, parameters: dict[str, Any], folder: Path, inputs: str) -> bool:
    """Say whether the copy in `folder` was made from this notebook, these parameters and inputs, and this code."""
    return key_of(folder / notebook.name) == _key(notebook, parameters, inputs)


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Raise UWMLError, with the nearest right name, for parameters a notebook does not have; papermill only warns."""
    known = papermill.inspect_notebook(notebook)
    for name in parameters:
        if name not in known:
            raise UWMLError(f"{notebook.name}: has no parameter {name}; {nearest(name, list(known))}")


def _key(notebook: Path, parameters: dict[str, Any], inputs: str) -> str:
    digest = hashlib.sha256(notebook.read_bytes())
    digest.update(json.dumps([parameters, inputs], sort_keys=True).encode())
    cells = nbformat.read(notebook, as_version=4).cells
    for source in sorted(sources_of("\n".join(cell.source for cell in cells if cell.cell_type == "code"))):
        digest.update(source.relative_to(CHECKOUT).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()


@functools.cache
def sources_of(code: str) -> frozenset[Path]:
    """The files of this library that the result of code depends on: what it imports, and what that imports."""
    finder: Any = ModuleFinder([str(CHECKOUT)])
    with TemporaryDirectory(prefix="uwml-") as folder:
        script = Path(folder) / "cells.py"
        script.write_text(code, encoding="utf-8")
        finder.run_script(str(script))
    if "uwml_lib.cli" in finder.modules:  # which imports a command when it is called
        for command in sorted((CHECKOUT / "uwml_lib" / "commands").glob("*.py")):
            finder.import_hook(f"uwml_lib.commands.{command.stem}")
    seen: set[str] = set()
    found: set[Path] = set()
    while new := {name for name in finder.modules if name.startswith("uwml_lib")} - seen:
        seen |= new
        for name in new:
            found.add(source := Path(finder.modules[name].__file__))
            if source.name == "__init__.py" and "__getattr__" in source.read_text("utf-8"):  # looked up when asked for
                finder.import_hook(name, fromlist=["*"])
                found |= {*source.parent.glob("*.mplstyle")}
    return frozenset(found)
