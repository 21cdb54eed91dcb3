"""What the notebooks and `make torture` found: for other programs, for pages, in a sentence."""

from pathlib import Path
from typing import Any

from uwml_lib.support import paths
from uwml_lib.support.errors import reading
from uwml_lib.support.files import read_json, write_json


def record(dataset: str, notebook: str, **metrics: float | str | None) -> None:
    """Write what a notebook found to `metrics/NOTEBOOK.json` in the data set's report folder."""
    write_json(paths.report_folder(dataset) / "metrics" / f"{notebook}.json", metrics)


def noted(dataset: str, name: str) -> dict[str, dict[str, Any]]:
    """Return what `NAME.json` beside a data set's runs says of each loss, or run; nothing where there is none."""
    path = paths.RUNS / dataset / f"{name}.json"
    return read_json(path) if path.exists() else {}


def step_seconds(folder: Path, study: str) -> dict[str, float]:
    """Return how long each step of a study took, in seconds, as noted in a folder of results; empty if it is not."""
    path = folder / "durations.json"
    with reading(f"{path}: {study}", "the seconds of its steps"):
        seconds = read_json(path).get(study, {}).get("seconds", {}) if path.exists() else {}
        return {step: float(of) for step, of in seconds.items()}


def reliability_text() -> str:
    """Say what `make torture` found last, "" if it has not run; raises UWMLError if its file holds something else."""
    if not paths.RELIABILITY.exists():
        return ""
    found = read_json(paths.RELIABILITY)
    with reading(paths.RELIABILITY, "the figures of `make torture`; run it again"):
        kills, mutations, tests = found["kills"], found["mutations"], found["tests"]
        killed, lost = (sum(item[what] for item in kills.values()) for what in ("killed", "lost"))
        skipped = f" ({tests['skipped']:,} skipped)" if "skipped" in tests else ""  # older files do not say
        return (
            f"Reliability (`make torture`): killed {killed:,} times at random moments ({', '.join(kills)}), "
            f"results lost or changed: {lost:,}; {mutations['tried']:,} damaged files and settings, "
            f"wrong results: {mutations['wrong']:,}, unclear errors: {mutations['unclear']:,}, "
            f"hangs: {mutations['hung']:,}; {tests['tests']:,} attacks as tests{skipped}, a full disk and denied "
            f"permissions among them, failed: {tests['failures'] + tests['errors']:,}."
        )
