"""Choose settings by training them: trials of Optuna, shared by processes and machines through its storage.

The settings wait in Optuna's queue. Whoever takes one holds trials/NUMBER.lock in the sweep's folder while it trains. A
killed process holds no locks, so a trial that is RUNNING while its lock is free was left behind; it is marked as failed
and its values are queued again, to go on from the checkpoint in the run folder. Machines that share the folder without
locks that all of them see need a database: there Optuna's heartbeats tell who is gone.
"""

import contextlib
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState, create_trial

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import fingerprint
from uwml_lib.evaluation.statistics import Summary, summarize
from uwml_lib.runs import Run, read_metrics
from uwml_lib.studies.side_by_side import run_folders, side_by_side, train_all, workers
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.numerics import for_now
from uwml_lib.support.progress import Say, counted, say
from uwml_lib.training.processes import die_with_parent
from uwml_lib.training.runner import train

Sampler = Literal["grid", "random", "tpe"]
Space = Mapping[str, Any]
"""Field of ExperimentConfig, or "loss." and an argument of the loss -> a list of values that differ, or a range to draw
from: {"low": ..., "high": ...}, with "log": true to draw the logarithm evenly."""

NO_DEAD_ZONE = {"negative": (0.0, 0.0, 0.9)}
DEFAULT_SPACE: Space = {
    "loss.margin": [0.1, 0.2, 0.3],
    "loss.negative": [[0.03, -0.4, 0.9], list(NO_DEAD_ZONE["negative"])],
}
"""The polynomial loss's margin, and the coefficients for negatives: as released, and without a dead zone."""

