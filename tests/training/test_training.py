"""Training: repeatable, resumable to the last bit, and loud when something is wrong."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import write_tiny
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, Vocabulary
from uwml_lib.datasets.vocabulary import SPECIALS
from uwml_lib.evaluation import evaluate_model, retrieval_metrics, score_matrix
from uwml_lib.losses import LOSSES
from uwml_lib.models import MODELS, VSE
from uwml_lib.runs import evaluate_run, load_model, read_metrics
from uwml_lib.runs import provenance as provenance_module
from uwml_lib.runs.checkpoints import load_state, save_state
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import lock, read_json, read_sealed_json
from uwml_lib.training import Trainer, learning_rate, resume, runner, train
from uwml_lib.training import trainer as trainer_module
from uwml_lib.training.resume import TrainingState

EPOCHS, STEPS = 4, 5  # 80 captions in batches of 16


def quiet(line):
    pass


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A training of a second."""
    root = tmp_path_factory.mktemp("data")
    write_tiny(root / "tiny")
    return ExperimentConfig(
        dataset="tiny", data_root=str(root), embed_size=16, word_dim=8, epochs=EPOCHS, warmup_epochs=1, batch_size=16,
        learning_rate=0.01, decay_epoch=3, device="cpu", log_every=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run that nothing interrupted."""
    return train(config, tmp_path_factory.mktemp("finished"), quiet)


@pytest.fixture
def own_data(config, tmp_path):
    """The same configuration on a copy of the data, to be damaged."""
    shutil.copytree(config.data_folder, tmp_path / "data/tiny")
    return replace(config, data_root=str(tmp_path / "data"))


def metrics(folder):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_metrics(folder)]


def weights(folder):
    return (folder / "checkpoint/best.safetensors").read_bytes()


def assert_same_run(folder, other):
    assert_same_numbers(folder, other)
    assert weights(folder) == weights(other)


def assert_same_numbers(folder, other):
    """The same but for the cosmetic settings, which stand beside the best weights."""
    assert metrics(folder) == metrics(other)
    tensors, others = (load_file(path / "checkpoint/best.safetensors") for path in (folder, other))
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    results, expected = (read_json(path / "results.json") for path in (folder, other))
    for name in ("split", "best_epoch", "dev_rsum", "metrics", "ranks"):
        assert results[name] == expected[name]


def raise_at(monkeypatch, name, call, before=True):
    """Let a method of the trainer, or of its state, fail at its n-th call, before or after its work."""
    owner = Trainer if hasattr(Trainer, name) else TrainingState
    method, calls = getattr(owner, name), []

    def wrapped(self, *arguments):
        calls.append(1)
        if before and len(calls) == call:
            raise KeyboardInterrupt
        value = method(self, *arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(owner, name, wrapped)


# ------------------------------------------------------------------------------------------------ what a run holds


def test_metrics_and_results(config, finished):
    lines = read_metrics(finished)
    assert [(line["epoch"], line["step"]) for line in lines if line["kind"] == "step"] == [
        (epoch, step) for epoch in range(EPOCHS) for step in (2, 4, 5)
    ]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(EPOCHS))
    results = read_json(finished / "results.json")
    assert results["config"] == config.to_dict()
    assert (results["split"], results["captions_per_image"]) == ("test", 2)
    assert results["dev_rsum"] == max(line["dev_rsum"] for line in epochs)
    assert len(results["ranks"]["image_to_text_ranks"]) == 14
    assert len(results["ranks"]["text_to_image_ranks"]) == 28
    assert {"command", "commit", "versions", "machine"} <= set(results["provenance"])


def test_the_best_model_is_the_one_that_was_evaluated(finished):
    model, config, vocabulary = load_model(finished)
    results = read_json(finished / "results.json")
    dev, test = (PrecomputedDataset(config.data_folder, split, vocabulary) for split in ("dev", "test"))
    assert evaluate_model(model, dev)["rsum"] == results["dev_rsum"]
    assert evaluate_model(model, test) == results["metrics"]


@pytest.mark.parametrize("loss", ["polynomial", "triplet"])
def test_it_learns(config, tmp_path, loss):
    folder = train(replace(config, loss=loss, epochs=20, decay_epoch=15, warmup_epochs=2), tmp_path / "run", quiet)
    steps = [line for line in read_metrics(folder) if line["kind"] == "step" and not line["warmup"]]
    assert np.mean([line["loss"] for line in steps[-6:]]) < 0.9 * np.mean([line["loss"] for line in steps[:6]])
    assert steps[-1]["positive_score"] > steps[0]["positive_score"]
    chance = retrieval_metrics(torch.rand(14, 28, generator=torch.Generator().manual_seed(0)), 2)["rsum"]
    assert read_json(folder / "results.json")["metrics"]["rsum"] > chance + 50


def test_the_best_epoch_is_the_first_with_the_best_dev_rsum(config, tmp_path, monkeypatch):
    after, rsums = [], iter([1.0, 5.0, 3.0, 5.0])

    def scripted(self):
        after.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return {"rsum": next(rsums)}

    monkeypatch.setattr(Trainer, "_select", scripted)
    folder = train(config, tmp_path / "run", quiet)
    results = read_json(folder / "results.json")
    assert (results["best_epoch"], results["dev_rsum"]) == (2, 5.0)
    for name, value in load_model(folder)[0].state_dict().items():
        assert torch.equal(value, after[1][name])


def test_without_a_test_split_dev_is_evaluated_and_said(own_data, tmp_path):
    for path in own_data.data_folder.glob("test_*"):
        path.unlink()
    results = read_json(train(replace(own_data, epochs=1), tmp_path / "run", quiet) / "results.json")
    assert results["split"] == "dev"
    assert results["metrics"]["rsum"] == results["dev_rsum"]


def test_a_finished_run_is_left_alone(config, finished):
    def state():
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished.rglob("*") if path.is_file()}

    before, said = state(), []
    assert train(config, finished, said.append) == finished
    assert said == [f"{finished.name}: finished before"]
    assert state() == before


def test_the_first_images_alone(config, tmp_path):
    folder = train(replace(config, max_images=10, epochs=1), tmp_path / "run", quiet)
    assert len(read_json(folder / "results.json")["ranks"]["image_to_text_ranks"]) == 10
    assert [line["step"] for line in read_metrics(folder) if line["kind"] == "step"] == [1]  # 20 captions, one batch


# ------------------------------------------------------------------------------------------------ repeatable, resumable


def test_one_seed_twice_is_the_same_run(config, finished, tmp_path):
    torch.rand(7)  # whatever happened before in this process
    np.random.rand(7)
    assert_same_run(train(config, tmp_path / "again", quiet), finished)


def test_how_data_is_loaded_or_logged_changes_nothing(config, finished, tmp_path):
    folder = train(replace(config, workers=1, log_every=1), tmp_path / "run", quiet)
    epochs, expected = (
        [line for line in metrics(path) if line["kind"] == "epoch"] for path in (folder, finished)
    )  # fmt: skip
    assert epochs == expected


def test_another_seed_is_another_run(config, finished, tmp_path):
    folder = train(replace(config, seed=1), tmp_path / "run", quiet)
    assert weights(folder) != weights(finished)
    losses, others = ([line["loss"] for line in metrics(path) if line["kind"] == "step"] for path in (folder, finished))
    assert not set(losses) & set(others)


@pytest.mark.parametrize(
    ("method", "call", "before"),
    [
        ("step", 3, True),  # in the first epoch: nothing to go on from
        ("step", 2 * STEPS + 3, True),  # in the third, with lines of it in metrics.jsonl
        ("_finish_epoch", 2, False),  # between two epochs
        ("_finish_epoch", 3, True),  # trained, but not kept
        ("append", 2 * 4 + 4, False),  # best model and metrics are kept, the state is not
        ("_finish_epoch", EPOCHS, False),  # before the test split
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_never_stopped(
    config, finished, tmp_path, monkeypatch, method, call, before
):
    folder = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, method, call, before)
        train(config, folder, quiet)
    assert not (folder / "results.json").exists()
    torch.rand(5)
    assert_same_run(train(config, folder, quiet), finished)


def test_a_run_interrupted_at_every_epoch(config, finished, tmp_path, monkeypatch):
    folder, said = tmp_path / "run", []
    for _ in range(EPOCHS):
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            raise_at(context, "_finish_epoch", 1, before=False)
            train(config, folder, said.append)
    assert_same_run(train(config, folder, said.append), finished)
    assert [line.partition(": ")[2] for line in said if "goes on" in line] == [
        f"goes on after epoch {epoch}" for epoch in range(1, EPOCHS + 1)
    ]


STOPS = (
    ("step", 2),  # after the first step of the first epoch
    ("step", 4),  # in its middle
    ("_select", 1),  # after its last step
    ("step", 4),  # in the second, with a step that is in no line of metrics.jsonl yet
)


NO_DUPLICATES = {"batches": "no_duplicates", "batch_size": 14}  # which are five an epoch too


@pytest.mark.parametrize("changes", [{}, NO_DUPLICATES], ids=["shuffled", "no_duplicates"])
@pytest.mark.parametrize(("workers", "stops"), [(0, STOPS), (2, STOPS[:1])])
def test_stopped_inside_epochs_it_goes_on_from_that_very_step(
    config, finished, tmp_path, monkeypatch, workers, stops, changes
):
    if changes:
        finished = train(config := replace(config, **changes), tmp_path / "finished", quiet)
    folder, said, counts = tmp_path / "run", [], {"step": 0, "batch": 0}
    config = replace(config, workers=workers, checkpoint_minutes=0)
    for owner, name in ((Trainer, "step"), (PrecomputedDataset, "batch")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name), counts))
    for stop in stops:
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            raise_at(context, *stop)
            train(config, folder, said.append)
    assert_same_numbers(train(config, folder, said.append), finished)
    assert [line.partition(": ")[2] for line in said if "goes on" in line] == [
        f"goes on after step {step} of epoch {epoch}" for step, epoch in ((1, 1), (4, 1), (5, 1), (3, 2))[: len(stops)]
    ]
    assert counts["step"] == EPOCHS * STEPS, "a step was trained twice"
    if not workers:  # of the batches at most two were loaded in vain at each stop
        assert counts["batch"] <= EPOCHS * STEPS + 2 * len(stops), "what is skipped was loaded"
    states = [load_state(path / "checkpoint/last.pt") for path in (folder, finished)]
    for name in ("model", "optimizer", "torch_rng", "best_rsum", "epoch_so_far"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=0)


def counted(method, counts):
    """Count the calls of a method that come to their end."""

    def wrapped(self, *arguments):
        value = method(self, *arguments)
        counts[method.__name__] += 1
        return value

    return wrapped


class Forgetful(VSE):
    """Leaves out half of an image's numbers, drawn anew at every step."""

    def embed_images(self, features, counts=None):
        return torch.dropout(super().embed_images(features, counts), 0.5, self.training)


def test_random_numbers_go_on_where_they_were(config, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "forgetful", Forgetful)
    config = replace(config, model="forgetful", epochs=1, log_every=1, checkpoint_minutes=0)
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "step", 3)
        train(config, tmp_path / "run", quiet)
    whole = train(config, tmp_path / "whole", quiet)
    assert_same_run(train(config, tmp_path / "run", quiet), whole)


