"""Damaged files and settings: each gives a right result or an error of the kit's own class, and none hangs.

What is accepted is compared with what it says, read naively: features with numpy, captions by splitting, words of a
command one by one; and what is then trained, resumed or reported with what the undamaged whole gave.
"""

import contextlib
import copy
import functools
import io
import json
import os
import random
import re
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.mutations_of_imports import OF_FILES
from tests.mutations_of_runs import OF_RUNS, STEPS, damage_stopped
from tests.outcomes import Wrong, outcome_of
from tests.tiny import SIZES, write_tiny
from uwml_lib import cli
from uwml_lib.commands import train as commands
from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.datasets import PrecomputedDataset, Vocabulary, build_vocabulary, fingerprint
from uwml_lib.reports.two_losses import two_losses
from uwml_lib.runs import Run, StudyRuns, evaluate_run, load_study, read_metrics, save_study
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import read_json, write_text
from uwml_lib.training import Trainer, build_loss, check_config, train


def text_of(study: StudyRuns) -> str:
    return two_losses(study).to_markdown()


MUTATIONS = int(os.environ.get("UWML_MUTATIONS", "300"))
SHARDS = max(1, min(4, MUTATIONS))  # so that several processes can share the work
MEMORY = 2**30  # bytes that building from a setting may take; more is not there
MOST = 4096  # threads or processes that any machine has use for
COMMAND = (
    "--dataset", "tiny", "--data-root", "data", "--embed-size", "8", "--word-dim", "4", "--epochs=2",
    "--batch-size", "16", "--learning-rate", "0.001", "--loss", "polynomial", "--loss-options",
    '{"margin": 0.1, "positive": [0.5, -0.7], "positive_ceiling": null}', "--no-bidirectional", "--direction", "t2i",
    "--lambda-softmax", "None", "--seed", "3", "--threads", "1", "--workers", "0", "--run-folder", "run",
)  # fmt: skip
OTHERS = OF_FILES | OF_RUNS
OPTIONS = {
    "triplet": {"margin": 0.2, "negatives": "hardest", "reduction": "sum", "check_finite": False},
    "polynomial": {
        "positive": [0.5, -0.7, 0.2], "negative": [0.03, -0.4, 0.9], "margin": 0.2, "negatives": "average",
        "clamp": "each", "positive_ceiling": 0.99, "reduction": "mean", "check_finite": None,
    },
}  # fmt: skip


# What is damaged: bytes of a file, values of a JSON document, names of runs, or words of a command.


def damage_bytes(content: bytes, generator: random.Random) -> bytes:
    kind = generator.choice(
        ("truncate", "flip", "insert", "empty", "repeat", "noise", "header", "mark", "ends", "nested")
    )
    place = generator.randrange(max(1, len(content)))
    if kind == "truncate":
        return content[:place]
    if kind == "flip":
        changed = bytearray(content or b"\0")
        first = generator.choice((len(changed), min(len(changed), 128)))  # where it lies thickest, half of the time
        for _ in range(generator.randint(1, 8)):
            changed[generator.randrange(first)] = generator.randrange(256)
        return bytes(changed)
    if kind == "insert":
        return content[:place] + generator.randbytes(generator.randint(1, 40)) + content[place:]
    if kind == "repeat":
        return content[:place] + content
    if kind == "noise":
        return generator.randbytes(generator.randint(1, 400))
    if kind == "header":
        return generator.randbytes(min(len(content), 64)) + content[64:]
    if kind == "mark":
        return b"\xef\xbb\xbf" + content
    if kind == "ends":
        return content.replace(b"\n", b"\r\n")
    if kind == "nested":
        return generator.choice((b"[", b'{"config":')) * generator.choice((300, 900, 100_000))
    return b""


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