WHOLE = {item.name for item in fields(ExperimentConfig) if item.type is int}
LARGEST = 1000  # settings; more are a slip
POLL = 2.0  # seconds between two looks of a worker that waits for others
HEARTBEAT = 60  # seconds between two signs of life in a database; who misses three is gone
COMPLETE_FIRST = 4  # trials, before another is pruned
OPEN = (TrialState.RUNNING, TrialState.WAITING)
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def _stored(value: Any) -> Any:
    """A value as Optuna stores it, which knows no lists: as JSON text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


@dataclass(frozen=True)
class Sweep:
    """What is tried for the loss of `base`, and where what is known of it lies.

    samples: settings to draw, at random, which depends on `search_seed` alone, or by TPE. prune: stop a setting that,
    after half of the epochs and one after the warm-up, falls below the median of the complete ones. storage: an Optuna
    URL of a database; "" means a journal in the sweep's folder. earlier: a sweep over part of this space, whose
    settings are the first of this one. after_trial: called with the sweep's folder whenever a setting is settled.
    """

    base: ExperimentConfig
    space: Space
    seeds: tuple[int, ...] = (0,)
    sampler: Sampler = "grid"
    samples: int = 0
    search_seed: int = 0
    prune: bool = True
    storage: str = ""
    name: str = "default"
    earlier: str = ""
    after_trial: Callable[[Path], None] | None = None

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return paths.SWEEPS / self.base.dataset / self.name

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The settings as parameters of Optuna, from number 1; empty where TPE draws them in their turn."""
        if self.sampler == "grid":
            grid = product(*(map(_stored, choice) for choice in self.space.values()))
            return [dict(zip(self.space, values, strict=True)) for values in grid]
        if self.sampler == "tpe":
            return [{}] * self.samples
        study = optuna.create_study()
        for number in range(1, self.samples + 1):  # on which, with the seed, a setting depends
            study.sampler = RandomSampler((self.search_seed * LARGEST + number) % 2**32)
            self.suggest(study.ask())
        return [trial.params for trial in study.trials]

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Return the setting of an Optuna trial, one that runs, a frozen or a fixed one: name -> value."""
        values: dict[str, Any] = {}
        for name, choice in self.space.items():
            if not isinstance(choice, Mapping):
                by_stored = {_stored(value): value for value in choice}
                values[name] = by_stored[trial.suggest_categorical(name, list(by_stored))]
            elif name in WHOLE:
                values[name] = trial.suggest_int(name, **choice)
            else:  # rounded, for the last bits of a power depend on the machine
                values[name] = float(f"{trial.suggest_float(name, **choice):.6g}")
        return values

    def configs(self, values: Mapping[str, Any]) -> list[ExperimentConfig]:
        """Return the configurations of a setting, one for each seed; raises UWMLError for a value of a wrong type."""
        options = {name.removeprefix("loss."): values[name] for name in values if name.startswith("loss.")}
        others = {name: values[name] for name in values if not name.startswith("loss.")}
        config = replace(self.base, **others, loss_options={**self.base.loss_options, **options})
        return [replace(config, seed=seed) for seed in self.seeds]

    def lock(self, name: str) -> FileLock:
        """Return a lock in the sweep's folder."""
        return FileLock(self.folder / f"{name}.lock")

    def study(self) -> optuna.Study:
        """Open the sweep's Optuna study; raises UWMLError if that cannot be."""
        journal: Any = self.lock("journal.log")  # Optuna's own would outlive a killed process by half a minute
        try:
            with self.lock("study"):
                return optuna.create_study(
                    study_name=f"{self.base.dataset}/{self.name}", direction="maximize", load_if_exists=True,
                    storage=RDBStorage(self.storage, heartbeat_interval=HEARTBEAT, grace_period=3 * HEARTBEAT)
                    if self.storage else JournalStorage(JournalFileBackend(f"{self.folder}/journal.log", journal)),
                    # Without a seed, so that each process draws otherwise.
                    sampler=TPESampler(n_startup_trials=max(4, min(10, self.samples // 3)), constant_liar=True),
                )  # fmt: skip
        except Exception as error:  # of SQLAlchemy, of a database's driver, or for a damaged journal
            if self.storage:
                raise UWMLError(f"storage: {error!r}; expected a URL such as sqlite:////folder/sweeps.db") from error
            raise UWMLError(f"{self.folder}/journal.log: {error!r}; remove it, for the runs are kept") from error


class Outcome(NamedTuple):
    """What became of a setting: complete, with its runs and their rsum on dev; pruned; or failed, with why."""

    number: int
    values: dict[str, Any]
    state: str
    runs: tuple[Run, ...]
    dev: Summary | None
    error: str


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging, and from warning that much of it is experimental: what matters is said here."""
    quiet = for_now(optuna.logging.get_verbosity, optuna.logging.set_verbosity, optuna.logging.CRITICAL)
    with quiet, warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        warnings.filterwarnings("ignore", "The reported value is ignored")  # for it was reported before
        yield


@quiet_optuna()
def tune(sweep: Sweep, say: Say = say) -> list[Outcome]:
    """Train all settings of a sweep, or take part where others do; return them, the best first.

    The best has the highest mean rsum over seeds on the images that choose the best epoch; those that were pruned or
    failed come last. Called again it trains nothing twice, and tries again what failed. Raises UWMLError as
    `run_trials`.
    """
    outcomes = []
    for number, trial in sorted(run_trials(sweep, say).items()):
        values = sweep.suggest(trial)
        runs = train_all(sweep.configs(values) if trial.state == TrialState.COMPLETE else [], lambda line: None)
        dev = summarize([run.results["dev_rsum"] for run in runs]) if runs else None
        error = trial.user_attrs.get("error", "")
        outcomes.append(Outcome(number, values, STATES[trial.state], tuple(runs), dev, error))
    return sorted(outcomes, key=lambda one: ([*STATES.values()].index(one.state), -one.dev.mean if one.dev else 0))


@quiet_optuna()
def run_trials(sweep: Sweep, say: Say = say, *, again: bool = True) -> dict[int, FrozenTrial]:
    """Train all settings of a sweep, or take part where others do; return number -> Optuna's trial, settled.

    again: try what failed once more. Raises UWMLError if the folder holds another sweep, and in the end if workers were
    killed and none was left to take over.
    """
    study = sweep.study()
    apart = ("base", "storage", "after_trial", *(() if sweep.earlier else ("earlier",)))
    about = {item.name: getattr(sweep, item.name) for item in fields(sweep) if item.name not in apart}
    about |= sweep.base.identity | {"data": fingerprint(sweep.base.data_folder, sweep.base.captions)}
    about = json.loads(json.dumps(about))
    with sweep.lock("study"):
        # A setting that is new since had what is now its default.
        there = ExperimentConfig().identity | study.user_attrs.get("about", about)
        if names := [name for name in about if about[name] != there.get(name)]:
            differs = f"{sweep.folder}: holds a sweep that differs in {', '.join(names)}"
            raise UWMLError(f"{differs}; give this one another --name")
        study.set_user_attr("about", about)
        if sweep.earlier:
            _copy_trials(sweep, study)
        _fill_the_queue(sweep, study, failed=again)
        left = len(study.get_trials(deepcopy=False, states=OPEN))
    settings, seeds = counted(len(sweep.settings), "setting"), counted(len(sweep.seeds), "seed")
    say(f"{sweep.folder}: {left} of {settings} to do, with {seeds} each")
    if (count := min(workers(sweep.base.threads), left)) <= 1:
        work(sweep, say)
        return _settled(sweep, study)
    with side_by_side(sweep.base.threads) as context, contextlib.ExitStack() as afterwards:
        processes = [context.Process(target=work, args=(sweep,)) for _ in range(count)]
        for process in processes:
            process.start()
            afterwards.callback(process.terminate)  # after Ctrl-C there are some left
        for process in processes:  # what a killed one leaves, the others do
            process.join()
    return _settled(sweep, study)


def _copy_trials(sweep: Sweep, study: optuna.Study) -> None:
    """Give a sweep's study the settled trials of the earlier one, whose space is part of its own, as far as it lacks
    them.
    """
    there = {trial.user_attrs["setting"] for trial in study.get_trials(deepcopy=False)}
    earlier = replace(sweep, name=sweep.earlier, earlier="").study()
    settled = earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    for number, trial in enumerate(settled, 1):
        if number in there:
            continue
        sweep.suggest(drawn := FixedTrial(trial.params))  # from the wider space
        study.add_trial(create_trial(
            state=trial.state, params=trial.params, distributions=drawn.distributions, value=trial.value,
            intermediate_values=trial.intermediate_values, user_attrs={"setting": number},
        ))  # fmt: skip


def _fill_the_queue(sweep: Sweep, study: optuna.Study, failed: bool = False) -> None:
    """Queue the settings that are new, those that gone workers left behind, and, if so told, those that failed."""
    optuna.storages.fail_stale_trials(study)  # of a database, where hearts beat, and locks say nothing
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if not sweep.storage else ():
        with contextlib.suppress(Timeout), sweep.lock(f"trials/{trial.number}").acquire(timeout=0):
            study.tell(trial.number, state=TrialState.FAIL)
    queue, there = dict(enumerate(sweep.settings, 1)), set()
    for trial in study.get_trials(deepcopy=False):
        number = trial.user_attrs["setting"]
        queue[number] = {**queue[number], **trial.params}  # what was drawn stays
        if trial.state != TrialState.FAIL or ("error" in trial.user_attrs and not failed):
            there.add(number)
    for number in sorted(queue.keys() - there):
        study.enqueue_trial(queue[number], {"setting": number})


@quiet_optuna()
def work(sweep: Sweep, say: Say = say) -> None:
    """Train one setting after the other until all are settled; those that are with others are waited for."""
    if multiprocessing.parent_process():
        die_with_parent()
    study, turn = sweep.study(), sweep.lock("study")
    while study.get_trials(deepcopy=False, states=OPEN):
        with turn:  # but for the training itself, so that no trial is RUNNING without its lock
            _fill_the_queue(sweep, study)
            if waiting := study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.optimize(partial(_train_trial, sweep, turn, say), n_trials=1, catch=(Exception,))
                if sweep.after_trial:
                    sweep.after_trial(sweep.folder)
        if not waiting:
            time.sleep(POLL)


def _train_trial(sweep: Sweep, turn: FileLock, say: Say, trial: Trial) -> float:
    """Train a setting with one seed after the other; return its mean rsum on dev.

    Only the first seed is watched, so that like is compared with like: the same batches in the same order.
    """
    number, study = trial.user_attrs["setting"], trial.study
    for other in study.get_trials(deepcopy=False)[: trial.number]:
        if other.user_attrs["setting"] == number and other.state != TrialState.FAIL:
            raise UWMLError("is with another worker, which does not see this one's locks")
    with sweep.lock(f"trials/{trial.number}"):
        turn.release()
        try:
            (first, *others), told = sweep.configs(sweep.suggest(trial)), lambda line: say(f"setting {number}: {line}")
            folder, *folders = run_folders([first, *others])
            late = max(first.warmup_epochs, first.epochs // 2 - 1)  # epochs before the first that may be the last
            study.pruner = MedianPruner(COMPLETE_FIRST, late) if sweep.prune else NopPruner()

            def watch(epochs: list[dict[str, Any]]) -> None:
                for epoch in epochs:
                    trial.report(epoch["dev_rsum"], epoch["epoch"])
                saves = 0 < len(epochs) < first.epochs or not all((of / "results.json").exists() for of in folders)
                if saves and trial.should_prune():
                    raise optuna.TrialPruned

            train(first, folder, told, watch)
            watch([line for line in read_metrics(folder) if line["kind"] == "epoch"])  # where it was finished before
            for config, of in zip(others, folders, strict=True):
                train(config, of, told)
            return summarize([Run.load(of).results["dev_rsum"] for of in (folder, *folders)]).mean
        except optuna.TrialPruned:
            say(f"setting {number}: pruned; its checkpoint is kept")
            raise
        except Exception as error:  # a slip that stops one setting must not stop a night's work on the others
            sentence = str(error) if isinstance(error, UWMLError) else f"{type(error).__name__}: {error}"
            trial.set_user_attr("error", sentence)
            say(f"setting {number}: failed: {sentence}")
            raise
        finally:
            turn.acquire()  # until it is no longer RUNNING


def _settled(sweep: Sweep, study: optuna.Study) -> dict[int, FrozenTrial]:
    """Setting -> what became of it; of several trials the last, for it is tried again only if it failed."""
    trials = {
        trial.user_attrs["setting"]: trial
        for trial in study.get_trials(deepcopy=False, states=tuple(STATES))
        if trial.state != TrialState.FAIL or "error" in trial.user_attrs
    }
    if len(trials) < len(sweep.settings):
        raise UWMLError(
            f"{sweep.name}: not all settings are done, for a worker stopped or was killed, perhaps for want of memory; "
            "the same command goes on"
        )
    return trials
