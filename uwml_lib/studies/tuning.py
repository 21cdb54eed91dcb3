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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, Trial, TrialState

from uwml_lib.config import ExperimentConfig, is_folder_name
from uwml_lib.datasets import check_data, fingerprint, prepare_data
from uwml_lib.evaluation.statistics import Summary, summarize
from uwml_lib.runs.checkpoints import read_metrics
from uwml_lib.runs.run import Run
from uwml_lib.studies.search_space import Sampler, Space, configured, examples, settings_of, suggest
from uwml_lib.studies.side_by_side import check_runs, run_folders, side_by_side, train_all, workers
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import make_folder
from uwml_lib.support.progress import Say, say
from uwml_lib.training.processes import die_with_parent
from uwml_lib.training.runner import train

POLL = 2.0  # seconds between two looks of a worker that waits for others
HEARTBEAT = 60  # seconds between two signs of life in a database; who misses three is gone
COMPLETE_FIRST = 4  # trials, before another is pruned
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Sweep:
    """What is tried for the loss of `base`, and where what is known of it lies.

    space: see `check_space`. samples: settings to draw, at random, which depends on `search_seed` alone, or by TPE.
    prune: stop a setting that, after the warm-up and half of the epochs, falls below the median of the complete ones.
    storage: an Optuna URL of a database; "" means a journal in the sweep's folder.
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

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return paths.SWEEPS / self.base.dataset / self.name

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The settings as parameters of Optuna, from number 1; empty where TPE draws them in their turn."""
        return settings_of(self.space, self.sampler, self.samples, self.search_seed)

    def configs(self, values: Mapping[str, Any]) -> list[ExperimentConfig]:
        """Return the configurations of a setting, one for each seed."""
        return [configured(self.base, values, seed) for seed in self.seeds]

    def lock(self, name: str) -> FileLock:
        """Return a lock in the sweep's folder."""
        path = self.folder / f"{name}.lock"
        make_folder(path.parent)
        return FileLock(path)

    def study(self) -> optuna.Study:
        """Open the sweep's Optuna study; raises UWMLError if that cannot be."""
        journal: Any = self.lock("journal.log")  # Optuna's own would outlive a killed process by half a minute
        try:
            with self.lock("study"):
                return optuna.create_study(
                    study_name=f"{self.base.dataset}/{self.name}", direction="maximize", load_if_exists=True,
                    storage=RDBStorage(self.storage, heartbeat_interval=HEARTBEAT, grace_period=3 * HEARTBEAT)
                    if self.storage else JournalStorage(JournalFileBackend(f"{self.folder}/journal.log", journal)),
                    pruner=MedianPruner(COMPLETE_FIRST),
                    # Without a seed, so that each process draws otherwise.
                    sampler=TPESampler(n_startup_trials=max(4, min(10, self.samples // 3)), constant_liar=True),
                )  # fmt: skip
        except Exception as error:  # of SQLAlchemy, of a database's driver, or for a damaged journal
            reason = (str(error) or type(error).__name__).splitlines()[0]
            if self.storage:
                raise UWMLError(f"storage: {reason}; expected a URL such as sqlite:////folder/sweeps.db") from error
            raise UWMLError(f"{self.folder}/journal.log: {reason}; remove it, for the runs are kept") from error


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
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "The reported value is ignored")  # for it was reported before
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@quiet_optuna()
def tune(sweep: Sweep, say: Say = say) -> list[Outcome]:
    """Train all settings of a sweep, or take part where others do; return them, the best first.

    The best has the highest mean rsum over seeds on the images that choose the best epoch; those that were pruned or
    failed come last. Called again it trains nothing twice, and tries again what failed. Raises UWMLError before
    anything is trained for what cannot be, and in the end if workers were killed and none was left to take over.
    """
    check_sweep(sweep, say)
    study = sweep.study()
    with sweep.lock("study"):
        _check_same(sweep, study)
        _fill_the_queue(sweep, study, failed=True)
    left = len(_open_trials(study))
    say(f"{sweep.folder}: {left} of {len(sweep.settings)} settings to do, with {len(sweep.seeds)} seeds each")
    _work_side_by_side(sweep, left, say)
    return _outcomes(sweep, study)


@quiet_optuna()
def check_sweep(sweep: Sweep, say: Say = say) -> None:
    """Raise UWMLError for what can be known to fail before anything is trained; build the data if they are not here."""
    if not is_folder_name(sweep.name):
        raise UWMLError(f"name: found {sweep.name!r}, expected the name of a folder")
    tried = [suggest(FixedTrial(params), sweep.space) for params in sweep.settings if params]
    configs = [sweep.configs(values)[0] for values in tried or examples(sweep.space)]
    prepare_data(sweep.base, say)
    check_runs(configs)
    check_data(configs[0])


def _check_same(sweep: Sweep, study: optuna.Study) -> None:
    """Note what is tried; raise UWMLError if the study is of something else."""
    about = {name: value for name, value in asdict(sweep).items() if name not in ("base", "storage")}
    about |= sweep.base.identity | {"data": fingerprint(sweep.base.data_folder, sweep.base.captions)}
    about = json.loads(json.dumps(about))
    if "about" not in study.user_attrs:
        study.set_user_attr("about", about)
    there = study.user_attrs["about"]
    if names := [name for name in about if about[name] != there.get(name)]:
        differs = f"{sweep.folder}: holds a sweep that differs in {', '.join(names)}"
        raise UWMLError(f"{differs}; give this one another --name")


def _open_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))