STRANGE = (
    None, True, -1, 0, 1, 10**8, 10**12, 10**30, 10**400, -(10**400), 2.5, 1e308, float("inf"), float("nan"),
    "", "x", "nan", "123", "../..", "~nobody/x", "a\0b", [], [1, "a"], [True], ["1"], {}, {"a": 1}, {"1": 2},
    nested(5), nested(300), nested(900),
)  # fmt: skip
STRANGE_WORDS = (*(value for value in STRANGE if value != "a\0b"), "9" * 5_000, "1e999")
STRANGE_OPTIONS = (
    "[" * 100_000, '{"margin":' * 100_000, '{"positive": ' + "[" * 900 + "]" * 900 + "}", '{"positive": "123"}',
    '{"margin": Infinity}', '{"margin": true}', f'{{"margin": 1{"0" * 400}}}', '{"positive": [1e999]}', "{", "3",
)  # fmt: skip
OTHER_FOLDERS = (
    "../..", "..", ".", "", "/", "a\0b", "../../half", "../tiny/triplet-seed0", "triplet-seed0/checkpoint", "missing",
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


def damage_names(names: dict[str, list[str]], generator: random.Random) -> dict[str, list[str]]:
    """Double, swap or replace one entry of the lists of runs."""
    names = {key: list(listed) for key, listed in names.items()}
    entries = [(key, number) for key, listed in names.items() for number in range(len(listed))]
    (key, number), (other_key, other_number) = generator.sample(entries, 2)
    kind = generator.choice(("double", "swap", "copy", "other", "more"))
    if kind == "double":
        names[other_key].insert(generator.randrange(len(names[other_key]) + 1), names[key][number])
    elif kind == "swap":
        swapped = names[other_key][other_number], names[key][number]
        names[key][number], names[other_key][other_number] = swapped
    elif kind == "copy":
        names[key][number] = names[other_key][other_number]
    elif kind == "other":
        names[key][number] = generator.choice(OTHER_FOLDERS)
    else:
        names[key].append(generator.choice(OTHER_FOLDERS))
    return names


def damage_words(words: list[str], generator: random.Random) -> list[str]:
    """Change, remove, double or misspell one word of a command."""
    words, place = list(words), generator.randrange(len(words))
    kind = generator.choice(("strange", "remove", "double", "misspell", "noise", "value", "options"))
    if kind == "strange":
        words[place] = str(generator.choice(STRANGE_WORDS))
    elif kind == "remove":
        del words[place]
    elif kind == "double":
        words.insert(place, words[place])
    elif kind == "misspell":
        cut = generator.randrange(len(words[place]) + 1)
        words[place] = words[place][:cut] + generator.choice("ax-1= ") + words[place][cut + 1 :]
    elif kind == "value":
        option = generator.choice(("--threads", "--workers", "--embed-size", "--word-dim", "--seed", "--lambda-lse",
                                   "--checkpoint-minutes", "--twins"))  # fmt: skip
        words += [option, str(generator.choice(STRANGE_WORDS))]
    elif kind == "options":
        damaged = json.dumps(damage_json(OPTIONS["polynomial"], generator))
        words[words.index("--loss-options") + 1] = generator.choice((damaged, generator.choice(STRANGE_OPTIONS)))
    else:
        words[place] = "".join(chr(generator.randrange(1, 0x300)) for _ in range(generator.randint(1, 9)))
    return words


# What is right.


def same(given: Any, found: Any) -> bool:
    """Say whether a value is the one that was given, and of its kind: neither True nor "1" is 1."""
    if isinstance(given, bool | str | None):
        return type(given) is type(found) and given == found
    if isinstance(given, int | float):
        with contextlib.suppress(OverflowError):
            return type(found) in (int, float) and (given == found or float(given) == found)
        return False
    if isinstance(given, Mapping):
        return isinstance(found, Mapping) and given.keys() == found.keys() and all(
            same(value, found[name]) for name, value in given.items()
        )  # fmt: skip
    return isinstance(found, list | tuple) and len(given) == len(found) and all(map(same, given, found))


def check_values(config: ExperimentConfig, given: Mapping[str, Any]) -> None:
    """A configuration must hold what was given, hand it to the loss, and come back from JSON as it was."""
    for name, value in given.items():
        if name == "data_root" and value:
            value = str(Path(value).expanduser().resolve())
        if not same(value, getattr(config, name)):
            raise Wrong(f"{name}: found {getattr(config, name)!r:.80}, given {value!r:.80}")
    try:
        text = json.dumps(config.to_dict(), allow_nan=False)
    except ValueError as error:
        raise Wrong(f"accepted what is no JSON: {error}") from error
    for values in (config.to_dict(), json.loads(text)):
        if ExperimentConfig.from_dict(values) != config:
            raise Wrong(f"comes back from a dict as {ExperimentConfig.from_dict(values)!r:.200}")
    loss = build_loss(config)
    for name, value in config.loss_options.items():
        wanted = float("inf") if name == "positive_ceiling" and value is None else value
        if not same(wanted, getattr(loss, name)):
            raise Wrong(f"{name} of the loss: found {getattr(loss, name)!r:.80}, given {value!r:.80}")


def check_built(config: ExperimentConfig, place: Path) -> None:
    """What a configuration asks for can be built as it says, and trained."""
    with little_memory():
        trainer = Trainer(config, place / "built", str)
    if max(config.threads, config.workers) > MOST:
        raise Wrong(f"accepted {config.threads!s:.20} threads, {config.workers!s:.20} workers")
    small = {"epochs": min(config.epochs, 2), "max_images": min(config.max_images or 100, 100)}
    if config.embed_size <= 64 and config.word_dim <= 64:  # else it would only take long
        train(replace(config, **small), place / "trained", str)
    model = trainer.model
    found = {
        "embed_size": model.embed_images(trainer.train_set.images(0, 1)).shape[-1],
        "word_dim": model.caption_encoder.embed.embedding_dim,
        "bidirectional": model.caption_encoder.rnn.bidirectional,
        "max_images": config.max_images and max(len(trainer.train_set.features), config.max_images),
        "regions": config.regions and trainer.train_set.features.shape[1],
        "learning_rate": trainer.optimizer.param_groups[0]["lr"],
    }
    for name, value in found.items():
        if not same(getattr(config, name), value):
            raise Wrong(f"{name}: built with {value!r}, given {getattr(config, name)!r:.80}")


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Let this process take MEMORY bytes more at most."""
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_data(folder: Path) -> None:
    """Features, captions and ids must be those of the files, all of them, as numpy and `split` read them."""
    for split in SIZES:
        data = PrecomputedDataset(folder, split)
        file = io.BytesIO((folder / f"{split}_ims.npy").read_bytes())
        array = np.load(file, allow_pickle=False)
        if file.read(1):
            raise Wrong(f"{split}_ims.npy: holds more than the {array.shape} that its header says, and was accepted")
        if not np.array_equal(data.images(0, len(data.features)).numpy(), array.astype(np.float32)):
            raise Wrong(f"{split}_ims.npy: {data.features.shape} are not the features of the file, {array.shape}")
        if data.captions != naive_lines(folder / f"{split}_caps.txt"):
            raise Wrong(f"{split}_caps.txt: {data.captions[:2]!r:.80}... are not the lines of the file")
        ids = [str(number) for number in range(len(array))]
        if (folder / f"{split}_ids.txt").exists():
            ids = naive_lines(folder / f"{split}_ids.txt")
            ids = ids[:: len(ids) // len(array)]
        if data.ids != ids:
            raise Wrong(f"{split}_ids.txt: {data.ids[:2]!r:.80}... are not the lines of the file")
        for index in range(0, len(data), 7):
            image = index // (len(data) // len(array))
            if not np.array_equal(data.images(image, image + 1)[0].numpy(), array[image].astype(np.float32)):
                raise Wrong(f"{split}: image {image} is not that of the file")


def naive_lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8-sig")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def said(words: list[str]) -> dict[str, Any]:
    """What the words of a command say, one by one; the last one counts."""
    kinds: dict[str, Any] = {item.name: item.type for item in fields(ExperimentConfig)} | {"run_folder": Path}
    values, rest = {}, iter(words)
    for word in rest:
        option, given, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not given and kinds.get(name.removeprefix("no_")) is bool:
            values[name.removeprefix("no_")] = not name.startswith("no_")
            continue
        if name not in kinds or not option.startswith("--"):
            raise Wrong(f"accepted {option!r:.80}, which is no option")
        value = value if given else next(rest)
        kind = kinds[name]
        if name == "loss_options":
            values[name] = json.loads(value)
        elif kind in (int, float, Path):
            values[name] = kind(value)
        elif kind == float | None:
            values[name] = None if value == "None" else float(value)
        else:
            values[name] = value
    return values


def numbers(run: Path) -> list:
    """What a run found, without times and places."""
    results = read_json(run / "results.json")
    lines = [{**line, "seconds": None} for line in read_metrics(run)]
    return [lines, *(results[name] for name in ("metrics", "ranks", "best_epoch", "dev_rsum"))]


# What is done with what is damaged, and what came of it.


def read_data(folder: Path, words: Vocabulary) -> None:
    fingerprint(folder)
    build_vocabulary(folder)
    for split in SIZES:
        data = PrecomputedDataset(folder, split, words)
        data.scan()
        data.batch(range(0, len(data), 7))


def use_config(values: Any, place: Path) -> None:
    config = ExperimentConfig.from_dict(values)
    check_config(config)
    check_values(config, ExperimentConfig().to_dict() | values)
    check_built(config, place)


def use_words(words: list[str], place: Path) -> None:
    """Run a training's command up to where the training would begin."""

    @functools.wraps(commands.train)
    def begin(experiment: ExperimentConfig, run_folder: Path | None, **options: Any) -> None:
        config, values = experiment, said(words)
        check_config(config)
        folder = values.pop("run_folder", None)
        if run_folder != folder:
            raise Wrong(f"run_folder: found {run_folder}, given {folder}")
        check_values(config, preset(values.get("dataset", "scenes")).to_dict() | values)
        check_built(config, place)

    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(commands, "train", begin)
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            try:
                code = cli.main(["train", *words])
            except SystemExit as stop:  # help, or words about what could not be parsed
                code = stop.code
    if code:
        if code not in (1, 2) or not errors.getvalue().strip() or "Traceback" in errors.getvalue():
            raise Wrong(f"ended with {code}: {errors.getvalue()[-200:]}")
        raise UWMLError(errors.getvalue())


def use_report(place: Path, root: Path) -> None:
    """The report must be that of the whole, in whatever order the runs are listed."""
    text = text_of(load_study("tiny"))
    listed = json.loads((place / "runs/tiny/reproduce.json").read_bytes())  # a mark in front or not
    expected = (root / ("report.txt" if listed.get("without_warmup") else "report-without.txt")).read_text()
    if pieces(text) != pieces(expected):
        raise Wrong(f"another report: {text[:500]}")


def pieces(text: str) -> list[list[str]]:
    """The lines of a report, and what each says, in an order of their own: losses come in that of the runs."""
    return sorted(sorted(re.split(r"[:;,.] ", line.removesuffix("."))) for line in text.splitlines())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set, finished runs on it, and their configuration; `half` is a run that was interrupted."""
    root = tmp_path_factory.mktemp("whole")
    write_tiny(root / "data" / "tiny")
    for split, size in SIZES.items():
        write_text(root / "data" / "tiny" / f"{split}_ids.txt", "".join(f"{split}{i}\n" for i in range(size)))
    config = ExperimentConfig(
        dataset="tiny", data_root=str(root / "data"), embed_size=8, word_dim=4, epochs=2, warmup_epochs=1,
        batch_size=16, device="cpu", loss="triplet",
    )  # fmt: skip
    runs = [
        train(replace(config, loss=loss, seed=seed), root / "runs" / "tiny" / f"{loss}-seed{seed}", str)
        for seed in (0, 1)
        for loss in ("triplet", "polynomial")
    ]
    alone = train(replace(config, warmup_epochs=0), root / "runs" / "tiny" / "triplet-nowarmup", str)
    with pytest.MonkeyPatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Trainer, "_train_epoch", interrupted_after_one(Trainer._train_epoch))
        train(config, root / "half", str)
    for name, step in STEPS.items():
        with pytest.MonkeyPatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(Trainer, "step", interrupted_at(step, Trainer.step))
            train(replace(config, checkpoint_minutes=0), root / name, str)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(paths, "RUNS", root / "runs")
        groups = {"runs": [Run.load(folder) for folder in runs]}
        (root / "report-without.txt").write_text(text_of(save_study("tiny", "reproduce", groups)))
        groups["without_warmup"] = [Run.load(alone)]
        (root / "report.txt").write_text(text_of(save_study("tiny", "reproduce", groups)))
    return root, config


def interrupted_after_one(train_epoch):
    def wrapped(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self, epoch)

    return wrapped


def interrupted_at(last, step):
    left = last - 1

    def wrapped(self, *arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return step(self, *arguments)

    return wrapped


def attempt(root: Path, config: ExperimentConfig, place: Path, generator: random.Random) -> tuple[str, Callable]:
    """Damage one thing; return what, and how to use it."""
    what = generator.choice(("data", "run", "resume", "inside", "report", "config", "command", *OTHERS))
    if what in OTHERS:
        place.mkdir()
        return OTHERS[what](place, generator)
    if what == "command":
        words = [str(root / "data") if word == "data" else word for word in COMMAND]
        words = damage_words(words, generator)
        changed = [word for word in words if word not in COMMAND and "whole" not in word]
        return f"command, {changed!r:.300}", lambda: use_words(words, place)
    if what == "config":
        loss = generator.choice(tuple(OPTIONS))
        whole = config.to_dict() | {"loss": loss, "loss_options": OPTIONS[loss]}
        if (chance := generator.random()) < 0.4:
            values = whole | {"loss_options": damage_json(whole["loss_options"], generator)}
        elif chance < 0.6:
            values = whole | {generator.choice(("checkpoint_minutes", "twins", "siblings")): generator.choice(STRANGE)}
        else:
            values = damage_json(whole, generator)
        items = values.items() if isinstance(values, dict) else [("all", values)]
        changed = dict(item for item in items if item not in whole.items())
        return f"config, {changed!r:.300}", lambda: use_config(values, place)
    source = {"data": "data/tiny", "run": "runs/tiny/triplet-seed0", "resume": "half", "report": "runs/tiny",
              "inside": generator.choice(tuple(STEPS))}[what]  # fmt: skip
    for part in {"data/tiny", source, "half"}:
        shutil.copytree(root / part, place / part)
    damage = damage_stopped if what == "inside" else functools.partial(damage_file, what)
    file = damage(place / source, generator)
    moved = replace(config, data_root=str(place / "data"))

    def use() -> None:
        if what == "data":
            read_data(place / source, Vocabulary.load(place / "half" / "vocabulary.json"))
            check_data(place / source)
            train(replace(moved, epochs=1), place / "new", str)
        elif what == "run":
            evaluate_run(place / source, data_root=str(place / "data"))
        elif what in ("resume", "inside"):
            train(replace(moved, checkpoint_minutes=0), place / source, str)
        else:
            use_report(place, root)
        if what in ("run", "resume", "inside") and numbers(place / source) != numbers(root / "runs/tiny/triplet-seed0"):
            raise Wrong("other numbers than those of the whole")

    return f"{what}, {file}", use


def damage_file(what: str, folder: Path, generator: random.Random) -> str:
    """Damage one file of a folder; return its name."""
    kinds = {"report": ("results.json", "reproduce.json", "metrics.jsonl")}.get(what)
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    file = generator.choice(sorted(path for path in files if kinds is None or path.name in kinds))
    if what == "report" and generator.random() < 0.5:
        file = folder / "reproduce.json"
    if file.name == "reproduce.json" and generator.random() < 0.6:
        file.write_text(json.dumps(damage_names(json.loads(file.read_text()), generator)))
    elif file.suffix == ".json" and generator.random() < 0.7:
        file.write_text(json.dumps(damage_json(json.loads(file.read_text()), generator)))
    elif generator.random() < 0.1:
        file.unlink()
    else:
        file.write_bytes(damage_bytes(file.read_bytes(), generator))
    return file.name


@contextlib.contextmanager
def deep_recursion() -> Iterator[None]:
    """Let the damage be deeper than what the kit is asked to read."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5 * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def share(total: int, number: int, parts: int) -> int:
    """How much of a total falls to one of several parts; all of them together have all of it."""
    return total // parts + (number < total % parts)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_damage_gives_a_right_result_or_a_clear_error(whole, tmp_path, monkeypatch, record_property, shard):
    root, config = whole
    tries = share(MUTATIONS, shard, SHARDS)
    assert tries >= 1, f"UWML_MUTATIONS: found {MUTATIONS}, expected at least 1"
    generator, outcomes, bad = random.Random(shard), Counter(), []
    warnings.simplefilter("ignore")
    for number in range(tries):
        place = tmp_path / str(number)
        monkeypatch.setattr(paths, "RUNS", place / "runs")
        with deep_recursion():
            what, use = attempt(root, config, place, generator)
        outcome, words = outcome_of(use)
        outcomes[outcome] += 1
        if words:
            bad.append(f"{number}: {outcome}: {words} ({what:.300})")
        shutil.rmtree(place, ignore_errors=True)
    assert outcomes.total() == tries
    found = {name: outcomes[name] for name in ("right", "clear error", "wrong", "unclear", "hung")}
    record_property("mutations", {"tried": outcomes.total(), **found})
    if bad:
        pytest.fail("\n".join(bad), pytrace=False)


# Of what the random attempts above find now and then, what was found once, every time.

NUMBERS = ("threads", "workers", "embed_size", "word_dim")
REFUSED = (
    *({name: size} for name in NUMBERS for size in (10**8, 10**12, 10**400)),
    *({"checkpoint_minutes": value} for value in (-1, -0.5, float("nan"), float("inf"), "1", "x", None, True, 10**400)),
    *({"twins": value} for value in ("Ignored", "", None, True, ["ignored"], "negative")),
    *({name: 10**400} for name in ("learning_rate", "gradient_clip", "lambda_softmax", "lambda_lse")),
    {"gradient_clip": -(10**400)}, {"dataset": "a\0b"}, {"data_root": "a\0b"}, {"data_root": "~nobody-of-this-name/x"},
)  # fmt: skip
REFUSED_OPTIONS = (
    *({name: value} for name in ("positive", "negative") for value in (
        "123", "1", ["1"], [True], {"1": 2}, [10**400], [float("inf")], [float("nan")], nested(5), nested(900),
    )),
    *({"margin": value} for value in (True, "0.1", -(10**400), float("inf"), float("nan"), nested(900))),
    *({"positive_ceiling": value} for value in (True, "1", float("inf"), float("nan"), nested(900))),
    *({"check_finite": value} for value in (1, "x", "false", float("inf"), float("nan"), [], nested(300))),
)  # fmt: skip


@pytest.mark.parametrize("values", REFUSED, ids=lambda values: f"{values!r:.30}")
def test_absurd_settings_are_refused(whole, tmp_path, values):
    _, config = whole
    assert outcome_of(lambda: use_config(config.to_dict() | values, tmp_path)) == ("clear error", "")


@pytest.mark.parametrize("options", REFUSED_OPTIONS, ids=lambda options: f"{options!r:.30}")
def test_options_of_another_kind_are_refused(whole, tmp_path, options):
    _, config = whole
    values = config.to_dict() | {"loss": "polynomial", "loss_options": options}
    assert outcome_of(lambda: use_config(values, tmp_path)) == ("clear error", "")


@pytest.mark.parametrize("margin", [10**30, 10**400, 1e308], ids=["1e30", "1e400", "1e308"])
def test_large_options_are_refused_or_taken_as_they_are(whole, tmp_path, margin):
    _, config = whole
    outcome, words = outcome_of(lambda: use_config(config.to_dict() | {"loss_options": {"margin": margin}}, tmp_path))
    assert outcome in ("right", "clear error"), words


@pytest.mark.parametrize(
    "more",
    [
        *(("--threads", size) for size in ("1000000000000", "100000000", "-1", "x")),
        *(("--embed-size", size) for size in ("100000000", "1000000000000", "9" * 5_000)),
        *(("--loss-options", text) for text in STRANGE_OPTIONS),
    ],
    ids=lambda words: "=".join(words)[:40],
)
def test_absurd_words_are_refused(whole, tmp_path, more):
    root, _ = whole
    words = [str(root / "data") if word == "data" else word for word in COMMAND]
    assert outcome_of(lambda: use_words([*words, *more], tmp_path)) == ("clear error", "")
    assert outcome_of(lambda: use_words(words, tmp_path / "right")) == ("right", "")


@pytest.mark.parametrize(
    ("file", "change", "outcome"),
    [
        ("dev_ims.npy", lambda content: content + b"\0" * 108, "clear error"),
        ("dev_ims.npy", lambda content: content.replace(b"(12, 3, 9)", b"( 6, 3, 9)"), "clear error"),
        ("train_caps.txt", lambda content: b"\xef\xbb\xbf" + content, "right"),
        ("test_ids.txt", lambda content: b"\xef\xbb\xbf" + content, "right"),
        ("test_caps.txt", lambda content: content.replace(b"\n", b"\r\n"), "right"),
        ("train_ims.npy", lambda content: content, "right"),
    ],
    ids=["longer", "fewer-images", "mark-captions", "mark-ids", "line-ends", "untouched"],
)
def test_files_are_read_whole(whole, tmp_path, file, change, outcome):
    root, _ = whole
    shutil.copytree(root / "data/tiny", tmp_path / "tiny")
    if "ids" not in file:  # which would show how many images there were
        (tmp_path / "tiny" / f"{file.partition('_')[0]}_ids.txt").unlink()
    (tmp_path / "tiny" / file).write_bytes(change((tmp_path / "tiny" / file).read_bytes()))
    assert outcome_of(lambda: check_data(tmp_path / "tiny"))[0] == outcome


@pytest.mark.parametrize("total", [1, 3, 4, 5, 300, 10_001])
def test_the_shares_are_the_whole(total):
    parts = max(1, min(4, total))
    shares = [share(total, number, parts) for number in range(parts)]
    assert sum(shares) == total
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1


def stubborn() -> None:
    """Take every error for one of one's own, and go on for ever."""
    while True:
        try:
            time.sleep(10)
        except Exception as error:
            raise UWMLError("so it seems") from error


def very_stubborn() -> None:
    """Swallow the first sign, whatever it is."""
    with contextlib.suppress(BaseException):
        time.sleep(10)
    stubborn()


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("work", [stubborn, very_stubborn])
def test_a_hang_is_no_clear_error(work):
    began = time.monotonic()
    assert outcome_of(work, seconds=1) == ("hung", "still at work after 1 seconds")
    assert time.monotonic() - began < 9


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(UWMLError("x"), "clear error"), (Wrong("x"), "wrong"), (TimeoutError("x"), "unclear"), (OSError("x"), "unclear")],
)
def test_what_came_of_it(error, outcome):
    assert outcome_of(lambda: fail(error))[0] == outcome
    assert outcome_of(list) == ("right", "")


@pytest.mark.parametrize(
    ("given", "found", "right"),
    [
        (1, 1.0, True), (1, True, False), (True, 1, False), ("1", 1, False), ([1, 2], (1.0, 2.0), True),
        ("12", (1.0, 2.0), False), ([True], (1.0,), False), ({"1": 2}, (1.0,), False), (None, float("inf"), False),
        (10**400, 10**400, True), (10**400, float("inf"), False), (float("nan"), float("nan"), False),
        ({"a": [1]}, {"a": [1]}, True), ({"a": 1}, {}, False), ([1], [1, 2], False),
    ],
)  # fmt: skip
def test_the_same_value_is_of_the_same_kind(given, found, right):
    assert same(given, found) == right