def test_the_state_is_kept_every_minute_and_time_counts_once(config, tmp_path, monkeypatch):
    """Steps take 25 seconds: of five, the state of the third is kept."""
    now, step = [0.0], Trainer.step
    for module in (trainer_module, resume):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(self, *arguments):
        now[0] += 25
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", slow)
    config, said = replace(config, epochs=2), []
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_select", 2)
        train(config, tmp_path / "run", quiet)
    now[0] += 1000  # before it goes on
    folder = train(config, tmp_path / "run", said.append)
    assert any("goes on after step 3 of epoch 2" in line for line in said)
    assert [line["seconds"] for line in read_metrics(folder) if line["kind"] == "epoch"] == [125, 125]


CHANGES_OF_A_STATE = (
    lambda state: state.pop("epoch_so_far"),
    lambda state: state["epoch_so_far"].update(step=4),
    lambda state: state["epoch_so_far"]["pending"].clear(),
)


def test_a_state_that_was_changed_inside_an_epoch_is_refused(config, tmp_path, monkeypatch):
    config, folder = replace(config, epochs=1, checkpoint_minutes=0), tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "step", 2)
        train(config, folder, quiet)
    path = folder / "checkpoint/last.pt"
    content = path.read_bytes()
    for change in CHANGES_OF_A_STATE:
        path.write_bytes(content)
        change(state := load_state(path))
        save_state(path, state)
        with pytest.raises(
            UWMLError, match=r"last\.pt: is the state of another model, or was changed since; remove it"
        ):
            train(config, folder, quiet)


