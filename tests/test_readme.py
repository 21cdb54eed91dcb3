"""What the README tells people to type works, and what it claims is in the published run."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from uwml_lib.cli import parse
from uwml_lib.losses import LOSSES
from uwml_lib.reports.published import published_table
from uwml_lib.reports.records import reliability_text
from uwml_lib.support.files import check_files, read_json, read_sealed_json, sha256_of
from uwml_lib.support.paths import CHECKOUT, PERFORMANCE, REFERENCE

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
DATA_BLOCKS = re.findall(
    r"```bash\n(.*?)```", (CHECKOUT / "data/README.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
LINES = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines() if line]
DATA_LINES = [line for block in DATA_BLOCKS for line in block.splitlines() if line]


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_block_runs(block, tmp_path):
    result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", [*LINES, *DATA_LINES])
def test_command_is_understood(line):
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE)
        assert words[1] in targets
    elif words[0] == "uwml":
        parse(words[1], words[2:])
    elif words[1:3] == ["-m", "uwml_lib.cli"]:
        parse(words[3], words[4:])
    elif words[0] == "bash" or words[:1] == [".venv/bin/python"] and words[1].startswith("benchmarks/"):
        assert (CHECKOUT / words[1]).is_file()
    else:
        assert words[:3] == ["python3", "-m", "venv"] or words[1:4] == ["-m", "pip", "install"], line


def test_both_commands_are_there():
    assert "make reproduce" in LINES
    assert "make test" in LINES


def test_table_is_the_published_one():
    table = [line for line in (REFERENCE / "table.md").read_text(encoding="utf-8").splitlines() if line]
    published = [line for line in table[: table.index("### Runs")] if not line.startswith("#")]
    for line in published:
        assert line in README


def test_the_table_on_photographs_is_the_published_one():
    text = (REFERENCE / "f8k/table.md").read_text(encoding="utf-8")
    readme = " ".join(README.split())
    for line in text[: text.index("### Runs")].splitlines():
        if line and not line.startswith("#"):
            assert " ".join(line.split()) in readme


def test_the_ratios_of_how_fast_are_the_published_ones():
    """Every row of the table, made anew from what `make bench` wrote."""
    for row in speed_rows():
        assert f"| {row} |" in README
    assert f"on {read_json(PERFORMANCE / 'cpu/step.json')['threads']} cores" in README
    peaks = read_json(PERFORMANCE / "cpu/training_full.json")["peak_gigabytes"]
    assert f"took {peaks['i2t']:.1f} GB at its peak (i2t; t2i {peaks['t2i']:.1f})" in README
    (beyond,) = re.findall("be (.*) times as fast", read_json(PERFORMANCE / "cpu/evaluation.json")["bounds"])
    assert f"more than {beyond} times as fast" in " ".join(README.split())


def speed_rows() -> list[str]:
    """Rows of what, times as fast as the release's way, times the floor."""
    parts = ("loss", "step", "training", "evaluation", "loading")
    loss, step, training, evaluation, loading = (read_json(PERFORMANCE / f"cpu/{name}.json") for name in parts)
    seconds = loss["seconds"]["128"]
    rows = [f"the loss alone, 128 pairs | {seconds['loop'] / seconds['kit']:.0f} | –"]
    for direction in ("i2t", "t2i"):
        seconds, peak = step[direction]["seconds"], step[direction]["peak_bytes"]
        what = f"attention and loss, {direction}, in {peak['kit'] / peak['loop']:.0%} of the memory"
        rows.append(f"{what} | {seconds['loop'] / seconds['kit']:.1f} | {seconds['kit'] / seconds['floor']:.2f}")
    for direction, seconds in training["seconds"].items():
        rows.append(f"a whole training step, {direction} | {seconds['loop'] / seconds['kit']:.1f} | –")
    for direction, seconds in evaluation["seconds"].items():
        what = f"scoring 1,000 × 5,000, {direction} (extrapolated)"
        rows.append(f"{what} | {seconds['loop'] / seconds['kit']:.1f} | {seconds['kit'] / seconds['floor']:.2f}")
    seconds = loading["seconds"]
    return [
        *rows,
        f"loading a batch | {seconds['release'] / seconds['kit']:.1f} | {seconds['kit'] / seconds['copy']:.1f}",
    ]


@pytest.mark.parametrize("table", ["models.md", "clips/videos.md"])
def test_the_table_of_models_is_the_published_one(table):
    for line in (REFERENCE / table).read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        assert line in README


@pytest.mark.parametrize("folder", ["", "f8k"])
def test_the_table_of_habits_is_the_published_one(folder):
    table = (REFERENCE / folder / "fidelity.md").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert rows[0][0] == "none"
    for habit, *cells in rows[1:]:
        assert f"{habit} {cells[4]}" in " ".join(README.split())


def test_the_ranking_of_all_losses_is_the_published_one():
    table = (REFERENCE / "compare.md").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    found = {cells[1].strip(): cells[8].strip() for cells in (line.split("|") for line in table[2:])}
    assert set(found) == set(LOSSES)
    ranked = sorted(found, key=lambda loss: -float(found[loss].split()[0]))
    assert ", ".join(f"{loss} {found[loss]}" for loss in ranked) in README.replace("\n", " ")


def test_what_chosen_coefficients_are_worth_is_the_published_figure():
    notebook = (REFERENCE / "notebooks/06_choosing_coefficients.ipynb").read_text(encoding="utf-8")
    interval = re.search(r"95 % intervals: (\S+ \[\S+ \S+\]) over seeds", notebook).group(1)
    assert f"an rsum of {interval} over the released ones" in README


def test_the_published_numbers_are_those_of_the_library():
    assert f"\n{published_table()}\n" in README


def test_the_published_runs_are_whole():
    summary = read_json(REFERENCE / "summary.json")
    assert summary["losses"]
    for item in summary["losses"].values():
        for name, digest in item["runs"].items():
            folder = REFERENCE / "runs" / name
            assert sha256_of(folder / "results.json") == digest
            files = read_sealed_json(folder / "results.json")["files"]
            check_files(folder, {file: files[file] for file in ("config.json", "metrics.jsonl")})


def test_reliability_is_the_measured_one():
    assert reliability_text()
    assert reliability_text() in README


def test_times_are_the_published_ones():
    seconds = json.loads((REFERENCE / "durations.json").read_text())["reproduce"]["seconds"]
    assert f"{round(sum(seconds.values()) / 60)} minutes" in README


def test_costs_are_the_printed_ones():
    printed = subprocess.run(
        [sys.executable, CHECKOUT / "benchmarks" / "cost.py"], capture_output=True, text=True, check=True
    ).stdout
    for line in printed.splitlines():
        assert line in README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (CHECKOUT / target).exists(), target
