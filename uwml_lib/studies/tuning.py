"""Choose settings by training them: trials of Optuna, shared by processes and machines through its storage.

A worker takes a setting by its lock, settings/NUMBER.lock in the sweep's folder, and holds it while it trains. The
system releases the locks of a process that is killed, so a trial that is RUNNING while its setting's lock is free was
left behind: who finds it marks it as failed and tries its values again, which goes on from the checkpoint in the run
folder. Machines that share the folder without locks that all of them see need a database: there Optuna's heartbeats
tell who is gone.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from filelock import FileLock, Timeout
from optuna.samplers import PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import check_data, fingerprint, prepare_data
from uwml_lib.evaluation.statistics import Summary, summarize
from uwml_lib.runs.checkpoints import read_metrics
from uwml_lib.runs.run import Run
from uwml_lib.studies.search_space import LARGEST, Sampler, Space, configured, examples, settings_of, stored, suggest
from uwml_lib.studies.side_by_side import die_with_parent, run_folders, side_by_side, train_all, workers
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import make_folder
from uwml_lib.support.progress import Say, say
from uwml_lib.training.runner import check_config, check_model_fits, train

POLL = 2.0  # seconds between two looks of a worker that waits for others
HEARTBEAT = 60  # seconds between two signs of life in a database; who misses three is gone
COMPLETE_FIRST = 4  # trials, before another is pruned


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
        """The settings of a grid; empty ones where they are drawn."""
        return settings_of(self.space, self.sampler, self.samples)

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
                    pruner=optuna.pruners.MedianPruner(COMPLETE_FIRST),
                )  # fmt: skip
        except Exception as error:  # of SQLAlchemy, of a database's driver, or for a damaged journal
            where, hint = f"{self.folder}/journal.log", "remove it, for the runs are kept"
            if self.storage:
                where, hint = "storage", "expected a URL such as sqlite:////folder/sweeps.db"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UWMLError(f"{where}: {reason}; {hint}") from error


class Outcome(NamedTuple):
    """What became of a setting: complete, with runs and their rsum on dev over seeds; pruned; or failed, with why."""

    number: int
    values: dict[str, Any]
    state: str
    runs: tuple[Run, ...]
    dev: Summary | None
    error: str


def tune(sweep: Sweep, say: Say = say) -> list[Outcome]:
    """Train all settings of a sweep, or take part where others do; return them, the best first.

    The best has the highest mean rsum over seeds on the images that choose the best epoch, which is dev unless
    `selection_images` says otherwise; those that were pruned or failed come last. Called again it trains nothing twice,
    and tries again what failed. Raises UWMLError before anything is trained for what cannot be, and in the end if
    workers were killed and none was left to take over.
    """
    check_sweep(sweep, say)
    with quiet_optuna():
        study = sweep.study()
        with sweep.lock("study"):
            _check_same(sweep, study)
        since, numbers = len(study.get_trials(deepcopy=False)), range(1, len(sweep.settings) + 1)
        left = sum(not _settled(_trials(study, number), since) for number in numbers)
        say(f"{sweep.folder}: {left} of {len(numbers)} settings to do, with {len(sweep.seeds)} seeds each")
        _work_side_by_side(sweep, since, left, say)
        outcomes = [_outcome(sweep, study, number) for number in numbers]
    order = ("complete", "pruned", "failed")
    return sorted(outcomes, key=lambda one: (order.index(one.state), -one.dev.mean if one.dev else 0))


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


def check_sweep(sweep: Sweep, say: Say = say) -> None:
    """Raise UWMLError for what can be known to fail before anything is trained; build the data if they are not here."""
    name = sweep.name
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise UWMLError(f"name: found {name!r}, expected the name of a folder")
    drawn = not any(sweep.settings)
    configs = [sweep.configs(values)[0] for values in (examples(sweep.space) if drawn else sweep.settings)]
    for config in configs:
        check_config(config)
    prepare_data(sweep.base, say)
    for config in configs:
        check_model_fits(config)
    check_data(configs[0])


def _check_same(sweep: Sweep, study: optuna.Study) -> None:
    """Note what is tried; raise UWMLError if the study is of something else."""
    about = {item.name: getattr(sweep, item.name) for item in fields(sweep) if item.name not in ("base", "storage")}
    settings = [item for item in fields(sweep.base) if "cosmetic" not in item.metadata]
    about |= {item.name: getattr(sweep.base, item.name) for item in settings}
    about = json.loads(json.dumps({**about, "data": fingerprint(sweep.base.data_folder, sweep.base.captions)}))
    if "about" not in study.user_attrs:
        study.set_user_attr("about", about)
    there = study.user_attrs["about"]
    if names := [name for name in about if about[name] != there.get(name)]:
        differs = f"{sweep.folder}: holds a sweep that differs in {', '.join(names)}"
        raise UWMLError(f"{differs}; give this one another --name")


def _trials(study: optuna.Study, number: int) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("setting") == number]


def _settled(trials: Sequence[FrozenTrial], since: int = 0) -> FrozenTrial | None:
    """Return the trial that decides what became of a setting; a failure does if its number is at least `since`."""
    last = {
        trial.state: trial
        for trial in trials
        if trial.state != TrialState.FAIL or (trial.number >= since and "error" in trial.user_attrs)
    }
    return last.get(TrialState.COMPLETE) or last.get(TrialState.PRUNED) or last.get(TrialState.FAIL)


def work(sweep: Sweep, since: int = 0, say: Say = say) -> None:
    """Train one setting after the other until all are settled; those that are with others are waited for."""
    with quiet_optuna():
        study, numbers = sweep.study(), list(range(1, len(sweep.settings) + 1))
        # Without a seed, so that each process draws otherwise.
        tpe = TPESampler(n_startup_trials=max(4, min(10, sweep.samples // 3)), constant_liar=True)
        while numbers := [number for number in numbers if not _settle(sweep, study, tpe, number, since, say)]:
            time.sleep(POLL)


def _settle(sweep: Sweep, study: optuna.Study, tpe: TPESampler, number: int, since: int, say: Say) -> bool:
    """Train a setting if it is neither settled nor with another worker; say whether it is settled."""
    try:
        with sweep.lock(f"settings/{number}").acquire(timeout=0):
            optuna.storages.fail_stale_trials(study)  # of a database
            trials = _trials(study, number)
            for trial in trials:
                if trial.state == TrialState.RUNNING:
                    if sweep.storage:  # its heart beats, and the lock says nothing
                        return False
                    study.tell(trial.number, state=TrialState.FAIL)
            if not _settled(trials, since):
                params = {**stored(sweep.settings[number - 1]), **(trials[-1].params if trials else {})}
                at_random = RandomSampler((sweep.search_seed * LARGEST + number) % 2**32)
                study.sampler = PartialFixedSampler(params, tpe if sweep.sampler == "tpe" else at_random)
                study.optimize(partial(_train_trial, sweep, number, say), n_trials=1, catch=(Exception,))
            return _settled(_trials(study, number), since) is not None
    except Timeout:
        return False


def _train_trial(sweep: Sweep, number: int, say: Say, trial: Trial) -> float:
    """Train a setting with one seed after the other; return its mean rsum on dev."""
    trial.set_user_attr("setting", number)
    if any(other.number < trial.number and other.state != TrialState.FAIL for other in _trials(trial.study, number)):
        raise UWMLError("is with another worker, which does not see this one's locks")
    try:
        configs = sweep.configs(suggest(trial, sweep.space))
        folders = run_folders(configs)
        watch = partial(_watch, sweep.prune, trial, configs[0], folders[1:])
        for config, folder in zip(configs, folders, strict=True):
            first = folder == folders[0]
            train(config, folder, lambda line: say(f"setting {number}: {line}"), watch if first else None)
            if first:  # which may have been finished before
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


def _watch(prune: bool, trial: Trial, config: ExperimentConfig, others: Sequence[Path], epochs: Sequence[dict]) -> None:
    """Report the epochs of a setting's first seed, and stop the setting if it is unpromising.

    Only the first seed is watched, so that like is compared with like: the same batches in the same order.
    """
    for epoch in epochs:
        trial.report(epoch["dev_rsum"], epoch["epoch"])
    late = len(epochs) > max(config.warmup_epochs, config.epochs // 2)
    left = len(epochs) < config.epochs or any(not (folder / "results.json").exists() for folder in others)
    if prune and late and left and trial.should_prune():
        raise optuna.TrialPruned


def _work_side_by_side(sweep: Sweep, since: int, settings: int, say: Say) -> None:
    """Work in as many processes as there are cores for, or in this one; what a killed one leaves, the others do."""
    count = min(workers(sweep.base.threads), settings)
    if count <= 1:
        work(sweep, since, say)
        return
    with side_by_side(sweep.base.threads) as context:
        processes = [context.Process(target=_work_in_child, args=(sweep, since)) for _ in range(count)]
        for process in processes:
            process.start()
    try:
        for process in processes:
            process.join()
    finally:  # after Ctrl-C there are some left
        for process in processes:
            process.terminate()


def _work_in_child(sweep: Sweep, since: int) -> None:
    die_with_parent()
    work(sweep, since)


def _outcome(sweep: Sweep, study: optuna.Study, number: int) -> Outcome:
    trial = _settled(_trials(study, number))
    if trial is None:
        raise UWMLError(
            f"{sweep.name}: not all settings are done, for a worker stopped or was killed, perhaps for want of memory; "
            "the same command goes on"
        )
    values, error = suggest(trial, sweep.space), trial.user_attrs.get("error", "")
    if trial.state != TrialState.COMPLETE:
        return Outcome(number, values, "failed" if error else "pruned", (), None, error)
    runs = tuple(train_all(sweep.configs(values), lambda line: None))
    return Outcome(number, values, "complete", runs, summarize([run.results["dev_rsum"] for run in runs]), "")
