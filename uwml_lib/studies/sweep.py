"""`make sweep`: settings on a grid or drawn at random, trained by any number of machines; chosen on dev.

Whoever runs the same command on the same `reports` folder takes part. A sweep's folder holds

    settings.json           what is tried, written once by the first; whoever wants something else is refused
    claims/RUN.N.json       who trains a run: the first to claim it has N = 0; touched as long as that process works
    failures/RUN.json       why a run failed
    sweep.md, .png, .json   the result, made when every run is done

Claims are created exclusively and never removed. Whoever finds the holder of claim N gone creates claim N + 1, and of
several who find so one alone succeeds, for the file may be created but once. The runs lie where all runs lie, so a run
that was taken over goes on after its last epoch, and the lock of its folder guards it besides.
"""

import contextlib
import functools
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import psutil

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import check_data, fingerprint, prepare_data
from uwml_lib.evaluation.statistics import Summary, paired_interval, summarize
from uwml_lib.reports.figures.sweeps import sweep_panels
from uwml_lib.reports.tables import plain, results_table, run_table
from uwml_lib.runs.run import Run
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.studies.compare import TUNING_EPOCHS
from uwml_lib.studies.engine import Profile, base_config, build_pages, check_seeds
from uwml_lib.studies.search_space import DEFAULT_SPACE, LARGEST, configured, settings_of
from uwml_lib.studies.side_by_side import die_with_parent, run_folders, side_by_side, workers
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import (
    atomic_path,
    create_sealed_json,
    lock,
    read_sealed_json,
    sha256_of,
    write_sealed_json,
    write_text,
)
from uwml_lib.support.progress import Say, say
from uwml_lib.training.checks import check_config, check_model_fits
from uwml_lib.training.runner import train

HEARTBEAT = 15.0  # seconds between two signs of life of whoever holds a claim
GONE_AFTER = 300.0  # seconds without one, after which a claim may be taken over: file systems tell news late
STAMP = "%Y-%m-%dT%H:%M:%S%z"
POLL = 5.0  # seconds between two looks of a worker that waits


class Setting(NamedTuple):
    """One setting: its number, from 1, name -> value, and its runs, one a seed: folder's name -> configuration."""

    number: int
    values: dict[str, Any]
    runs: dict[str, ExperimentConfig]


class Outcome(NamedTuple):
    """A setting all of whose runs are finished."""

    setting: Setting
    runs: list[Run]
    dev: Summary


@dataclass(frozen=True)
class Sweep:
    """What is tried, and where what is known of it lies."""

    dataset: str
    name: str
    settings: tuple[Setting, ...]

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return paths.SWEEPS / self.dataset / self.name

    @property
    def setting_of(self) -> dict[str, Setting]:
        """Run -> its setting, in the order of training: every setting with the first seed, then with the next."""
        by_seed = zip(*([(run, setting) for run in setting.runs] for setting in self.settings), strict=True)
        return dict(pair for seed in by_seed for pair in seed)

    def run_folder(self, run: str) -> Path:
        """Where a run lies."""
        return paths.RUNS / self.dataset / run

    def claim(self, run: str, number: int) -> Path:
        """The file of a run's claim."""
        return self.folder / "claims" / f"{run}.{number}.json"

    def failure(self, run: str) -> Path:
        """The file that says why a run failed."""
        return self.folder / "failures" / f"{run}.json"

    def is_open(self, run: str) -> bool:
        """Say whether a run has neither finished nor failed."""
        return not (self.run_folder(run) / "results.json").exists() and not self.failure(run).exists()

    def open_runs(self) -> list[str]:
        """The runs that have neither finished nor failed."""
        return [run for run in self.setting_of if self.is_open(run)]

    def last_claims(self) -> dict[str, int]:
        """Run -> the number of its last claim."""
        last: dict[str, int] = {}
        for path in (self.folder / "claims").glob("*.*.json"):
            run, _, number = path.stem.rpartition(".")
            if number.isdecimal():
                last[run] = max(int(number), last.get(run, 0))
        return last

    def failures(self) -> dict[str, str]:
        """Run -> the sentence it failed with."""
        return {
            run: read_sealed_json(self.failure(run))["error"]
            for run in self.setting_of
            if self.failure(run).exists() and not (self.run_folder(run) / "results.json").exists()
        }


