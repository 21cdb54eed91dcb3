"""One training: `Trainer.step` is the whole method, `Trainer.fit` the loop around it."""

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, set_seed
from torch import Tensor
from torch.utils.data import DataLoader

from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import Batch, Vocabulary, build_vocabulary, evaluation_split, load_selection, load_split
from uwml_lib.datasets.batches import may_be_negatives
from uwml_lib.datasets.loading import coverage_line, words_covered
from uwml_lib.datasets.sampler import training_sampler
from uwml_lib.evaluation import retrieval_metrics, score_matrix
from uwml_lib.evaluation.statistics import chance_rsum
from uwml_lib.losses import LOSSES, ScoreMatrixLoss
from uwml_lib.models import Matcher, build_model
from uwml_lib.runs.provenance import provenance
from uwml_lib.runs.scoring import device_of, member_of, naming
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.numerics import tf32_products, threads
from uwml_lib.support.progress import Say, duration, progress, say
from uwml_lib.training.alarms import alarms
from uwml_lib.training.processes import ScoresOfAll, find_processes, gather, process_count
from uwml_lib.training.resume import TrainingState, read_steps

AfterEpoch = Callable[[list[dict[str, Any]]], None]


@contextlib.contextmanager
def computing(config: ExperimentConfig) -> Iterator[None]:
    """Compute with the threads and the precision of products that a configuration names; afterwards as before."""
    with threads(config.threads), tf32_products(config.mixed_precision == "tf32"):
        yield


class Diverged(UWMLError):
    """Scores or a loss that are no longer finite: these settings cannot be trained so."""


