"""What every study does: prepare, train side by side, execute the notebooks, report. What is finished is not redone."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from uwml_lib.config import ExperimentConfig, StudyOptions, preset
from uwml_lib.datasets import EMBEDDED, check_data, prepare_data
from uwml_lib.reports.report import Report
from uwml_lib.reports.site.build import build
from uwml_lib.reports.site.results import Shown
from uwml_lib.runs.study_runs import StudyRuns, save_study, settings_that_differ
from uwml_lib.studies.committed import Committed
from uwml_lib.studies.notebooks import check_parameters, execute_all, paths_of
from uwml_lib.studies.side_by_side import check_runs, workers
from uwml_lib.studies.study import Request, Study
from uwml_lib.studies.tuned import Tuned, read_settings
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import lock, read_json, write_json
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, counted, duration, say
from uwml_lib.training.runner import check_config, with_batch_that_fits

STEPS = ("data", "training", "notebooks")


def run_study(study: Study, options: StudyOptions, say: Say = say) -> tuple[StudyRuns, Report]:
    """Run a study from the data to its report; return its runs too. Called again it goes on, and does no work twice.

    Raises UWMLError, before anything long, for what cannot work.
    """
    times = [time.monotonic()]
    base, smoke = base_config(options), options.profile == "smoke"
    seeds = read_seeds(options.seeds, study.smoke_seeds if smoke else study.seeds)
    check_config(base)
    folder, parameters = report_folder(base.dataset), {"DATASET": base.dataset, "DATA_ROOT": base.data_root}
    _check_settings(study, options, seeds)
    _prepare(study, base, parameters, say)
    base = base if "batch_size" in options.others else with_batch_that_fits(base, say)
    committed = Committed(Path(options.committed), base.dataset) if options.committed else None
    request = Request(base, seeds, smoke, say, given_settings(options), committed)
    plan = study.plan(request)
    configs = [config for group in plan.values() for config in group]
    check_runs(configs)
    times.append(time.monotonic())
    began = time.time()
    with lock(folder, say):
        if committed:
            committed.check(base)
            say(f"{committed.folder}: {counted(committed.take(), 'finished run')} taken from there")
        if configs:
            say(f"2/4 training: {counted(len(configs), 'run')}, {workers(base.threads)} at a time")
        trained = iter(request.train(configs))
        groups = {name: [next(trained) for _ in group] for name, group in plan.items()}
        runs = save_study(base.dataset, study.name, groups | study.more(request, groups))
        times.append(time.monotonic())
        say("3/4 notebooks")
        execute_all(paths_of(study, base.dataset), parameters, folder, runs.digest, say)
        times.append(time.monotonic())
        say("4/4 report")
        report = study.report(runs)
        # Of a study that went on from earlier work the durations would promise too much.
        if all((run.folder / "results.json").stat().st_mtime >= began for run in runs.all_runs):
            _note_durations(folder / "durations.json", study, runs, times)
        index = build_pages(say, {(study.name, base.dataset): runs})
    say(f"\n{report.to_markdown()}\nDone in {duration(time.monotonic() - times[0])}. Report: {index}")
    if study.next:
        say(study.next)
    return runs, report


def _prepare(study: Study, config: ExperimentConfig, parameters: dict[str, Any], say: Say) -> None:
    """Build or download the data if need be; raise UWMLError for notebooks or data that do not go with the study."""
    for notebook in paths_of(study, config.dataset):
        check_parameters(notebook, parameters)
    say(f"1/4 data: {config.dataset}")
    prepare_data(config, say, fetch=True)
    if (varying := check_data(config)[0].varying) != study.sequences:
        what, target = ("unequal", "videos") if varying else ("equal", "reproduce")
        raise UWMLError(
            f"{config.data_folder}: has items of {what} numbers of regions, which are for `make {target} "
            f"DATASET={shlex.quote(config.dataset)}`"
        )


def _check_settings(study: Study, options: StudyOptions, seeds: Sequence[int]) -> None:
    """Raise UWMLError for a given setting that the study changes itself."""
    usual = Request(base_config(replace(options, others={})), seeds, options.profile == "smoke", lambda line: None)
    planned = [config for group in study.plan(usual).values() for config in group] if options.others else []
    changed = {name for config in planned for name in settings_that_differ(config, usual.base)} - {"warmup_epochs"}
    for name in options.others:
        expected = f"none, for `uwml {study.name}` compares several itself"
        expect(name not in changed, name, repr(options.others[name]), expected)


def _note_durations(path: Path, study: Study, runs: StudyRuns, times: Sequence[float]) -> None:
    """Note how long each step of a study took; times: when it began, and when each step was done."""
    seconds = {step: round(end - start, 1) for step, (start, end) in zip(STEPS, pairwise(times), strict=True)}
    noted = read_json(path) if path.exists() else {}
    noted[study.name] = {"seconds": seconds, "runs": [run.folder.name for run in runs.all_runs]}
    write_json(path, noted)


def base_config(options: StudyOptions) -> ExperimentConfig:
    """Return the data set's preset with what was asked for, or what is tiny enough for a smoke test."""
    dataset, overrides = options.dataset, dict[str, Any](data_root=options.data_root)
    if options.profile == "smoke" and dataset in EMBEDDED:
        dataset = f"{dataset.removesuffix('_smoke')}_smoke"
    elif options.profile == "smoke":
        overrides |= {"embed_size": 32, "word_dim": 16, "max_images": 200, "epochs": 2, "decay_epoch": 1}
        overrides["selection_images"] = min(50, preset(dataset).selection_images)
    if options.epochs is not None:
        overrides["epochs"] = options.epochs
    return preset(dataset, **overrides | options.others)


def given_settings(options: StudyOptions) -> Tuned:
    """Read the file of settings, if there is one. An option that was given besides holds for all losses, and so does
    the length of a tiny test.
    """
    tuned = read_settings(Path(options.settings)) if options.settings else {}
    asked = {*options.others}
    if options.profile == "smoke" or options.epochs is not None:
        asked |= {"epochs", "decay_epoch"}
    return {loss: {key: value for key, value in of.items() if key not in asked} for loss, of in tuned.items()}


def read_seeds(words: str, usual: Sequence[int]) -> tuple[int, ...]:
    """Read seeds separated by blanks or commas, each once; `usual` if there are no words. Raises UWMLError."""
    try:
        seeds = [int(seed) for seed in words.replace(",", " ").split()] if words else usual
    except ValueError:
        seeds = []
    expect(0 < len(seeds) == len({*seeds}), "seeds", repr(words), "whole numbers such as '0 1 2', each once")
    return tuple(seeds)


def build_pages(say: Say = say, known: Mapping[tuple[str, str], StudyRuns] | None = None) -> Path:
    """Build all pages and return the index; known: (study, data set) -> runs that are loaded already."""
    from uwml_lib.studies import STUDIES
    from uwml_lib.studies.course import course_table

    shown = [
        Shown(x.name, x.table or x.name, x.title, x.figure, x.notebooks, x.report, x.usual_dataset)
        for x in STUDIES.values()
    ]
    return build(shown, say, known or {}, course_table())
