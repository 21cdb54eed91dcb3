"""Everything that a graphics card can show of this kit, in at most eight minutes: see `gpu.sh`, which starts this.

The parts run one after the other, in order of worth, each in a process of its own with a limit of its own. What a part
finds it writes at once, so that a part which fails, or is stopped, leaves what it had; the others go on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import make_folder, read_json, write_json, write_text
from uwml_lib.support.paths import CHECKOUT

LIMITS = {"checks": 80, "steps": 125, "scoring": 60, "epoch": 55, "runs": 130, "kernels": 25}
"""Part -> the seconds it may take."""
WHOLE = 476
"""Seconds of all parts together."""
FILES = (*(f"{name}.json" for name in LIMITS), "kernels.txt", "summary.txt")
LINES, COLUMNS = 60, 180
SCRIPT = Path(__file__).with_name("gpu_parts.py")


def measure(out: Path, data: str, groups: Sequence[Sequence[str]]) -> None:
    """Run all parts, group by group in a process each, and write what they find into a folder.

    data: a folder in Flickr8k's layout, or nothing.
    """
    ends = time.monotonic() + WHOLE
    with tempfile.TemporaryDirectory(prefix="uwml-gpu-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        (work / "out").symlink_to(out)
        make_folder(work / "data")
        if data and Path(data).is_dir():
            (work / "data" / Path(data).resolve().name).symlink_to(Path(data).resolve())
        environment = {
            **os.environ, "UWML_HOME": name, "UWML_HEADLESS": "1", "MPLBACKEND": "Agg",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HYPOTHESIS_STORAGE_DIRECTORY": name, "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        for names in groups:
            limit = min(sum(LIMITS[part] for part in names), ends - time.monotonic())
            print(f"{', '.join(names)}: at most {limit:.0f} s", flush=True)
            log = work / f"{names[0]}.log"
            command = [sys.executable, str(SCRIPT), *names, f"{limit:.0f}"]
            outcome = attempt(command, limit, environment, log) if limit > 0 else "passed over: no time was left"
            for part in names:
                note(out / f"{part}.json", outcome)
    for leftover in out.glob(".*.part"):
        leftover.unlink()


def attempt(command: Sequence[str], seconds: float, environment: Mapping[str, str], log: Path) -> str:
    """Run a command for at most so long, its words going to a log; return what came of it. No process of it stays."""
    with open(log, "w", encoding="utf-8") as words:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=words, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"stopped: over its limit of {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-1:]
    return "finished" if not status else f"failed: ended with status {status}: {textwrap.shorten(''.join(last), 200)}"


def note(path: Path, outcome: str) -> None:
    """Note in the file of a part what came of it, unless the part did so itself."""
    try:
        found = read_json(path)
    except UWMLError:  # it got as far as nothing
        found = {"title": path.stem, "tables": {}, "targets": [], "bounds": ""}
    if "outcome" not in found:
        found["outcome"] = outcome if outcome != "finished" else "failed: it left no numbers"
        write_json(path, found)
    print(f"{path.stem}: {found['outcome']}", flush=True)


def summary(out: Path) -> str:
    """Say what all parts found in at most 60 lines: targets and what bounds them, and tables as far as they fit."""
    found = {name: read_json(out / f"{name}.json") for name in LIMITS if (out / f"{name}.json").exists()}
    blocks = {name: _head(name, part) for name, part in found.items()}
    lines = _machine(found.values())
    room = LINES - len(lines) - sum(map(len, blocks.values()))
    for name, part in found.items():
        for title, rows in part["tables"].items():
            table = [f"  {title}:", *(f"    {line}" for line in _table(rows))]
            if len(table) <= room and name != "kernels":  # these are in kernels.txt
                blocks[name] += table
                room -= len(table)
    lines += [line for block in blocks.values() for line in block]
    return "\n".join(line[:COLUMNS] for line in lines[:LINES]) + "\n"


def _machine(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Device and versions, as the first part found them that got so far."""
    known = next((part for part in parts if "provenance" in part), None)
    if known is None:
        return ["No part got as far as naming the device."]
    come_from = known["provenance"]
    versions = ", ".join(f"{name} {version or 'not there'}" for name, version in come_from["versions"].items())
    small = "  (tiny sizes: these numbers mean nothing)" if known["smoke"] else ""
    return [
        f"{known['device']}{small}",
        f"Python {come_from['python']}, {versions}, CUDA {come_from['cuda'] or 'not there'}",
        f"{come_from['machine']}, {os.cpu_count()} cores; library {come_from['library']}, commit "
        f"{come_from['commit'] or 'unknown'}; {come_from['started']}",
    ]


def _head(name: str, part: Mapping[str, Any]) -> list[str]:
    """The lines of a part that must not be missing."""
    took = f", {part['seconds']:.0f} s" if "seconds" in part else ""
    lines = [f"{name}: {part['title']}: {part['outcome']}{took}", *(f"  {target}" for target in part["targets"])]
    return lines + textwrap.wrap(part["bounds"], COLUMNS, initial_indent="  ", subsequent_indent="  ", max_lines=4)


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows under their headings, in columns."""
    headings = list(rows[0])
    cells = [headings, *([str(row.get(heading, "")) for heading in headings] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def main() -> None:
    if sys.version_info < (3, 11) or find_spec("torch") is None:
        sys.exit(f"{sys.executable}: needs Python 3.11 or newer with torch; PYTHON=... names another one")
    out = make_folder(Path(sys.argv[1] if len(sys.argv) > 1 else CHECKOUT / "reports" / "gpu").resolve())
    for file in FILES:
        (out / file).unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    data = os.environ.get("DATA", "")
    if data and not Path(data).is_dir():
        print(f"DATA: {data}: no such folder; nothing will be trained on it", flush=True)
    # Loading torch takes most of a smoke test, so there its parts share a process.
    groups = [list(LIMITS)] if os.environ.get("GPU_SMOKE") else [[name] for name in LIMITS]
    try:
        measure(out, data, groups)
    finally:
        write_text(out / "summary.txt", summary(out))
        print(f"\n{(out / 'summary.txt').read_text(encoding='utf-8')}", end="", flush=True)


if __name__ == "__main__":
    main()
