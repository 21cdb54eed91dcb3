"""Checkpoints of other people, runs stopped inside an epoch, strange names, and what a loss is given, all damaged.

Each function damages one thing in a folder and returns what, and how to use it.
"""

import random
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markdown_it import MarkdownIt

from tests.losses.oracles import naive_loss
from tests.made import write_run
from tests.outcomes import Wrong
from tests.released.test_other_models import SCAN, VSEPP, two_parts, write
from tests.tiny import write_split
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import PrecomputedDataset, build_vocabulary
from uwml_lib.losses import LOSSES
from uwml_lib.models import VSE
from uwml_lib.models.scan import DEFAULT_LAMBDA_LSE, DEFAULT_LAMBDA_SOFTMAX
from uwml_lib.released.checkpoints import load_released_checkpoint
from uwml_lib.released.flags import OTHERS, SETTINGS
from uwml_lib.reports.figures import pictures_with_boxes
from uwml_lib.reports.site.sources import unnoticed
from uwml_lib.reports.two_losses import two_losses
from uwml_lib.runs import Run, load_study, save_study
from uwml_lib.runs.checkpoints import load_state, save_state
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError

Attempt = tuple[str, Callable[[], None]]

# Checkpoints of SCAN and VSE++.

MAY_LACK = {"vocab_path", "workers", "val_step", "logger_name", "model_name", "resume", "img_dim", "precomp_enc_type",
            "vocab_size"}  # fmt: skip
NOT_OURS = (
    "an other model's flag",
    "not here",
    "third part",
    "one part",
    "cnn",
    "both names",
    "dimensions",
    "lost tensor",
)
VALUES = (
    None, True, False, 0, -1, 3, 10**400, 2.5, float("nan"), float("inf"), "", "x", "i2t", "t2i", "Mean",
    "Max", "l2norm",
    "weight_norm", [], {}, np.float64(2.0), np.int64(4), "0.2", "../..", "a\0b",
)  # fmt: skip


def damage_flags(flags: dict[str, Any], kind: str, generator: random.Random) -> str:
    """Damage the flags of a checkpoint, in place; return the flag."""
    name = generator.choice(list(flags))
    if kind == "delete":
        del flags[name]
    elif kind == "unknown":
        name = generator.choice(("gate", "Measure", "cross-attn", "bi_gru2", "lambda"))
        flags[name] = generator.choice(VALUES)
    elif kind == "an other model's flag":
        name = generator.choice(list(OTHERS))
        flags[name] = generator.choice(VALUES)
    elif kind == "not here":
        name, value = generator.choice(
            (("no_imgnorm", True), ("num_layers", 2), ("measure", "order"), ("use_abs", True))
        )
        name, value = (name, value) if name in flags else ("no_txtnorm", True)
        flags[name] = value
    elif kind == "value":
        flags[name] = generator.choice(VALUES)
    return name


def damage_parts(parts: list[dict[str, Any]], kind: str, generator: random.Random) -> str:
    """Damage the tensors of a checkpoint, in place; return which."""
    part = generator.randrange(2)
    name = generator.choice(list(parts[part]))
    if kind == "module":
        for number in generator.choice(((0,), (1,), (0, 1))):
            parts[number] = {f"module.{name}": x for name, x in parts[number].items()}
    elif kind == "both names":
        parts[part][f"module.{name}"] = parts[part][name] + 1
    elif kind == "third part":
        parts.append(dict(parts[part]) if generator.random() < 0.5 else {})
    elif kind == "one part":
        del parts[part]
    elif kind == "cnn":
        parts[part]["cnn.module.conv1.weight"] = torch.ones(2, 3)
    elif kind == "lost tensor":
        del parts[part][name]
    elif kind == "dimensions":
        x = parts[part][name]
        parts[part][name] = generator.choice(
            (x[None], x[..., None], x[1:], x.flatten()[:1].squeeze(), torch.cat([x, x]))
        )
    return name


def damage_checkpoint(place: Path, generator: random.Random) -> tuple[Path, dict[str, Any], str, str]:
    """Write a checkpoint with one thing damaged; return it, its flags, the kind of damage, and of what."""
    flags, parts = dict(generator.choice((SCAN, VSEPP))), two_parts()
    kind = generator.choice((*NOT_OURS, "delete", "unknown", "value", "value", "module", "swap", "swap some"))
    where = kind
    if kind == "swap":
        flags = dict(VSEPP if flags == SCAN else SCAN)
    elif kind == "swap some":
        other = VSEPP if flags == SCAN else SCAN
        for name in generator.sample(sorted(other.keys() - flags.keys()), 2):
            flags[name] = other[name]
    elif kind in ("delete", "unknown", "an other model's flag", "not here", "value"):
        where = damage_flags(flags, kind, generator)
    else:
        where = damage_parts(parts, kind, generator)
    return write(place / "other.pth.tar", flags, parts), flags, kind, where