def _fill_the_queue(sweep: Sweep, study: optuna.Study, failed: bool = False) -> None:
    """Queue the settings that are new, those that gone workers left behind, and, if so told, those that failed."""
    optuna.storages.fail_stale_trials(study)  # of a database, where hearts beat, and locks say nothing
    for trial in _open_trials(study) if not sweep.storage else ():
        if trial.state == TrialState.RUNNING:
            with contextlib.suppress(Timeout), sweep.lock(f"trials/{trial.number}").acquire(timeout=0):
                study.tell(trial.number, state=TrialState.FAIL)
    params: dict[int | None, dict[str, Any]] = {}
    there = set()
    for trial in study.get_trials(deepcopy=False):
        params.setdefault(number := trial.user_attrs.get("setting"), {}).update(trial.params)  # what was drawn stays
        if trial.state != TrialState.FAIL or ("error" in trial.user_attrs and not failed):
            there.add(number)
    for number, setting in enumerate(sweep.settings, 1):
        if number not in there:
            study.enqueue_trial({**setting, **params.get(number, {})}, {"setting": number})


@quiet_optuna()
def work(sweep: Sweep, say: Say = say) -> None:
    """Train one setting after the other until all are settled; those that are with others are waited for."""
    if multiprocessing.parent_process():
        die_with_parent()
    study, turn = sweep.study(), sweep.lock("study")
    while _open_trials(study):
        with turn:  # but for the training itself, so that no trial is RUNNING without its lock
            _fill_the_queue(sweep, study)
            if waiting := study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.optimize(partial(_train_trial, sweep, turn, say), n_trials=1, catch=(Exception,))
        if not waiting:
            time.sleep(POLL)


def _train_trial(sweep: Sweep, turn: FileLock, say: Say, trial: Trial) -> float:
    """Train a setting with one seed after the other; return its mean rsum on dev.

    Only the first seed is watched, so that like is compared with like: the same batches in the same order.
    """
    number, study = trial.user_attrs["setting"], trial.study
    for other in study.get_trials(deepcopy=False)[: trial.number]:
        if other.user_attrs.get("setting") == number and other.state != TrialState.FAIL:
            raise UWMLError("is with another worker, which does not see this one's locks")
    with sweep.lock(f"trials/{trial.number}"):
        turn.release()
        try:
            configs = sweep.configs(suggest(trial, sweep.space))
            first, folders = configs[0], run_folders(configs)

            def watch(epochs: list[dict[str, Any]]) -> None:
                for epoch in epochs:
                    trial.report(epoch["dev_rsum"], epoch["epoch"])
                late = len(epochs) > max(first.warmup_epochs, first.epochs // 2)
                saves = len(epochs) < first.epochs or not all((of / "results.json").exists() for of in folders[1:])
                if sweep.prune and late and saves and trial.should_prune():
                    raise optuna.TrialPruned

            for config, folder in zip(configs, folders, strict=True):
                train(config, folder, lambda line: say(f"setting {number}: {line}"), watch if config == first else None)
                if config == first:  # which may have been finished before
                    watch([line for line in read_metrics(folder) if line["kind"] == "epoch"])
            return summarize([Run.load(folder).results["dev_rsum"] for folder in folders]).mean
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


def _work_side_by_side(sweep: Sweep, settings: int, say: Say) -> None:
    """Work in as many processes as there are cores for, or in this one; what a killed one leaves, the others do."""
    count = min(workers(sweep.base.threads), settings)
    if count <= 1:
        work(sweep, say)
        return
    with side_by_side(sweep.base.threads) as context:
        processes = [context.Process(target=work, args=(sweep,)) for _ in range(count)]
        for process in processes:
            process.start()
    try:
        for process in processes:
            process.join()
    finally:  # after Ctrl-C there are some left
        for process in processes:
            process.terminate()


def _outcomes(sweep: Sweep, study: optuna.Study) -> list[Outcome]:
    """What became of every setting, the best first."""
    trials: dict[int, optuna.trial.FrozenTrial] = {}
    for state in reversed(STATES):  # so that of several trials of a setting the best state counts
        for trial in study.get_trials(deepcopy=False, states=(state,)):
            if state != TrialState.FAIL or "error" in trial.user_attrs:
                trials[trial.user_attrs["setting"]] = trial
    if len(trials) < len(sweep.settings):
        raise UWMLError(
            f"{sweep.name}: not all settings are done, for a worker stopped or was killed, perhaps for want of memory; "
            "the same command goes on"
        )
    outcomes = []
    for number, trial in sorted(trials.items()):
        values, error = suggest(trial, sweep.space), trial.user_attrs.get("error", "")
        runs = train_all(sweep.configs(values) if trial.state == TrialState.COMPLETE else [], lambda line: None)
        dev = summarize([run.results["dev_rsum"] for run in runs]) if runs else None
        outcomes.append(Outcome(number, values, STATES[trial.state], tuple(runs), dev, error))
    return sorted(outcomes, key=lambda one: ([*STATES.values()].index(one.state), -one.dev.mean if one.dev else 0))
