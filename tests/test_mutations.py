"""Damaged files and settings: each gives a right result or an error of the kit's own class, and none hangs."""

import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import SIZES, write_tiny
from uwml_lib import reporting
from uwml_lib.cli import parse
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, Vocabulary, build_vocabulary, collate, fingerprint
from uwml_lib.errors import UWMLError
from uwml_lib.files import read_json, write_text
from uwml_lib.reporting import load_experiment, report_text, save_experiment
from uwml_lib.training import Trainer, check_config, evaluate_run, read_metrics, train

MUTATIONS = int(os.environ.get("UWML_MUTATIONS", "300"))
SHARDS = 4  # so that several processes can share the work
SECONDS = 60  # a mutation may take; more is a hang
COMMAND = [
    "--dataset", "tiny", "--data-root", "data", "--embed-size", "8", "--epochs=2", "--learning-rate", "0.001",
    "--loss", "polynomial", "--loss-options", '{"margin": 0.1, "positive": [0.5, -0.7]}', "--no-bidirectional",
    "--direction", "t2i", "--lambda-softmax", "None", "--seed", "3", "--run-folder", "run",
]  # fmt: skip

pytestmark = pytest.mark.slow


# What is damaged: bytes of a file, or values of a JSON document.


def damage_bytes(content: bytes, generator: random.Random) -> bytes:
    kind = generator.choice(("truncate", "flip", "insert", "empty", "repeat", "noise", "header"))
    place = generator.randrange(max(1, len(content)))
    if kind == "truncate":
        return content[:place]
    if kind == "flip":
        changed = bytearray(content or b"\0")
        for _ in range(generator.randint(1, 8)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        return bytes(changed)
    if kind == "insert":
        return content[:place] + generator.randbytes(generator.randint(1, 40)) + content[place:]
    if kind == "repeat":
        return content[:place] + content
    if kind == "noise":
        return generator.randbytes(generator.randint(1, 400))
    if kind == "header":
        return generator.randbytes(min(len(content), 64)) + content[64:]
    return b""


STRANGE = (
    None, True, -1, 0, 1, 10**30, 2.5, float("inf"), float("nan"), "", "x", "nan", "../..", [], [1, "a"], {}, {"a": 1},
)  # fmt: skip


def damage_json(value, generator: random.Random):
    """Change, remove or add one value somewhere in a JSON document."""
    value = copy.deepcopy(value)
    place, inside = None, value
    while isinstance(inside, dict | list) and inside and generator.random() < 0.8:
        key = generator.choice(list(inside)) if isinstance(inside, dict) else generator.randrange(len(inside))
        place, inside = (inside, key), inside[key]
    if place is None:
        return generator.choice(STRANGE)
    container, key = place
    if generator.random() < 0.3:
        del container[key]
    elif isinstance(container, dict) and generator.random() < 0.3:
        container[generator.choice(("x", str(key) + "s", str(key)[:-1]))] = container.pop(key)
    else:
        container[key] = generator.choice(STRANGE)
    return value


def damage_words(words: list[str], generator: random.Random) -> list[str]:
    """Change, remove, double or misspell one word of a command."""
    words, place = list(words), generator.randrange(len(words))
    kind = generator.choice(("strange", "remove", "double", "misspell", "noise"))
    if kind == "strange":
        words[place] = str(generator.choice(STRANGE))
    elif kind == "remove":
        del words[place]
    elif kind == "double":
        words.insert(place, words[place])
    elif kind == "misspell":
        cut = generator.randrange(len(words[place]) + 1)
        words[place] = words[place][:cut] + generator.choice("ax-1= ") + words[place][cut + 1 :]
    else:
        words[place] = "".join(chr(generator.randrange(1, 0x300)) for _ in range(generator.randint(1, 9)))
    return words


# What is done with it.


def read_data(folder: Path, words: Vocabulary) -> None:
    fingerprint(folder)
    build_vocabulary(folder)
    for split in ("train", "dev", "test"):
        data = PrecomputedDataset(folder, split, words)
        data.scan()
        collate([data[index] for index in range(0, len(data), 7)])


@contextlib.contextmanager
def no_hang():
    def stop(*_):
        raise TimeoutError(f"still at work after {SECONDS} seconds")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set, two finished runs on it, and their configuration; `half` is a run that was interrupted."""
    root = tmp_path_factory.mktemp("whole")
    write_tiny(root / "data" / "tiny")
    for split, size in SIZES.items():
        write_text(root / "data" / "tiny" / f"{split}_ids.txt", "".join(f"{split}{i}\n" for i in range(size)))
    config = ExperimentConfig(
        dataset="tiny", data_root=str(root / "data"), embed_size=8, word_dim=4, epochs=2, warmup_epochs=1,
        batch_size=16, device="cpu",
    )  # fmt: skip
    runs = [train(replace(config, loss=loss), root / "runs" / "tiny" / loss, str) for loss in ("triplet", "polynomial")]
    config = replace(config, loss="triplet")
    with pytest.MonkeyPatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Trainer, "_train_epoch", interrupted_after_one(Trainer._train_epoch))
        train(config, root / "half", str)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(reporting, "RUNS", root / "runs")
        save_experiment("tiny", runs=runs)
        (root / "report.txt").write_text(report_text(load_experiment("tiny")))
    return root, config


def interrupted_after_one(train_epoch):
    def wrapped(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self, epoch)

    return wrapped


def numbers(run: Path) -> list:
    """What a run found, without times and places."""
    results = read_json(run / "results.json")
    lines = [{**line, "seconds": None} for line in read_metrics(run)]
    return [lines, *(results[name] for name in ("metrics", "ranks", "best_epoch", "dev_rsum"))]


def attempt(root: Path, config: ExperimentConfig, place: Path, generator: random.Random) -> str:
    """Damage one thing and use it; return what was damaged, or "wrong" if the result is not that of the whole thing."""
    what = generator.choice(("data", "run", "resume", "report", "config", "command"))
    if what == "command":
        with no_hang(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try:
                check_config(parse("train", damage_words(COMMAND, generator)).experiment)
            except SystemExit as stop:  # help, or a sentence about what could not be parsed
                assert stop.code in (0, 2), stop.code
        return what
    if what == "config":
        with no_hang():
            check_config(ExperimentConfig.from_dict(damage_json(config.to_dict(), generator)))
        return what
    shutil.copytree(root, place)
    source = {"data": "data/tiny", "run": "runs/tiny/triplet", "resume": "half", "report": "runs/tiny"}[what]
    kinds = {"report": ("results.json", "experiment.json", "metrics.jsonl")}.get(what)
    files = (path for path in (place / source).rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    file = generator.choice(sorted(path for path in files if kinds is None or path.name in kinds))
    if file.suffix == ".json" and generator.random() < 0.7:
        file.write_text(json.dumps(damage_json(json.loads(file.read_text()), generator)))
    elif generator.random() < 0.1:
        file.unlink()
    else:
        file.write_bytes(damage_bytes(file.read_bytes(), generator))
    moved = replace(config, data_root=str(place / "data"))
    with no_hang():
        if what == "data":
            read_data(place / source, Vocabulary.load(place / "half" / "vocabulary.json"))
            train(replace(moved, epochs=1), place / "new", str)
        elif what == "run":
            evaluate_run(place / source, data_root=str(place / "data"))
        elif what == "resume":
            train(moved, place / source, str)
        else:
            right = report_text(load_experiment("tiny")) == (root / "report.txt").read_text()
            return what if right else "wrong"
    if what in ("run", "resume") and numbers(place / source) != numbers(root / "runs/tiny/triplet"):
        return "wrong"
    return what


@pytest.mark.parametrize("shard", range(SHARDS))
def test_damage_gives_a_right_result_or_a_clear_error(whole, tmp_path, monkeypatch, record_property, shard):
    root, config = whole
    generator, outcomes, bad = random.Random(shard), Counter(), []
    warnings.simplefilter("ignore")
    for number in range(MUTATIONS // SHARDS):
        place = tmp_path / str(number)
        monkeypatch.setattr(reporting, "RUNS", place / "runs")
        try:
            outcome = attempt(root, config, place, generator)
        except UWMLError:
            outcome = "clear error"
        except Exception as error:
            outcome = "hung" if isinstance(error, TimeoutError) else "unclear"
            bad.append(f"{number}: {type(error).__name__}: {error}")
        outcomes[outcome] += 1
        shutil.rmtree(place, ignore_errors=True)
    found = {name: outcomes[name] for name in ("clear error", "wrong", "unclear", "hung")}
    record_property("mutations", {"tried": outcomes.total(), **found})
    assert not bad, "\n".join(bad)
    assert not outcomes["wrong"]
