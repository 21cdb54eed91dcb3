"""`make torture`: the tests that attack the kit, many times over; their figures go to reports/reference.

Kills and damaged inputs are those of `make test-all`, from 5 and 300 up to KILLS and MUTATIONS.
"""

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from tests.training.test_kill import COMMANDS
from uwml_lib.reports.records import reliability_text
from uwml_lib.runs.provenance import provenance
from uwml_lib.support import paths
from uwml_lib.support.files import write_json
from uwml_lib.support.paths import CHECKOUT
from uwml_lib.support.progress import duration

ATTACKS = ("tests/training/test_kill.py", "tests/test_mutations.py", "tests/test_faults.py")
KILLED = ("killed", "alone", "lost", "left running")
CAME_OF_IT = ("tried", "right", "clear error", "wrong", "unclear", "hung")
COUNTED = ("tests", "failures", "errors", "skipped")


def main() -> int:
    """Run the attacks, write what they found, and return pytest's exit code.

    If figures are missing, nothing is written, and the exit code is not 0.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=positive, default=50)
    parser.add_argument("--mutations", type=positive, default=10_000)
    wanted = parser.parse_args()
    began = time.monotonic()
    source = provenance(torch.device("cpu")) | {"command": "make torture"}  # now, for the tree may change meanwhile
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "attacks.xml"
        command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", f"--junitxml={log}", *ATTACKS]
        counts = {"UWML_KILLS": str(wanted.kills), "UWML_MUTATIONS": str(wanted.mutations)}
        code = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **counts}, check=False).returncode
        try:
            found = figures(ElementTree.parse(log), wanted.kills, wanted.mutations)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            print(f"\nmake torture: {error}; {paths.RELIABILITY} is left as it was", file=sys.stderr)
            return code or 3
    write_json(paths.RELIABILITY, {**found, "seconds": round(time.monotonic() - began), "provenance": source})
    print(f"\n{reliability_text()}\nIn {duration(time.monotonic() - began)}; written to {paths.RELIABILITY}")
    return code


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return number


def figures(attacks: ElementTree.ElementTree, kills: int, mutations: int) -> dict[str, Any]:
    """What pytest's log of the attacks says; raises ValueError if figures are missing, as after a crash."""
    properties = [(item.get("name"), item.get("value", "")) for item in attacks.iterfind(".//property")]
    of_kills, of_mutations = (
        [_numbers(name, ast.literal_eval(text), keys) for name, text in properties if name == wanted]
        for wanted, keys in (("kills", KILLED), ("mutations", CAME_OF_IT))
    )
    by_command = {item.pop("command"): item for item in of_kills}
    if missing := [command for command in COMMANDS if command not in by_command]:
        raise ValueError(f"found no figures of the kills of {', '.join(missing)}: did a test process crash?")
    total = sum((Counter(item) for item in of_mutations), Counter())
    for what, count, asked in (
        ("kills", sum(item["killed"] for item in by_command.values()), max(kills, len(COMMANDS))),
        ("mutations", total["tried"], mutations),
        ("mutations with an outcome", sum(total[name] for name in CAME_OF_IT[1:]), mutations),
    ):
        if count != asked:
            raise ValueError(f"found {count} {what}, expected {asked}: did a test process crash?")
    if (suite := attacks.find(".//testsuite")) is None:
        raise ValueError("found no count of the tests")
    return {
        "kills": {command: by_command[command] for command in COMMANDS},
        "mutations": {name: total[name] for name in CAME_OF_IT},
        "tests": _numbers("tests", {name: int(suite.get(name, -1)) for name in COUNTED}, COUNTED),
    }


def _numbers(name: str, item: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        if type(item.get(key)) is not int or item[key] < 0:
            raise ValueError(f"found {item} of {name}, expected a number {key}")
    return item


if __name__ == "__main__":
    sys.exit(main())