def attempt_checkpoint(place: Path, generator: random.Random) -> Attempt:
    """Damage the flags or the tensors of a checkpoint: it may not be scored as another model without a word."""
    path, flags, kind, where = damage_checkpoint(place, generator)

    def use() -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model, config = load_released_checkpoint(path)
        if kind in NOT_OURS or (kind == "delete" and where not in MAY_LACK):
            raise Wrong(f"accepted: {kind}")
        remarks = " ".join(str(warning.message) for warning in said if "not read" in str(warning.message))
        if kind in ("unknown", "swap some") and not remarks:
            raise Wrong(f"no word about {where}")
        is_vsepp = "measure" in flags and "cross_attn" not in flags
        if isinstance(model, VSE) != is_vsepp:
            raise Wrong(f"read as {type(model).__name__}")
        images, captions = two_parts()
        for encoder, part in ((model.image_encoder, images), (model.caption_encoder, captions)):
            for name, x in encoder.state_dict().items():
                if not torch.equal(x, part[name]):
                    raise Wrong(f"other weights {name}")
        check_flags(config, flags)

    return f"checkpoint, {kind}, {where}, {flags.get(where)!r:.40}", use


def check_flags(config: ExperimentConfig, flags: dict[str, Any]) -> None:
    """A configuration says what the flags say."""
    for flag, setting in SETTINGS.items():
        found, said = getattr(config, setting), flags.get(flag)
        if flag == "data_path" or flag not in flags or (flag in SCAN.keys() - VSEPP.keys() and config.model == "vse"):
            continue
        if flag == "lambda_softmax" and found is None:
            found = DEFAULT_LAMBDA_SOFTMAX[config.direction]
        if flag == "lambda_lse" and found is None:
            found = DEFAULT_LAMBDA_LSE[config.direction] if config.aggregation == "LogSumExp" else said
        if found != said:
            raise Wrong(f"{setting}: found {found!r}, and --{flag} is {said!r}")
    if config.loss_options.get("negatives") != (None if flags["max_violation"] else "all"):
        raise Wrong(f"the loss: {config.loss_options}")
    if config.loss_options.get("margin", 0.2) != flags["margin"]:
        raise Wrong(f"the margin: {config.loss_options}")


# Runs that were stopped inside an epoch.

STEPS = {"first": 2, "middle": 4, "later": 7}
"""Folder -> the step of the training before which it was stopped; an epoch has five."""
SO_FAR = (
    None, True, False, -1, 0, 1, 2, 3, 4, 5, 6, 10**6, 10**400, 1.0, 2.5, 1e308, float("nan"), float("inf"),
    "", "1", "x",
    [], [1], [[]], [{}], {}, {"a": 1}, [{"loss": "x"}], [{"loss": [1.0]}], [{"loss": 1.0}],
    [{"loss": float("nan"), "gradient_norm": 1.0}], [{"loss": None}], [{"other": 1.0}, {"loss": 1.0}], [None],
)  # fmt: skip


def damage_state(state: dict[str, Any], generator: random.Random) -> str:
    """Damage what a state says of the epoch so far, in place."""
    kind = generator.choice(("remove", "step", "seconds", "pending", "all", "key", "records", "best", "more"))
    so_far = state["epoch_so_far"]
    value = generator.choice(SO_FAR)
    if kind == "remove":
        del state["epoch_so_far"]
        return kind
    if kind == "all":
        state["epoch_so_far"] = value
    elif kind == "key":
        kind = generator.choice(list(so_far))
        del so_far[kind]
        return f"no {kind}"
    elif kind == "records":
        value = generator.choice(("last", "repeat", "first"))
        if state["records"]:
            {"last": state["records"].pop, "first": lambda: state["records"].pop(0),
             "repeat": lambda: state["records"].append(state["records"][-1])}[value]()  # fmt: skip
    elif kind == "best":
        state["best_rsum"] = value
    elif kind == "more":
        so_far["pending"] = [*so_far["pending"], *so_far["pending"][:1]]
    else:
        so_far[kind] = value
    return f"{kind} {value!r:.40}"