def test_a_state_from_before_states_were_kept_inside_epochs(config, finished, tmp_path):
    folder, said = tmp_path / "run", []
    shutil.copytree(finished, folder)
    (folder / "results.json").unlink()
    state = load_state(path := folder / "checkpoint/last.pt")
    del state["epoch_so_far"], state["seal"]
    save_state(path, state)
    assert_same_run(train(config, folder, said.append), finished)
    assert any(f"goes on after epoch {EPOCHS}" in line for line in said)


def test_a_line_of_metrics_that_was_cut_off(config, finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_finish_epoch", 2, before=False)
        train(config, folder, quiet)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "epoch": 2, "lo')
    assert_same_run(train(config, folder, quiet), finished)


TRAIN = """
import json, sys
from pathlib import Path
from uwml_lib.config import ExperimentConfig
from uwml_lib.training import train
train(ExperimentConfig.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_process_goes_on(config, finished, tmp_path):
    command = [sys.executable, "-c", TRAIN, json.dumps(config.to_dict()), tmp_path / "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "epoch 2/4" in line:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert "goes on after epoch" in done.stdout
    assert_same_run(tmp_path / "run", finished)


def test_a_second_process_waits_for_the_first(config, tmp_path):
    folder, said = tmp_path / "run", []
    with lock(folder):
        second = threading.Thread(target=train, args=(replace(config, epochs=1), folder, said.append))
        second.start()
        for _ in range(600):
            if not said:
                second.join(timeout=0.05)
        assert said == ["run: another process is at work here; waiting for it"]
        assert not (folder / "config.json").exists()
    second.join(timeout=60)
    assert (folder / "results.json").exists()


# ------------------------------------------------------------------------------------------------ the steps


@pytest.fixture
def trainer(config, tmp_path):
    (tmp_path / "run").mkdir()
    return Trainer(config, tmp_path / "run", quiet)


def gradient_norm(trainer):
    return torch.stack([parameter.grad.norm() for parameter in trainer.model.parameters()]).norm().item()


@pytest.mark.parametrize(("limit", "clipped"), [(1e-3, True), (1e6, False), (0.0, False)])
def test_gradients_are_clipped(trainer, limit, clipped):
    trainer.config = replace(trainer.config, gradient_clip=limit)
    logged = trainer.step(next(iter(trainer.loader)), trainer.loss)
    expected = limit if clipped else logged["gradient_norm"].item()
    assert logged["gradient_norm"] > 1e-2  # as it was before
    assert gradient_norm(trainer) == pytest.approx(expected, rel=1e-3)


def test_a_step_is_adam_on_the_loss_of_the_batch(trainer, config):
    batch = next(iter(trainer.loader))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    logged = trainer.step(batch, trainer.loss)
    for name, value in trainer.model.named_parameters():
        moved = (value - before[name]).abs()
        assert moved.max() <= 1.001 * config.learning_rate, name  # the first step of Adam
        assert moved.max() > 0.5 * config.learning_rate, name
    again = trainer.step(batch, trainer.loss)
    assert again["loss"] < logged["loss"]


def test_the_learning_rate_decays(config, tmp_path, monkeypatch):
    used, finish = [], Trainer._finish_epoch

    def spy(self, *arguments):
        used.append({group["lr"] for group in self.optimizer.param_groups})
        finish(self, *arguments)

    monkeypatch.setattr(Trainer, "_finish_epoch", spy)
    folder = train(replace(config, epochs=5, decay_epoch=2), tmp_path / "run", quiet)
    expected = [0.01, 0.01, 0.001, 0.001, 0.0001]
    assert [learning_rate(replace(config, decay_epoch=2), epoch) for epoch in range(5)] == pytest.approx(expected)
    assert [max(rates) for rates in used] == [min(rates) for rates in used] == pytest.approx(expected)
    logged = {line["epoch"]: line["learning_rate"] for line in read_metrics(folder) if line["kind"] == "step"}
    assert list(logged.values()) == pytest.approx(expected)


def test_warm_up_trains_on_the_dense_form_of_the_same_loss(config, tmp_path, monkeypatch):
    used, step = [], Trainer.step

    def spy(self, batch, loss):
        used.append(loss)
        return step(self, batch, loss)

    monkeypatch.setattr(Trainer, "step", spy)
    for name, options, dense in (
        ("polynomial", {"clamp": "sum", "margin": 0.3, "negative": [0.03, -0.3, 1.2]}, "average"),
        ("triplet", {"margin": 0.3}, "all"),
    ):
        used.clear()
        changed = replace(config, epochs=3, warmup_epochs=2, loss=name, loss_options=options)
        folder = train(changed, tmp_path / name, quiet)
        assert [loss.negatives for loss in used] == [dense] * 2 * STEPS + ["hardest"] * STEPS
        assert {loss.margin for loss in used} == {0.3}
        assert {getattr(loss, "clamp", None) for loss in used} == {options.get("clamp")}
        assert [line["warmup"] for line in read_metrics(folder) if line["kind"] == "step"] == [True] * 6 + [False] * 3


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains(config, tmp_path, name):
    folder = train(replace(config, epochs=2, loss=name), tmp_path / name, quiet)
    steps = [line for line in read_metrics(folder) if line["kind"] == "step"]
    assert steps
    for line in steps:
        assert np.isfinite([line["loss"], line["gradient_norm"], line["positive_score"]]).all()
        assert 0 <= line["informative_share"] <= 1


def test_captions_of_one_image_are_never_negatives(trainer, monkeypatch):
    seen = []
    forward = type(trainer.loss).forward
    monkeypatch.setattr(
        type(trainer.loss),
        "forward",
        lambda self, scores, **who: (seen.append((scores, who)), forward(self, scores, **who))[1],
    )
    siblings = 0
    for batch in trainer.loader:
        trainer.step(batch, trainer.loss)
        scores, image_ids = seen[-1][0], seen[-1][1]["image_ids"]
        for features, image in zip(batch.features, image_ids, strict=True):
            assert torch.equal(features, trainer.train_set.images(image, image + 1)[0])
        siblings += len(image_ids) - len(image_ids.unique())
        assert scores.shape == (16, 16)
    assert siblings > 0


def test_every_caption_is_seen_once_an_epoch_in_another_order(config, tmp_path):
    (tmp_path / "run").mkdir()
    trainer = Trainer(replace(config, batch_size=8), tmp_path / "run", quiet)
    orders = []
    for epoch in (0, 1, 0):
        trainer.loader.set_epoch(epoch)
        batches = [(tuple(row.tolist()), image) for batch in trainer.loader
                   for row, image in zip(batch.tokens[:, :4], batch.image_ids.tolist(), strict=True)]  # fmt: skip
        orders.append([image for _, image in batches])
        assert sorted(orders[-1]) == sorted(2 * list(range(40)))
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


@pytest.mark.parametrize("changes", [{}, NO_DUPLICATES], ids=["shuffled", "no_duplicates"])
def test_a_training_gives_every_epoch_an_order_of_its_own(config, tmp_path, monkeypatch, changes):
    seen, step = [], Trainer.step

    def spy(self, batch, loss):
        seen.append(batch.image_ids.tolist())
        return step(self, batch, loss)

    monkeypatch.setattr(Trainer, "step", spy)
    train(replace(config, epochs=2, **changes), tmp_path / "run", quiet)
    assert len(seen) == 2 * STEPS
    assert seen[:STEPS] != seen[STEPS:]


def test_no_batch_has_an_image_or_a_sentence_twice(config, tmp_path):
    (tmp_path / "run").mkdir()
    twice = {"shuffled": 0, "no_duplicates": 0}
    for batches in twice:
        trainer = Trainer(replace(config, batches=batches), tmp_path / "run", quiet)
        for epoch in range(3):
            trainer.loader.set_epoch(epoch)
            found = [*trainer.loader]
            assert len(found) == len(trainer.loader)
            for batch in found:
                assert len(batch.image_ids) == 16
                for values in (batch.image_ids, batch.sentences[:, 0]):
                    twice[batches] += len(values) - len(values.unique())
    assert twice["no_duplicates"] == 0 < twice["shuffled"]


def test_too_few_images_for_a_batch_without_duplicates_are_told_at_once(config, tmp_path):
    expected = "batch_size: found 48, expected at most [0-9]+, for no more items differ in image and sentence"
    with pytest.raises(UWMLError, match=expected):
        train(replace(config, batches="no_duplicates", batch_size=48), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_stop_the_training(own_data, tmp_path, value, workers):
    path = own_data.data_folder / "train_ims.npy"
    features = np.load(path)
    features[17, 1, 2] = value
    np.save(path, features)
    with pytest.raises(UWMLError) as error:
        train(replace(own_data, workers=workers), tmp_path / "run", quiet)
    assert str(error.value).startswith(f"{path}: image 17 (counted from 0) holds NaN")
    assert str(error.value).endswith("expected finite numbers")


@pytest.mark.parametrize("loss", ["polynomial", "triplet"])
def test_the_last_checkpoint_survives_a_loss_that_is_not_finite(own_data, tmp_path, monkeypatch, loss):
    own_data, folder = replace(own_data, loss=loss, checkpoint_minutes=0), tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_finish_epoch", 2, before=False)
        train(own_data, folder, quiet)
    kept = (folder / "checkpoint/last.pt").read_bytes(), weights(folder)
    with monkeypatch.context() as context:
        gather = PrecomputedDataset._gather
        context.setattr(PrecomputedDataset, "_gather", lambda *arguments: gather(*arguments) * torch.nan)
        with pytest.raises(
            trainer_module.Diverged, match="the loss is nan at epoch 3, step 1; stopped, and the state after epoch 2"
        ):
            train(own_data, folder, quiet)
    assert kept == ((folder / "checkpoint/last.pt").read_bytes(), weights(folder))
    train(own_data, folder, quiet)
    assert len([line for line in read_metrics(folder) if line["kind"] == "epoch"]) == EPOCHS


def test_a_run_on_other_data_is_refused(own_data, tmp_path):
    train(replace(own_data, epochs=1), tmp_path / "run", quiet)
    captions = own_data.data_folder / "train_caps.txt"
    captions.write_text(captions.read_text().replace("a", "b"))
    with pytest.raises(UWMLError, match="holds a run on other data"):
        train(replace(own_data, epochs=1), tmp_path / "run", quiet)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_splits_of_different_shape_are_refused_before_training(own_data, tmp_path, split):
    path = own_data.data_folder / f"{split}_ims.npy"
    np.save(path, np.load(path)[:, :, :5])
    with pytest.raises(UWMLError, match=f"{split}_ims.npy: found 5 numbers a region, expected 9 as in train_ims.npy"):
        train(own_data, tmp_path / "run", quiet)
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_evaluating_on_other_data_is_refused_and_the_results_are_kept(own_data, tmp_path):
    train(replace(own_data, epochs=1), tmp_path / "run", quiet)
    before = (tmp_path / "run/results.json").read_bytes()
    path = own_data.data_folder / "test_ims.npy"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(UWMLError, match="other data, or another tokenizer, than .*run was trained on"):
        evaluate_run(tmp_path / "run")
    assert (tmp_path / "run/results.json").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "metrics.jsonl", "checkpoint/best.safetensors"])
def test_what_was_changed_before_an_evaluation_is_noticed(config, finished, tmp_path, name):
    """With results.json gone, the state still knows what the files were."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "results.json").unlink()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b'"dev_rsum": ', b'"dev_rsum": 9') + b" " * (name != "metrics.jsonl"))
    with pytest.raises(UWMLError, match=f"{name}: "):
        evaluate_run(folder)


@pytest.mark.parametrize("content", [b"{}", b'{"config": {}, "seal": "x"}'])
def test_a_finished_run_whose_results_were_changed(config, finished, tmp_path, content):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "results.json").write_bytes(content)
    with pytest.raises(UWMLError, match="results.json: was changed after it was written"):
        train(config, folder, quiet)