def sweep(
    dataset: str = "scenes",
    data_root: str = "",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    profile: Profile = "full",
    space: Mapping[str, Any] | None = None,
    name: str = "default",
    samples: int = 0,
    search_seed: int = 0,
    wait: bool = False,
    say: Say = say,
) -> str:
    """Take part in a sweep; return its table, or nothing while others still work on it.

    seeds: None means 0, 1 (smoke: 0). epochs: None means the preset's, and of the default space 4 at most. space: see
    `check_space`; None means `DEFAULT_SPACE`. samples: 0 tries the whole grid, else so many settings are drawn by
    `search_seed`. wait: stay until everything is done, to take over what others leave. Raises UWMLError before anything
    is trained for what cannot be, and at the end, when all else is done, if runs failed.
    """
    seeds = check_seeds(seeds if seeds is not None else (0,) if profile == "smoke" else (0, 1))
    base = base_config(dataset, data_root, epochs, profile)
    if space is None and epochs is None:
        base = replace(base, epochs=min(TUNING_EPOCHS, base.epochs))
    if epochs is not None and "epochs" in (space or {}):
        raise UWMLError("epochs: is in the space and given besides, expected one of them")
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise UWMLError(f"name: found {name!r}, expected the name of a folder")
    space = dict(DEFAULT_SPACE if space is None else space)
    tried = settings_of(space, samples, search_seed)
    if len(tried) * len(seeds) > LARGEST:
        raise UWMLError(f"space: found {len(tried) * len(seeds):,} runs, expected at most {LARGEST:,}")
    configs = [[configured(base, values, seed) for seed in seeds] for values in tried]
    for of_setting in configs:
        check_config(of_setting[0])
    prepare_data(base, say)
    for of_setting in configs:
        check_model_fits(of_setting[0])
    check_data(configs[0][0])
    data = fingerprint(base.data_folder, base.captions)
    names = (folder.name for folder in run_folders([config for of_setting in configs for config in of_setting]))
    settings = [
        Setting(number, values, {next(names): config for config in of_setting})
        for number, (values, of_setting) in enumerate(zip(tried, configs, strict=True), 1)
    ]
    this = Sweep(base.dataset, name, tuple(settings))
    join(this, {"space": space, "samples": samples, "search_seed": search_seed if samples else None,
                "seeds": seeds, "data": data, "config": base.to_dict()})  # fmt: skip
    left = this.open_runs()
    say(f"1/2 training: {len(settings)} settings with {len(seeds)} seeds each, {len(left)} runs to do; {this.folder}")
    _work_side_by_side(this, len(left), wait, say)
    return finish(this, say)


def join(this: Sweep, about: Mapping[str, Any]) -> None:
    """Write what is tried into the sweep's folder; raises UWMLError if that holds a sweep over other settings.

    about: where the settings come from, to name the difference.
    """
    settings = [{"values": setting.values, "runs": list(setting.runs)} for setting in this.settings]
    path = this.folder / "settings.json"
    if create_sealed_json(path, {**about, "settings": settings}):
        return
    there = read_sealed_json(path)
    if json.loads(json.dumps(settings)) != there["settings"]:  # the run's names cover all that counts
        ours, theirs = ({**item, **item["config"]} for item in (about, there))
        names = [name for name in ours if name not in ("config", "data_root") and ours[name] != theirs.get(name)]
        raise UWMLError(
            f"{path}: holds a sweep that differs in {', '.join(names) or 'its settings'}; give this one another --name"
        )


# ------------------------------------------------------------------------------------------------ who trains what


class _TakenOver(Exception):
    """Another worker holds the run by now."""


def work(this: Sweep, wait: bool = False, say: Say = say) -> None:
    """Claim and train one run after the other until there is none to claim, or, with `wait`, until all are done."""
    while this.open_runs():
        if claimed := claim(this):
            _train(this, *claimed, say)
        elif wait:
            time.sleep(POLL)
        else:
            return


def claim(this: Sweep) -> tuple[str, int] | None:
    """Claim the first open run that nobody works on; return it and the number of the claim, or None if there is none.

    Raises UWMLError if the folder cannot be written, or if a claim in it is damaged.
    """
    last, now = this.last_claims(), _time_of_files(this.folder)
    for run in this.open_runs():
        number = last.get(run, -1) + 1
        if number and is_held(this.claim(run, number - 1), now):
            continue
        mine = {"host": platform.node(), "machine": this_machine(), "pid": os.getpid(), "started": time.strftime(STAMP)}
        # Another may have claimed and finished it since the look above.
        if create_sealed_json(this.claim(run, number), mine) and this.is_open(run):
            return run, number
    return None


def is_held(path: Path, now: float) -> bool:
    """Say whether a claim's holder is at work: it was heard of lately, and is no process of this machine that is gone.

    now: the time of the file system, in seconds; clocks of machines may differ. Raises UWMLError for a damaged claim.
    """
    if now - path.stat().st_mtime > GONE_AFTER:
        return False
    holder = read_sealed_json(path)
    return holder["machine"] != this_machine() or _is_running(holder["pid"])