class Trainer:
    """One training; `step` is the whole method, `fit` the loop around it, `state` what it goes on from.

    Make and use it within `computing(config)`, as `train` does; else results depend on how torch is set. data: see
    `provenance`.
    """

    def __init__(self, config: ExperimentConfig, folder: Path, say: Say = say, data: str = "") -> None:
        self.config, self.folder = config, folder
        self.name = f"{config.loss} seed {config.seed}" + ("" if config.warmup_epochs else ", no warm-up")
        self.say: Say = lambda words: say(f"{self.name}: {words}")
        find_processes(config)
        # split_batches: batch_size is that of all processes together
        loading = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed, split_batches=True)
        self.accelerator = Accelerator(
            cpu=device_of(config) == "cpu",
            mixed_precision="no" if config.mixed_precision == "tf32" else config.mixed_precision,
            dataloader_config=loading,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # else the environment decides
        )
        self.vocabulary = _run_vocabulary(config, folder)
        self.train_set = load_split(config, "train", self.vocabulary)
        self.selection_set = load_selection(config, self.vocabulary)
        self._say_coverage()  # encodes the captions, too: like the next line here once, and not in every worker
        self.train_set.sentences  # noqa: B018

        set_seed(config.seed)
        with _plain_errors(folder):
            self.model = build_model(config, self.train_set.feature_dim, self.train_set.caption_size)
            if config.start_from and not (folder / "checkpoint/last.pt").exists():  # else it has weights of its own
                _take_weights(config, self.model, self.vocabulary)
            # Fused: one pass over all weights.
            optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=True)
            scores = ScoresOfAll(self.model)
            self.score, self.optimizer = self.accelerator.prepare(scores, optimizer)
            self.by_vectors = scores.by_vectors
        self.sampler = training_sampler(config, self.train_set)
        self.loader = self._load_batches()
        self.loss = build_loss(config)
        self.warmup_loss = self.loss.dense()
        self.warned = False
        session = provenance(self.accelerator.device, data)
        self.state = TrainingState(folder, self.model, self.optimizer, self.accelerator, session)

    def _load_batches(self) -> Any:
        """Return the loader of the training pairs; of several processes, each has its share of every batch."""
        config = self.config
        batches: dict[str, Any] = {"batch_size": config.batch_size, "shuffle": True, "drop_last": True}
        return self.accelerator.prepare_data_loader(
            DataLoader(
                range(len(self.train_set)),  # type: ignore[arg-type]  # any sequence will do
                **(batches if self.sampler is None else {"batch_sampler": self.sampler}),
                collate_fn=self.train_set.batch,
                num_workers=config.workers,
                persistent_workers=config.workers > 0,
                pin_memory=self.accelerator.device.type == "cuda",
                generator=torch.Generator(),  # else a new start would draw from the random numbers of the training
            ),
            device_placement=False,  # the lengths stay on the CPU
        )

    def _say_coverage(self) -> None:
        """Say which share of each split's words the vocabulary has; raises UWMLError if it has none."""
        sets = {"train": self.train_set, self.config.chosen_by: self.selection_set}
        if (tested := evaluation_split(self.config.data_folder)) not in sets:
            sets[tested] = load_split(self.config, tested, self.vocabulary)
        if line := coverage_line(words_covered(sets)):
            self.say(line)

    def fit(self, after_epoch: AfterEpoch | None = None) -> None:
        """Train the epochs, and of one that was begun the steps, that are still to do.

        after_epoch: called with the records of all finished epochs once the state after an epoch is kept; what it
        raises stops the training.
        """
        self.state.resume(self.say)
        for epoch in range(len(self.state.epochs), self.config.epochs):
            self.state.started = time.monotonic() - self.state.seconds
            self.loader.set_epoch(epoch)
            if self.sampler is not None:  # which accelerate does not tell where several processes share its batches
                self.sampler.set_epoch(epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, epoch)
            with _plain_errors(self.folder):
                self._train_epoch(epoch)
                dev = self._select()
            self._finish_epoch(epoch, dev, time.monotonic() - self.state.started)
            if after_epoch:
                after_epoch(self.state.epochs)

    def step(self, batch: Batch, loss: ScoreMatrixLoss) -> dict[str, Tensor]:
        """One update: scores of the batch, loss, gradients, clipping, Adam.

        Nothing here is read from the device (but by the gradient scaler of fp16). Returns scalars that stay there.
        """
        value, statistics = self._loss(batch, loss)
        self.optimizer.zero_grad()
        self.accelerator.backward(value)
        limit = self.config.gradient_clip or math.inf
        gradient_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        return {"loss": value.detach(), "gradient_norm": gradient_norm, **statistics}

    def _loss(self, batch: Batch, loss: ScoreMatrixLoss) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the batch of all processes, and its statistics."""
        found = self.score(batch.features, batch.tokens, batch.lengths, batch.counts)
        who = self._negatives(batch)
        if self.by_vectors:
            who |= {"similarity": "dot", "process_group": dist.group.WORLD, "return_statistics": True}
            return loss.from_embeddings(*found, **who)
        return loss(found, **who), loss.statistics(found.detach(), **who)

    def _negatives(self, batch: Batch) -> dict[str, Any]:
        """What the loss is told of who is no negative: of the images whose scores, or vectors, this process has."""
        everybodys = gather(batch.image_ids)
        image_ids, who = batch.image_ids if self.by_vectors else everybodys, {}
        if self.config.siblings == "ignored":
            who["image_ids"] = image_ids
        if self.config.twins == "ignored":
            sentences = gather(batch.sentences)
            own = batch.sentences if self.by_vectors else sentences
            who["negatives"] = may_be_negatives(own, image_ids, sentences[:, 0], everybodys)
        return who

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        loss = self.warmup_loss if epoch < self.config.warmup_epochs else self.loss
        done, steps = self.state.step, len(self.loader)
        batches = skip_first_batches(self.loader, done) if done else self.loader
        bar = progress(batches, f"{self.name}, epoch {epoch + 1}/{self.config.epochs}")
        for step, batch in enumerate(bar, done + 1):
            try:
                self.state.pending.append(metrics := self.step(batch.to(self.accelerator.device), loss))
            except ValueError as error:  # of a loss that was told to look for scores that are not finite
                raise self._diverged(str(error), epoch, step) from error
            if step % self.config.log_every == 0 or step == steps:
                self._log_steps(epoch, step)
            self._keep_step(step, metrics)

    def _keep_step(self, step: int, metrics: dict[str, Tensor]) -> None:
        """Keep the state if it is time to, and if the step has not spoilt the weights."""
        due = time.monotonic() - self.state.kept_at >= 60 * self.config.checkpoint_minutes
        if due and all(math.isfinite(metrics[name]) for name in ("loss", "gradient_norm")):
            self.state.keep_step(step)

    def _log_steps(self, epoch: int, step: int) -> None:
        """Read the pending metrics from the device, all at once; their mean goes to metrics.jsonl."""
        values, self.state.pending = read_steps(self.state.pending), []
        columns = {name: [value[name] for value in values] for name in values[0]}
        for at, loss in enumerate(columns["loss"], step - len(values) + 1):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}", epoch, at)
        finite = {name: [value for value in column if math.isfinite(value)] for name, column in columns.items()}
        means = {name: sum(column) / len(column) if column else None for name, column in finite.items()}
        if (above := means.get("above_ceiling_share") or 0) > 0.01 and not self.warned:
            self.warned = True
            self.say(
                f"{100 * above:.0f} % of the positives score at or above positive_ceiling and are skipped; for such "
                "scores set it to None and choose the coefficients anew"
            )
        self.state.append({
            "kind": "step", "epoch": epoch, "step": step, "warmup": epoch < self.config.warmup_epochs,
            "learning_rate": learning_rate(self.config, epoch), **means,
        })  # fmt: skip

    def _diverged(self, what: str, epoch: int, step: int) -> Diverged:
        return Diverged(
            f"{self.folder.name}: {what} at epoch {epoch + 1}, step {step}; stopped, and the state after "
            f"{self.state.reached} is kept; lower the learning rate"
        )

    def _select(self) -> dict[str, Any]:
        """Metrics on the images that choose the best epoch; several processes share the work."""
        part = self.accelerator.process_index, self.accelerator.num_processes
        with naming(self.selection_set):
            scores = score_matrix(self.model, self.selection_set, precision=self.config.evaluation_precision, part=part)
            if process_count() > 1:
                scores = self.accelerator.reduce(scores.to(self.accelerator.device), "sum").cpu()
            return retrieval_metrics(scores, self.selection_set.captions_per_image)

    def _finish_epoch(self, epoch: int, dev: dict[str, Any], seconds: float) -> None:
        """Keep what the epoch has given, and say it."""
        record = {"kind": "epoch", "epoch": epoch, "seconds": seconds, **{f"dev_{name}": dev[name] for name in dev}}
        self.state.finish_epoch(record, {
            "config": self.config.to_dict(), "epoch": epoch, "dev_rsum": dev["rsum"],
            "feature_dim": self.train_set.feature_dim, "vocabulary_size": len(self.vocabulary),
            "caption_size": self.train_set.caption_size,
        })  # fmt: skip
        done = self.state.epochs
        left = (self.config.epochs - epoch - 1) * sum(item["seconds"] for item in done) / len(done)
        phase = " (warm-up)" if epoch < self.config.warmup_epochs else ""
        self.say(
            f"epoch {epoch + 1}/{self.config.epochs}{phase}, {self.config.chosen_by} rsum "
            f"{dev['rsum']:.1f} (best {self.state.best_rsum:.1f}), {duration(seconds)}"
            + (f", about {duration(left)} left" if left else "")
        )
        steps = [line for line in self.state.records if line["kind"] == "step" and line["epoch"] == epoch]
        chance = chance_rsum(len(self.selection_set.features), self.selection_set.captions_per_image)
        for alarm in alarms(self.config, self.loss, steps, dev["rsum"], chance):
            self.say(alarm)


def build_loss(config: ExperimentConfig) -> ScoreMatrixLoss:
    """Build the loss a configuration names; raises UWMLError for an unknown name or argument."""
    expect(config.loss in LOSSES, "loss", repr(config.loss), f"one of {', '.join(LOSSES)}")
    arguments = inspect.signature(LOSSES[config.loss]).parameters
    if unknown := [name for name in config.loss_options if name not in arguments]:
        raise UWMLError(f"loss_options of {config.loss}: found {unknown[0]!r}, expected some of {', '.join(arguments)}")
    try:
        # The trainer looks for non-finite values itself, without making the device wait at every step.
        return LOSSES[config.loss](**{"check_finite": False, **config.loss_options})
    except (TypeError, ValueError, OverflowError) as error:
        raise UWMLError(f"loss_options of {config.loss}: {error}") from error


def learning_rate(config: ExperimentConfig, epoch: int) -> float:
    """Step decay of the released code: a tenth after every `decay_epoch` epochs."""
    return config.learning_rate * 0.1 ** (epoch // config.decay_epoch)


def _take_weights(config: ExperimentConfig, model: Matcher, vocabulary: Vocabulary) -> None:
    """Give a model the best weights of the run that it begins with; raises UWMLError where they do not fit."""
    folder = paths.RUNS / config.dataset / config.start_from
    start = member_of(folder, config.data_root)
    same_words = start.vocabulary.words == vocabulary.words
    expect(same_words, "start_from", f"{folder}, which knows other words", "a run on the same data")
    same = start.config.model == config.model
    expect(same, "start_from", f"{folder}, a run of {start.config.model}", f"one of {config.model}")
    try:
        model.load_state_dict(start.model.state_dict())
    except RuntimeError as error:
        what = f"{folder}, whose weights have other shapes"
        raise UWMLError(f"start_from: found {what}, expected a run with the same settings of the model") from error


@contextlib.contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """Turn what torch says of a full memory, or of a process that is gone, into a sentence."""
    try:
        yield
    except UWMLError as error:  # one raised in a worker process arrives with that process's traceback
        raise type(error)(str(error).strip().rpartition(f"{type(error).__name__}: ")[2]) from error
    except (RuntimeError, MemoryError) as error:
        lost = ("connection", "gloo", "nccl")
        if process_count() > 1 and any(word in str(error).lower() for word in lost):
            raise UWMLError(f"{folder.name}: another process is gone, or cannot be reached ({error})") from error
        words = ("can't allocate memory", "out of memory", "storage size", "overflow")
        if isinstance(error, RuntimeError) and not any(word in str(error).lower() for word in words):
            raise
        raise UWMLError(f"{folder.name}: out of memory; lower batch_size, embed_size or word_dim") from error


def _run_vocabulary(config: ExperimentConfig, folder: Path) -> Vocabulary:
    path, processes = folder / "vocabulary.json", PartialState()
    with processes.main_process_first():
        # one without the other may be of other data
        if processes.is_main_process and not (folder / "config.json").exists():
            vectors = config.captions == "vectors"
            (Vocabulary.build(()) if vectors else build_vocabulary(config.data_folder)).save(path)
    return Vocabulary.load(path)