def test_a_finished_run_without_its_configuration(config, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "config.json").unlink()
    with pytest.raises(UWMLError, match="and no config.json, expected a new folder or that of a run"):
        train(replace(config, seed=5), folder, quiet)
    assert (folder / "results.json").exists()


def test_a_folder_of_somebody_else_is_left_alone(config, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("precious")
    with pytest.raises(UWMLError, match="found metrics.jsonl and no config.json"):
        train(config, tmp_path, quiet)
    assert (tmp_path / "metrics.jsonl").read_text() == "precious"


def test_other_code_is_noted_when_a_run_goes_on(config, finished, tmp_path, monkeypatch):
    folder, said = tmp_path / "run", []
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_finish_epoch", 2, before=False)
        context.setattr(provenance_module, "library_digest", lambda: "older")
        train(config, folder, quiet)
    train(config, folder, said.append)
    assert any("goes on with another library than it was begun with" in line for line in said)
    sessions = read_json(folder / "results.json")["provenance"]["sessions"]
    assert [session["library"] == "older" for session in sessions] == [True, False]
    assert len(read_json(finished / "results.json")["provenance"]["sessions"]) == 1


def test_the_environment_does_not_change_the_training(config, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert_same_run(train(config, tmp_path / "run", quiet), finished)


def test_a_training_begins_with_the_best_weights_of_another_run(config, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    shutil.copytree(finished, tmp_path / "tiny/first")
    later = replace(config, loss="triplet", start_from="first", epochs=1, warmup_epochs=0, seed=3)
    with trainer_module.computing(later):
        begun = Trainer(later, tmp_path / "looked at", quiet).model.state_dict()
    torch.testing.assert_close(begun, load_model(finished)[0].state_dict(), rtol=0, atol=0)
    folder = train(later, say=quiet)
    assert folder.name != replace(later, start_from="").run_name("") and weights(folder) != weights(finished)
    assert read_json(folder / "config.json")["config"]["start_from"] == "first"
    for changes, message in (
        ({"start_from": "second"}, "start_from: found no run in .*second, expected a finished one"),
        ({"embed_size": 8}, "start_from: found .*first, whose weights have other shapes, expected a run with the same"),
        ({"model": "bfan"}, "start_from: found .*first, a run of scan, expected one of bfan"),
    ):
        with pytest.raises(UWMLError, match=message):
            train(replace(later, **changes), say=quiet)
    damaged = shutil.copytree(tmp_path / "tiny/first", tmp_path / "tiny/damaged") / "checkpoint/best.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-64] + bytes(64))
    with pytest.raises(UWMLError, match="damaged.*best.safetensors.* was changed after it was written"):
        train(replace(later, start_from="damaged"), say=quiet)
    vocabulary = Vocabulary.load(tmp_path / "tiny/first/vocabulary.json")
    other = Vocabulary([*vocabulary.words[:-1], "unheard"], vocabulary.tokenizer)
    other.save(tmp_path / "tiny/first/vocabulary.json")
    with pytest.raises(UWMLError, match="vocabulary.json: was changed after it was written"):
        train(replace(later, seed=4), say=quiet)


def test_a_model_that_does_not_fit_into_the_memory(config, tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(trainer_module, "build_model", full)
    with pytest.raises(UWMLError, match="run: out of memory; lower batch_size, embed_size or word_dim"):
        train(config, tmp_path / "run", quiet)


def test_one_folder_through_two_names_is_one_run(config, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with lock(tmp_path / "real"):
        waiting = []
        thread = threading.Thread(target=train, args=(config, tmp_path / "link", waiting.append), daemon=True)
        thread.start()
        thread.join(2)
        assert thread.is_alive()
        assert any("another process is at work here" in line for line in waiting)
    thread.join(60)
    assert (tmp_path / "real/results.json").exists()


@pytest.mark.parametrize("name", ["vocabulary.json", "config.json", "checkpoint/best.safetensors"])
def test_what_an_interrupted_run_goes_on_from_was_changed(config, tmp_path, monkeypatch, name):
    folder = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_finish_epoch", 2, before=False)
        train(config, folder, quiet)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1 if name.endswith("s") else 0
    (folder / name).write_bytes(content + (b" " if name.endswith("json") else b""))
    with pytest.raises(UWMLError, match=f"{name}: was changed after it was written"):
        train(config, folder, quiet)


def test_one_flipped_bit_of_the_state_is_noticed(config, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_finish_epoch", 2, before=False)
        train(config, folder, quiet)
    path = folder / "checkpoint/last.pt"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2 + 256] ^= 1  # of numbers: between entries there is padding
    path.write_bytes(content)
    with pytest.raises(UWMLError, match="last.pt: not a training state of this kit"):
        train(config, folder, quiet)


@pytest.mark.parametrize("at", ["state", "renaming"])
def test_killed_between_the_weights_and_the_state(config, finished, tmp_path, monkeypatch, at):
    """The weights of an epoch without its state are taken back; a renaming that a state still owes is made up for."""
    folder, calls = tmp_path / "run", []
    where, name = {"state": (resume, "save_state"), "renaming": (os, "replace")}[at]
    original = getattr(where, name)

    def stop(path, other):
        calls.extend([path] if at == "state" or Path(path).name == "new.safetensors" else [])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(path, other)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(where, name, stop)
        train(config, folder, quiet)
    assert (folder / "checkpoint/new.safetensors").exists()
    assert_same_run(train(config, folder, quiet), finished)
    assert not (folder / "checkpoint/new.safetensors").exists()


def test_the_first_regions_alone(config, own_data, tmp_path):
    folder = train(replace(own_data, regions=2, epochs=1, workers=1), tmp_path / "run", quiet)
    for split in ("dev", "test", "train"):
        path = own_data.data_folder / f"{split}_ims.npy"
        np.save(path, np.load(path)[:, :2])
    again = train(replace(own_data, epochs=1), tmp_path / "again", quiet)
    assert metrics(folder) == metrics(again)
    with pytest.raises(UWMLError, match="regions: found 3, expected at most the 2 of .*train_ims.npy"):
        train(replace(own_data, regions=3), tmp_path / "more", quiet)


def test_a_vocabulary_without_a_run_is_built_anew(own_data, tmp_path):
    (tmp_path / "run").mkdir()
    Vocabulary([*SPECIALS, "stray"]).save(tmp_path / "run" / "vocabulary.json")
    train(replace(own_data, epochs=1), tmp_path / "run", quiet)
    assert "stray" not in Vocabulary.load(tmp_path / "run" / "vocabulary.json").words


def test_fp16_is_refused_on_the_cpu(config, tmp_path):
    with pytest.raises(UWMLError, match="mixed_precision: found 'fp16' on the CPU"):
        train(replace(config, mixed_precision="fp16", device="cpu"), tmp_path / "run", quiet)


def test_workers_change_nothing(config, tmp_path):
    metrics = []
    for workers in (0, 1):
        folder = train(replace(config, epochs=1, workers=workers), tmp_path / str(workers), quiet)
        metrics.append([{**line, "seconds": None} for line in read_metrics(folder)])
    assert metrics[0] == metrics[1]


def test_positives_above_the_ceiling_are_said_once(config, tmp_path):
    said = []
    train(replace(config, aggregation="Sum", epochs=2), tmp_path / "run", said.append)
    assert len([line for line in said if "positive_ceiling" in line]) == 1
    said.clear()
    options = {"positive_ceiling": None}
    train(replace(config, aggregation="Sum", epochs=1, loss_options=options), tmp_path / "none", said.append)
    assert not any("positive_ceiling" in line for line in said)


def test_a_batch_larger_than_the_data(config, tmp_path):
    with pytest.raises(UWMLError, match="batch_size: found 81, expected at most the 80 training captions"):
        train(replace(config, batch_size=81), tmp_path / "run", quiet)
    train(replace(config, batch_size=80, epochs=1), tmp_path / "run", quiet)


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_damaged_state(config, finished, tmp_path, content):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "results.json").unlink()
    path = folder / "checkpoint/last.pt"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(UWMLError, match="last.pt: not a training state of this kit .*; remove it to start over"):
        train(config, folder, quiet)
    path.unlink()
    assert_same_run(train(config, folder, quiet), finished)


@pytest.mark.parametrize("state", [{}, [], {"model": {}}, 3])
def test_a_state_of_something_else(config, finished, tmp_path, state):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    torch.save(state, tmp_path / "run/checkpoint/last.pt")
    with pytest.raises(UWMLError, match="last.pt: .* remove it to start over"):
        train(config, tmp_path / "run", quiet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "loss: found 'hinge'"),
        ({"loss_options": {"margin": -1}}, "loss_options of polynomial: margin"),
        ({"loss_options": {"negatives": "all"}}, "loss_options of polynomial: negatives: found 'all'"),
        ({"model": "clip"}, "model: found 'clip'"),
    ],
)
def test_a_bad_configuration_leaves_no_trace(config, tmp_path, change, message):
    with pytest.raises(UWMLError, match=message):
        train(replace(config, **change), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there(config, tmp_path):
    with pytest.raises(UWMLError, match="no such folder; expected absent in the SCAN layout"):
        train(replace(config, dataset="absent"), say=quiet)


def test_evaluating_again_gives_the_same(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before = read_sealed_json(tmp_path / "run/results.json")
    again = evaluate_run(tmp_path / "run")
    again["evaluation_seconds"] = before["evaluation_seconds"]
    again["provenance"]["evaluated"] = before["provenance"]["evaluated"]
    assert json.loads(json.dumps(again)) == before
    with pytest.raises(UWMLError, match="absent"):
        evaluate_run(tmp_path / "absent")


def test_scores_of_the_run_can_be_had(finished):
    model, config, vocabulary = load_model(finished)
    test = PrecomputedDataset(config.data_folder, "test", vocabulary)
    found = retrieval_metrics(score_matrix(model, test), 2)
    assert found == read_json(finished / "results.json")["metrics"]


# ------------------------------------------------------------------------------------------------ folders and splits


@pytest.mark.parametrize("done", [True, False])
def test_the_folder_of_another_run_is_refused(config, finished, tmp_path, done):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    if not done:
        (folder / "results.json").unlink()
    with pytest.raises(UWMLError, match="config.json.*seed"):
        train(replace(config, seed=5), folder, quiet)
    train(replace(config, log_every=3), folder, quiet)  # cannot change a result


def test_evaluating_an_interrupted_run_does_not_finish_it(config, finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        raise_at(context, "_finish_epoch", 2, before=False)
        train(config, folder, quiet)
    with contextlib.suppress(UWMLError):
        evaluate_run(folder)
    assert_same_run(train(config, folder, quiet), finished)


def test_evaluating_another_split_leaves_the_results_alone(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before = read_sealed_json(tmp_path / "run/results.json")
    assert evaluate_run(tmp_path / "run", "train")["split"] == "train"
    assert read_sealed_json(tmp_path / "run/results.json") == before


def test_dev_features_that_are_not_finite(own_data, tmp_path):
    path = own_data.data_folder / "dev_ims.npy"
    np.save(path, np.full_like(np.load(path), np.nan))
    with pytest.raises(UWMLError, match="dev"):
        train(own_data, tmp_path / "run", quiet)


@pytest.mark.parametrize(("wanted", "products"), [("tf32", "high"), ("bf16", "highest"), ("no", "highest")])
def test_torch_is_set_as_configured_while_it_trains_and_then_as_before(config, tmp_path, monkeypatch, wanted, products):
    def spy(name, owner):
        original = getattr(owner, name)

        def wrapped(*arguments, **options):
            set_to[name] = torch.get_num_threads(), torch.get_float32_matmul_precision()
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, wrapped)

    set_to: dict[str, tuple[int, str]] = {}
    owners = {"build_model": trainer_module, "step": Trainer, "_select": Trainer, "evaluate_run": runner}
    for name, owner in owners.items():
        spy(name, owner)
    before = dict(os.environ)
    train(replace(config, epochs=1, mixed_precision=wanted, threads=2), tmp_path / "run", quiet)
    assert set_to == dict.fromkeys(owners, (2, products))
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (1, "highest")
    assert dict(os.environ) == before


@pytest.mark.parametrize(("wanted", "used"), [("tf32", "no"), ("bf16", "bf16"), ("no", "no")])
def test_the_precision_of_a_training(config, tmp_path, wanted, used):
    assert Trainer(replace(config, mixed_precision=wanted), tmp_path, quiet).accelerator.mixed_precision == used


def test_two_precisions_in_one_process(config, finished, tmp_path):
    train(replace(config, epochs=1, mixed_precision="bf16"), tmp_path / "run", quiet)