@functools.cache
def this_machine() -> str:
    """Name this machine, since when it runs, and whose process numbers these are: containers have their own."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # not everywhere; then the name must do
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _time_of_files(folder: Path) -> float:
    """The time by which files of a folder are stamped: on a shared file system, that of the machine it lies on."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _train(this: Sweep, run: str, number: int, say: Say) -> None:
    """Train a claimed run; what it fails with is noted, and the next may follow."""
    setting = this.setting_of[run]

    def speak(line: str) -> None:
        if this.claim(run, number + 1).exists():  # this machine was asleep, or cut off
            raise _TakenOver
        say(f"setting {setting.number}: {line}")

    with _signs_of_life(this.claim(run, number)):
        try:
            train(setting.runs[run], this.run_folder(run), speak)
        except _TakenOver:
            say(f"setting {setting.number}: {run} was taken over by another worker, and is left to it")
        except Exception as error:  # a slip that stops one setting must not stop a night's work on the others
            sentence = str(error) if isinstance(error, UWMLError) else f"{type(error).__name__}: {error}"
            write_sealed_json(this.failure(run), {"error": sentence, "machine": this_machine()})
            say(f"setting {setting.number}: failed: {sentence}")


@contextlib.contextmanager
def _signs_of_life(path: Path) -> Iterator[None]:
    """Touch a claim as long as this lasts; then make it look long gone, for this process may live on."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # a network that fails for a moment
                os.utime(path)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            os.utime(path, (0, 0))


def _work_side_by_side(this: Sweep, runs: int, wait: bool, say: Say) -> None:
    """Work in as many processes as there are cores for, or in this one; what a broken one leaves, `finish` finds."""
    threads = max(config.threads for setting in this.settings for config in setting.runs.values())
    count = min(workers(threads), runs)
    if count <= 1:
        work(this, wait, say)
        return
    with side_by_side(threads) as context:
        processes = [context.Process(target=_work_and_speak, args=(this, wait)) for _ in range(count)]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join()
        except KeyboardInterrupt:
            for process in processes:
                process.terminate()
            raise


def _work_and_speak(this: Sweep, wait: bool) -> None:
    die_with_parent()
    try:
        work(this, wait)
    except (UWMLError, OSError) as error:
        raise SystemExit(f"a worker stopped: {error}") from error


# ------------------------------------------------------------------------------------------------ what came out


def finish(this: Sweep, say: Say = say) -> str:
    """Write the sweep's result if all its runs are done, and return the text; say so if others still work on it.

    Raises UWMLError if runs were left by a worker that is gone, and, after all else, if runs failed.
    """
    left, failures, text = this.open_runs(), this.failures(), ""
    if left:
        last, now = this.last_claims(), _time_of_files(this.folder)
        if gone := [run for run in left if run not in last or not is_held(this.claim(run, last[run]), now)]:
            raise UWMLError(
                f"{len(gone)} of {len(this.setting_of)} runs are not done, for a worker stopped or was killed, perhaps "
                "for want of memory; the same command goes on"
            )
        hosts = sorted({read_sealed_json(this.claim(run, last[run]))["host"] for run in left})
        say(
            f"{len(left)} of {len(this.setting_of)} runs are with other workers ({', '.join(hosts)}); whoever is the "
            "last writes the table, and the same command takes over what a worker leaves"
        )
    elif ranked := outcomes(this):
        say("2/2 table and figure")
        with lock(this.folder, say):
            text = write_results(this, ranked, failures)
        say(f"\n{text}\n\n{this.folder / 'sweep.md'}\nReport: {build_pages(say)}")
    if failures:
        sentences = [f"{run}: {sentence}" for run, sentence in failures.items()]
        raise UWMLError("\n".join([
            f"{len(failures)} of {len(this.setting_of)} runs failed; to try them again, remove "
            f"{this.folder / 'failures'}:", *sentences,
        ]))  # fmt: skip
    return text


def outcomes(this: Sweep) -> list[Outcome]:
    """The settings all of whose runs are finished, the best first: by mean dev rsum alone, the first of equals."""
    found = []
    for setting in this.settings:
        if all((this.run_folder(run) / "results.json").exists() for run in setting.runs):
            runs = [Run.load(this.run_folder(run)) for run in setting.runs]
            found.append(Outcome(setting, runs, summarize([run.results["dev_rsum"] for run in runs])))
    return sorted(found, key=lambda outcome: -outcome.dev.mean)


def write_results(this: Sweep, ranked: Sequence[Outcome], failures: Mapping[str, str]) -> str:
    """Write sweep.md, sweep.png and sweep.json into the sweep's folder and return the text without the list of runs."""
    chosen, first = ranked[0], ranked[0].runs[0]
    split, words = first.results["split"], first.config.chosen_by
    tables = {
        "settings": _settings_table(this, ranked, f"{words} rsum"),
        "chosen": results_table(StudyRuns(this.dataset, {"runs": tuple(chosen.runs)})).reset_index(),
        "runs": _runs_table(this, ranked),
    }
    sentences = _sentences(this, ranked)
    shown = {name: table.to_markdown(index=False, disable_numparse=True) for name, table in tables.items()}
    title = f"## {this.dataset}, sweep {this.name}: {len(this.settings)} settings"
    text = "\n\n".join([title, shown["settings"], *sentences[:-1], shown["chosen"], sentences[-1]])
    failed = [f"- {run}, setting {this.setting_of[run].number}: {failures[run]}" for run in failures]
    lists = ["### Runs", shown["runs"], *(["### Failed", "\n".join(failed)] if failed else [])]
    write_text(this.folder / "sweep.md", "\n\n".join([text, "![The figure](sweep.png)", *lists]) + "\n")

    varied = _varied(this)
    frame = pd.DataFrame(
        [
            {**outcome.setting.values, "setting": outcome.setting.number, "mean": outcome.dev.mean}
            | {"std": outcome.dev.std, "chosen": outcome is chosen}
            for outcome in ranked
        ]
    )
    figure, _ = sweep_panels(frame, varied, f"{words} rsum")
    with atomic_path(this.folder / "sweep.png") as path:
        figure.savefig(path, format="png")
    plt.close(figure)
    write_sealed_json(this.folder / "sweep.json", {
        "dataset": this.dataset, "name": this.name, "split": split, "chosen_by": words, "varied": varied,
        "settings": [
            {"setting": outcome.setting.number, "values": outcome.setting.values, "dev_rsum": plain(outcome.dev),
             "runs": {run.folder.name: sha256_of(run.folder / "results.json") for run in outcome.runs}}
            for outcome in ranked
        ],
        "chosen": {"setting": chosen.setting.number, "metrics": {
            name: plain(summarize([run.metrics[name] for run in chosen.runs])) for name in first.metrics
        }},
        "failures": dict(failures), "sentences": sentences,
        "tables": {name: table.to_dict("records") for name, table in tables.items()},
    })  # fmt: skip
    return text


