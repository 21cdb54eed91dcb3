"""Damaged files and settings: each gives a right result or an error of the kit's own class, and none hangs."""

import contextlib
import copy
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

from tests.tiny import write_tiny
from uwml_lib import reporting
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, Vocabulary, build_vocabulary, collate, fingerprint
from uwml_lib.errors import UWMLError
from uwml_lib.reporting import load_experiment, report_text, save_experiment
from uwml_lib.training import check_config, evaluate_run, train

MUTATIONS = int(os.environ.get("UWML_MUTATIONS", "300"))
SECONDS = 60  # a mutation may take; more is a hang

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


# What is done with it.


def read_data(folder: Path, words: Vocabulary) -> None:
    fingerprint(folder)
    build_vocabulary(folder)
    for split in ("train", "dev", "test"):
        data = PrecomputedDataset(folder, split, words)
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
    config = ExperimentConfig(
        dataset="tiny", data_root=str(root / "data"), embed_size=8, word_dim=4, epochs=2, warmup_epochs=1,
        batch_size=16, device="cpu",
    )  # fmt: skip
    runs = [train(replace(config, loss=loss), root / "runs" / "tiny" / loss, str) for loss in ("triplet", "polynomial")]
    shutil.copytree(runs[0], root / "half")
    (root / "half" / "results.json").unlink()
    return root, replace(config, loss="triplet")


def attempt(root: Path, config: ExperimentConfig, place: Path, generator: random.Random) -> str:
    """Damage one thing, use it, and return what became of it."""
    what = generator.choice(("data", "run", "resume", "report", "config"))
    if what == "config":
        with no_hang():
            check_config(ExperimentConfig.from_dict(damage_json(config.to_dict(), generator)))
        return what
    shutil.copytree(root, place)
    source = {"data": "data/tiny", "run": "runs/tiny/triplet", "resume": "half", "report": "runs/tiny"}[what]
    kinds = {"report": ("results.json", "experiment.json", "metrics.jsonl")}.get(what)
    save_experiment("tiny", [place / "runs/tiny" / name for name in ("triplet", "polynomial")], [])
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
        elif what == "run":
            evaluate_run(place / source, data_root=str(place / "data"))
        elif what == "resume":
            train(moved, place / source, str)
        else:
            report_text(load_experiment("tiny"))
    return what


def test_damage_gives_a_right_result_or_a_clear_error(whole, tmp_path, monkeypatch):
    root, config = whole
    generator, outcomes, unclear = random.Random(0), Counter(), []
    warnings.simplefilter("ignore")
    for number in range(MUTATIONS):
        place = tmp_path / str(number)
        monkeypatch.setattr(reporting, "RUNS", place / "runs")
        try:
            outcomes[attempt(root, config, place, generator)] += 1
        except UWMLError:
            outcomes["clear error"] += 1
        except Exception as error:
            unclear.append(f"{number}: {type(error).__name__}: {error}")
        shutil.rmtree(place, ignore_errors=True)
    print(dict(outcomes), "unclear:", len(unclear))
    assert not unclear, "\n".join(unclear)
