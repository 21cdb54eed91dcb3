"""Run `uwml` as a user would, in a fork that has imported torch already or, where asked, in a process of its own."""

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from unittest import mock

from uwml_lib.cli import main
from uwml_lib.support import paths

PRELOADED = ("uwml_lib.studies", "nltk", "torch._dynamo")  # the last two only when a training begins, else
COMMAND = (sys.executable, "-m", "uwml_lib.cli")


def uwml(home: Path, *arguments: str, largest_file: int | None = None) -> subprocess.CompletedProcess:
    """Run a command with a folder as its UWML_HOME. A file larger than `largest_file` bytes fails to grow, as on a full
    disk. The trainings of a study are forks too.
    """
    if not hasattr(os, "fork"):
        return uwml_anew(home, *arguments)
    for name in PRELOADED:
        importlib.import_module(name)
    output, errors = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads, which lie idle
        child = os.fork()
    if not child:
        _run_in_fork(home, arguments, largest_file, output[1], errors[1])
    texts: dict[int, str] = {}
    readers = [Thread(target=_read, args=(end, texts)) for end in (output, errors)]
    for reader in readers:
        reader.start()
    _, status = os.waitpid(child, 0)
    for reader in readers:
        reader.join()
    return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), texts[output[0]], texts[errors[0]])


def uwml_anew(home: Path, *arguments: str, wrapper: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """Run a command in a process that imports everything itself; wrapper: a program that runs it."""
    environment = {**os.environ, "UWML_HOME": str(home)}
    command = [*wrapper, *COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _read(end: tuple[int, int], texts: dict[int, str]) -> None:
    os.close(end[1])
    with os.fdopen(end[0], encoding="utf-8") as file:
        texts[end[0]] = file.read()


def _run_in_fork(home: Path, arguments: Sequence[str], largest_file: int | None, output: int, errors: int) -> None:
    code = 1
    gc.freeze()  # what lies about belongs to the parent: a V8 engine aborts if it is collected without its threads
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        sys.stdout, sys.stderr = (os.fdopen(end, "w", encoding="utf-8", buffering=1) for end in (1, 2))
        os.environ["UWML_HOME"] = str(home)
        importlib.reload(paths)
        if largest_file is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
        with mock.patch.object(multiprocessing, "get_context", lambda _: multiprocessing.context.ForkContext()):
            code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
