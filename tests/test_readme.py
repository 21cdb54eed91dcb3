"""What the README and the chapters tell people to type works, and what they claim is in the published files."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uwml_lib.cli import parse
from uwml_lib.evaluation.statistics import compare
from uwml_lib.reports.published import published_table
from uwml_lib.reports.records import reliability_text
from uwml_lib.reports.site.findings import answers, conclusion, findings_sentences, findings_table
from uwml_lib.runs import Run, StudyRuns, load_study
from uwml_lib.studies import STUDIES
from uwml_lib.studies.committed import FILES
from uwml_lib.support import paths
from uwml_lib.support.files import check_files, read_json, read_sealed_json, sha256_of
from uwml_lib.support.paths import CHECKOUT, PERFORMANCE, REFERENCE

SITE = CHECKOUT / "uwml_lib/reports/site/chapters"
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
CHAPTERS = {
    path.relative_to(SITE).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(SITE.rglob("*.md"))
}
TEXTS = (README, *CHAPTERS.values())
BLOCKS = [block for text in TEXTS for block in re.findall(r"^```(\w+)\n(.*?)```", text, re.DOTALL | re.MULTILINE)]
PYTHON = [*dict.fromkeys(block for language, block in BLOCKS if language == "python")]
DATA_BLOCKS = re.findall(
    r"```bash\n(.*?)```", (CHECKOUT / "data/README.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
LINES = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines() if line]
DATA_LINES = [line for block in DATA_BLOCKS for line in block.splitlines() if line]


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_block_runs(block, tmp_path):
    result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", dict.fromkeys([*LINES, *DATA_LINES]))
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


def test_the_readme_is_for_visitors():
    assert len(README.encode()) < 18_000


def test_table_is_the_published_one():
    text = (REFERENCE / "table.md").read_text(encoding="utf-8")
    for line in text[: text.index("### Runs")].splitlines():
        assert not line.startswith("|") or line in README


def test_findings_are_the_published_ones():
    """The README's table and sentences are those that the start page makes of the published files."""
    assert findings_table({study.name: study.title for study in STUDIES.values()}, pytest.fail) in README
    assert f"\n{conclusion(pytest.fail)}\n" in README
    answered, sentences = answers(pytest.fail), findings_sentences(pytest.fail, ["reproduce"])
    assert answered and sentences
    for answer in answered:
        assert f"\n{answer}\n" in README
    for sentence in sentences:
        assert f"\n- {sentence}\n" in README


def test_the_ratios_of_how_fast_are_the_published_ones():
    """Every row of the table, made anew from what `make bench` wrote."""
    chapter = CHAPTERS["pages/how_fast"]
    for row in speed_rows():
        assert f"| {row} |" in chapter
    assert f"on {read_json(PERFORMANCE / 'cpu/step.json')['threads']} cores" in chapter
    peaks = read_json(PERFORMANCE / "cpu/training_full.json")["peak_gigabytes"]
    assert f"took {peaks['i2t']:.1f} GB at its peak (i2t; t2i {peaks['t2i']:.1f})" in chapter
    (beyond,) = re.findall("be (.*) times as fast", read_json(PERFORMANCE / "cpu/evaluation.json")["bounds"])
    assert f"more than {beyond} times as fast" in " ".join(chapter.split())


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


def test_the_published_numbers_are_those_of_the_library():
    assert f"\n{published_table()}\n" in CHAPTERS["pages/your_data/papers"]


def test_nothing_published_says_where_it_lay():
    place = re.compile(rb"[ '\"=](/(home|root|tmp|Users|mnt|work|opt|var)/[\w./-]+)")
    for path in REFERENCE.rglob("*"):
        if path.suffix in (".ipynb", ".json", ".jsonl", ".log", ".md"):
            assert not place.search(path.read_bytes()), path


def test_the_published_runs_are_whole():
    summary = read_json(REFERENCE / "summary.json")
    assert summary["losses"]
    for item in summary["losses"].values():
        for name, digest in item["runs"].items():
            folder = REFERENCE / "runs" / name
            assert sha256_of(folder / "results.json") == digest
            files = read_sealed_json(folder / "results.json")["files"]
            check_files(folder, {file: files[file] for file in ("config.json", "metrics.jsonl")})


@pytest.mark.parametrize("listed", sorted(REFERENCE.glob("**/studies/*.json")), ids=lambda path: path.stem)
def test_a_published_table_is_what_the_published_runs_give(listed, tmp_path, monkeypatch):
    """Made anew of every run's numbers, without data or weights, to the last digit."""
    study, folder = STUDIES[listed.stem], listed.parent.parent
    dataset = "scenes" if folder == REFERENCE else folder.name
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    monkeypatch.setattr(paths, "EVALUATIONS", tmp_path / "evaluations")
    if (folder / "evaluations").exists():
        shutil.copytree(folder / "evaluations", tmp_path / "evaluations" / dataset)
    runs = tmp_path / "runs" / dataset
    shutil.copytree(folder / "runs", runs)
    for file in (listed, *filter(Path.exists, (folder / file for file in FILES))):
        shutil.copy(file, runs)
    if (folder / "linear_cca.json").exists():
        (tmp_path / dataset).mkdir()
        shutil.copy(folder / "linear_cca.json", tmp_path / dataset)
    found = study.report(load_study(dataset, study.name)).with_runs()
    assert found == (folder / f"{study.table or study.name}.md").read_text(encoding="utf-8")


def test_the_intervals_of_few_and_of_all_seeds_are_as_wide_as_the_readme_says():
    listed = read_json(REFERENCE / "studies/reproduce.json")["runs"]
    by_loss = StudyRuns("scenes", {"runs": tuple(Run.load(REFERENCE / "runs" / name) for name in listed)}).by_loss()
    polynomial, triplet = by_loss["polynomial"], by_loss["triplet"]
    few, every = (compare(polynomial[:n], triplet[:n]).over_seeds for n in (5, len(triplet)))
    widths = [f"{interval.high - interval.low:.0f}" for interval in (few, every)]
    assert "(it is {} points wide with five seeds, {} with twenty)".format(*widths) in README and len(triplet) == 20


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
        assert line in CHAPTERS["pages/your_data/papers"]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (CHECKOUT / target).exists(), target
