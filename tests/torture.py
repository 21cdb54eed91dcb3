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
from xml.etree import ElementTree

import torch

from uwml_lib.config import CHECKOUT, RELIABILITY
from uwml_lib.files import write_json
from uwml_lib.progress import duration
from uwml_lib.provenance import provenance
from uwml_lib.reporting import reliability_text

ATTACKS = ("tests/test_kill.py", "tests/test_mutations.py", "tests/test_faults.py")


def main() -> int:
    """Run the attacks, write what they found, and return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--mutations", type=int, default=10_000)
    wanted = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "attacks.xml"
        command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", f"--junitxml={log}", *ATTACKS]
        counts = {"UWML_KILLS": str(wanted.kills), "UWML_MUTATIONS": str(wanted.mutations)}
        code = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **counts}, check=False).returncode
        attacks = ElementTree.parse(log)
    found = [(item.get("name"), ast.literal_eval(item.get("value", ""))) for item in attacks.iterfind(".//property")]
    kills = {item["command"]: {key: item[key] for key in ("killed", "lost")} for name, item in found if name == "kills"}
    mutations = sum((Counter(item) for name, item in found if name == "mutations"), Counter())
    suite = attacks.find(".//testsuite").attrib
    write_json(RELIABILITY, {
        "kills": kills,
        "mutations": {name: mutations[name] for name in ("tried", "clear error", "wrong", "unclear", "hung")},
        "tests": {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")},
        "seconds": round(time.monotonic() - began),
        "provenance": provenance(torch.device("cpu")) | {"command": "make torture"},
    })  # fmt: skip
    print(f"\n{reliability_text()}\nIn {duration(time.monotonic() - began)}; written to {RELIABILITY}")
    return code


if __name__ == "__main__":
    sys.exit(main())