def damage_stopped(folder: Path, generator: random.Random) -> str:
    """Damage a run that was stopped inside an epoch."""
    kind = generator.choice(("state",) * 6 + ("metrics", "stray"))
    if kind == "state":
        state = load_state(path := folder / "checkpoint/last.pt")
        what = damage_state(state, generator)
        save_state(path, state)
        return what
    if kind == "metrics":
        path = folder / "metrics.jsonl"
        content = path.read_bytes() if path.exists() else b""
        how = generator.choice(("cut", "lost", "more"))
        if how == "lost":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content[: generator.randrange(len(content) + 1)] if how == "cut" else content + b'{"kind"')
        return f"metrics {how}"
    stray = generator.choice((".last.pt.part", ".best.safetensors.part", "new.safetensors", ".new.safetensors.part"))
    (folder / "checkpoint" / stray).write_bytes(generator.randbytes(50))
    return f"stray {stray}"


# Names of data sets and captions that mean something to a page, a figure or a shell.

PIECES = (
    "{}", "{0}", "{x!r}", "#", '"', "'", "<i>", "$", "$x_{ $", "|", "%20", "%s", "&amp;", "\\", "~", "*", " ",
    "*.npy", "[a]",
    "..", "-", "--", "\u00e9", "\U0001f600", "`", "$(x)", ";", "a", "\u202e", "\n", "\t", "a" * 300, "?",
    "\u0301", "NUL",
)  # fmt: skip
PIECES_OF_CAPTIONS = (
    "$x_{ $",
    "$",
    "$$",
    "<script>alert(1)</script>",
    "{0}",
    "%s",
    "\\frac",
    "^_",
    "&lt;",
    "\u202e",
    "`",
    "x",
)


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names, self.text = set[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def attempt_name(place: Path, generator: random.Random) -> Attempt:
    """Give a data set a name of pieces that mean something elsewhere, and report on it."""
    name = "".join(generator.choices(PIECES, k=generator.randint(1, 4)))

    def use() -> None:
        config = ExperimentConfig(dataset=name, data_root=str(place))
        if config.data_folder.parent != place:
            raise Wrong(f"the folder is {config.data_folder}")
        try:
            write_split(config.data_folder, "train", np.eye(2, dtype=np.float32)[:, None], ["a dog"] * 2)
        except OSError as error:  # the system has no such name
            raise UWMLError(str(error)) from error
        if len(PrecomputedDataset(config.data_folder, "train")) != 2:
            raise Wrong("another folder was read")
        for loss in ("triplet", "polynomial"):
            write_run(paths.RUNS / name / loss, loss, 0, 2.0, dataset=name)
        runs = [Run.load(paths.RUNS / name / loss) for loss in ("triplet", "polynomial")]
        save_study(name, "reproduce", {"runs": runs})
        report = two_losses(load_study(name))
        found = Elements(MarkdownIt("commonmark").enable("table").render(unnoticed(report.with_runs())))
        if "i" in found.names:
            raise Wrong("the name is markup")
        rows = [line for line in report.to_markdown().splitlines() if line.startswith("|")]
        if len({row.replace(r"\|", "").count("|") for row in rows[: len(report.table) + 2]}) > 1:
            raise Wrong("the table has other columns")

    return f"name, {name!r:.60}", use


def attempt_captions_shown(place: Path, generator: random.Random) -> Attempt:
    """Read and draw captions of pieces that mean something to a figure."""
    texts = [" ".join(generator.choices(PIECES_OF_CAPTIONS, k=3)) for _ in range(4)]
    write_split(place / "tiny", "train", np.eye(4, dtype=np.float32)[:, None], texts)
    write_split(place / "tiny", "dev", np.eye(4, dtype=np.float32)[:, None], ["a dog runs"] * 4)

    def use() -> None:
        words = build_vocabulary(place / "tiny")
        data = PrecomputedDataset(place / "tiny", "train", words)
        if data.captions != texts or len(data.encoded) != len(texts):
            raise Wrong(f"found {data.captions}")
        figure, _ = pictures_with_boxes(np.zeros((1, 4, 4, 3)), np.zeros((1, 0, 4)), texts[:1])
        figure.draw_without_rendering()

    return f"captions shown, {texts[0]!r}", use


# What a loss is given.

IDS = {
    "whole numbers": [3, 3, 5, 6, 5], "one": [1, 1, 1, 1, 1], "negative": [-1, 0, -1, 2, 3], "large": [2**62,
    1, 2**62, 0, 0],
    "booleans": [True, False, True, True, False], "text": ["a", "b", "a", "c", "d"], "floats": [1.0, 2.0, 1.0,
    3.0, 4.0],
    "mixed": [1, 2.5, 3, 4, 5], "none": [None, 1, 2, 3, 4], "short": [1, 2, 3], "long": [1, 2, 3, 4, 5, 6], "empty": [],
    "nested": [[1], [2], [3], [4], [5]], "ragged": [[1], [2, 3], 4, 5, 6], "huge": [10**30, 1, 2, 3, 4], "a number": 3,
    "words": "abcde", "keys": {1: 2}, "nan": [float("nan")] * 5, "complex": [1j, 2, 3, 4, 5],
}  # fmt: skip
GOOD_IDS = ("whole numbers", "one", "negative", "large", "booleans")


def as_given(values: Any, generator: random.Random) -> Any:
    """The same values as a list, a tuple, an array or a tensor, where there is such a thing."""
    kinds = (list, tuple, np.array, np.asarray, torch.tensor, lambda x: x)
    try:
        return generator.choice(kinds)(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return values


def masks(generator: random.Random) -> tuple[str, Any, Any]:
    """A mask of who may be a negative: what it is, the mask, and what it says, or None if it says nothing clear."""
    said = torch.tensor([[generator.random() < 0.7 for _ in range(5)] for _ in range(5)])
    clear = {"tensor": said, "list": said.tolist(), "array": said.numpy()}
    unclear = {
        "whole": said.long(), "float": said.double(), "row": said[0], "larger": said.repeat(2, 2), "batch": said[None],
        "object": said.numpy().astype(object), "number": True, "none": [[None] * 5] * 5, "text": [["a"] * 5] * 5,
        "words": "mask", "ragged": [[True], [True, False]],
    }  # fmt: skip
    kind = generator.choice([*clear, *unclear])
    return (kind, clear[kind], said) if kind in clear else (kind, unclear[kind], None)


SCORES: dict[str, Callable[[torch.Tensor], Any]] = {
    "array": lambda x: x.numpy(), "list": lambda x: x.tolist(), "whole": lambda x: x.long(), "row": lambda x: x[0],
    "batch": lambda x: x[None], "oblong": lambda x: x[:3], "empty": lambda x: x[:0, :0],
    "nan": lambda x: x * float("nan"),
    "none": lambda x: None, "complex": lambda x: x + 0j, "booleans": lambda x: x > 0,
}  # fmt: skip


def attempt_loss(_: Path, generator: random.Random) -> Attempt:
    """Give a loss ids, masks or scores of other types and shapes: the number of plain loops, or a ValueError."""
    name = generator.choice(list(LOSSES))
    loss, seed = LOSSES[name](), generator.randrange(1000)
    scores = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    given, known, what = {}, {}, [name]
    for key in ("image_ids", "caption_ids"):
        if generator.random() < 0.6:
            kind = generator.choice((*IDS, *GOOD_IDS, *GOOD_IDS))
            given[key] = as_given(IDS[kind], generator)
            known[key] = torch.tensor([int(x) for x in IDS[kind]]) if kind in GOOD_IDS else None
            what.append(f"{key}: {kind} as {type(given[key]).__name__}")
    if generator.random() < 0.4:
        kind, given["negatives"], known["negatives"] = masks(generator)
        what.append(f"negatives: {kind}")
    x: Any = scores
    if generator.random() < 0.2:
        kind = generator.choice(list(SCORES))
        x, known["scores"] = SCORES[kind](scores), None
        what.append(f"scores: {kind}")

    def use() -> None:
        try:
            if given.get("image_ids") is None:
                given.pop("image_ids", None)
            value, _, _ = loss(x, **given), loss.statistics(x, **given), loss.negative_mask(x, **given)
        except ValueError as error:
            if any(of is not None for of in known.values()) and not any(of is None for of in known.values()):
                raise Wrong(f"refused: {error}") from error
            raise UWMLError(str(error)) from error
        if any(of is None for of in known.values()):
            raise Wrong("accepted what says nothing clear")
        expected = naive_loss(loss, scores, **known)
        if abs(float(value) - expected) > 1e-9:
            raise Wrong(f"found {float(value)}, expected {expected}")

    return "loss, " + ", ".join(what), use


OF_RUNS = {
    "checkpoint": attempt_checkpoint, "name": attempt_name, "captions shown": attempt_captions_shown,
    "loss": attempt_loss,
}  # fmt: skip