def _varied(this: Sweep) -> list[str]:
    """The names that have more than one value; of a single setting, all."""
    names = list(this.settings[0].values)
    return [
        name for name in names if any(item.values[name] != this.settings[0].values[name] for item in this.settings)
    ] or names


def _settings_table(this: Sweep, ranked: Sequence[Outcome], heading: str) -> pd.DataFrame:
    """A row a setting, the best first; those with a run that failed last."""
    names, done = _varied(this), [outcome.setting.number for outcome in ranked]
    cells: list[tuple[Setting, str, int | str]] = [
        (outcome.setting, outcome.dev.mean_and_std, outcome.dev.n) for outcome in ranked
    ]
    cells += [(setting, "failed", "") for setting in this.settings if setting.number not in done]
    return pd.DataFrame(
        {"setting": setting.number, **{name: json.dumps(setting.values[name]) for name in names}, heading: rsum}
        | {"seeds": seeds}
        for setting, rsum, seeds in cells
    )


def _runs_table(this: Sweep, ranked: Sequence[Outcome]) -> pd.DataFrame:
    """A row a run; of what was not chosen, the dev numbers alone."""
    runs = tuple(run for outcome in ranked for run in outcome.runs)
    table = run_table(runs).reset_index()
    table.insert(1, "setting", [outcome.setting.number for outcome in ranked for _ in outcome.runs])
    split = runs[0].results["split"]
    return table if split == runs[0].config.chosen_by else table.drop(columns=f"{split} rsum")


def _sentences(this: Sweep, ranked: Sequence[Outcome]) -> list[str]:
    """What the table means, and last, after the table of the chosen setting, what its numbers are worth."""
    chosen, run = ranked[0].setting.number, ranked[0].runs[0]
    words, split = run.config.chosen_by, run.results["split"]
    varied, same = _varied(this), []
    for name in ("model", "loss", "epochs", *this.settings[0].values):
        if name not in varied:
            same.append(f"{name} {json.dumps(this.settings[0].values.get(name, getattr(run.config, name, None)))}")
    sentences = [
        f"In all settings: {', '.join(dict.fromkeys(same))}. Sorted by rsum on {words}, mean ± sample standard "
        f"deviation over seeds. **Chosen by that alone: setting {chosen}.**"
    ]
    if len(ranked) > 1:
        best, after = ([run.results["dev_rsum"] for run in outcome.runs] for outcome in ranked[:2])
        sentences.append(
            f"Setting {chosen} − setting {ranked[1].setting.number}, the next: {paired_interval(best, after)} in rsum "
            f"on {words} (95 % over seeds, paired t), and the best of many is in part the luckiest."
        )
    if split == words:
        last = f"There is no test split here: these are the numbers on {split} which chose, and so flatter the setting."
    else:
        last = (
            f"Only the chosen setting's numbers on {split} are shown. Those of the others had no part in the choice; "
            "they are in their run folders."
        )
    return [*sentences, last]
