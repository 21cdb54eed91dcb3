"""The one dataclass that describes an experiment, and the settings of each known data set.

>>> from uwml_lib.config import preset
>>> config = preset("scenes", loss="triplet", seed=1)
>>> config.loss, config.batch_size, config.warmup_epochs
('triplet', 64, 1)
"""

import hashlib
import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args, get_origin

from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.paths import absolute_path

Direction = Literal["i2t", "t2i"]
Normalisation = Literal["clipped_l2norm", "l2norm", "softmax", "clipped", "no_norm"]
Aggregation = Literal["Mean", "LogSumExp", "Max", "Sum"]
Captions = Literal["text", "bytes", "bytes_glued", "vectors"]
Precision = Literal["float32", "float64", "tf32", "bf16"]
Fidelity = Literal["corrected", "released"]

FIDELITY: dict[Fidelity, dict[str, Any]] = {
    "corrected": {"captions": "text", "siblings": "ignored", "dev_captions": 0, "evaluation_precision": "float32"},
    "released": {
        "captions": "bytes", "siblings": "negatives", "twins": "negatives", "dev_captions": 5000,
        "evaluation_precision": "float64",
    },
}  # fmt: skip
"""Habits of the released code, each also a setting of its own: as this kit has them, and as the release did. Twins are
so rare in most data that either is this kit's."""


def setting(
    default: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf, why: str = "",
    **cosmetic: bool,
) -> Any:  # fmt: skip
    """A field with its bounds. why: what stands behind the least value, for the error.

    most: a larger number is a slip, which would fill the memory or start thousands of processes. cosmetic: cannot
    change a result, and so does not tell one experiment from another.
    """
    bounds = [
        (lambda value: value >= least, f"at least {least}{why}"),
        (lambda value: value > above, f"above {above}"),
        (lambda value: value <= most, f"at most {most:,}"),
    ]
    return field(default=default, metadata={"bounds": bounds, **cosmetic})


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment: data, model, loss, optimisation; SCAN's settings on Flickr30K, which `preset` adapts."""

    dataset: str = "scenes"
    """Folder name of the data set: scenes, clips (or NAME_smoke), flickr8k, flickr30k, f30k_precomp, coco_precomp, or
    your own."""
    data_root: str = field(default="", metadata={"cosmetic": True})
    """Folder that holds the data set's folder. Empty means the project's data/."""
    max_images: int = setting(0, least=0, most=10**9)
    """Use only the first images of every split; 0 means all."""
    regions: int = setting(0, least=0, most=10**6)
    """Use only the first regions of every image; 0 means all. Detectors list regions by falling confidence."""
    captions: Captions = "text"
    """How captions are read. text: as text; bytes: as in the release, with b'...'; bytes_glued: the same as under nltk
    3.2.5, 3.3 or 3.10.4; vectors: from {split}_caps.npy, one row for each caption, for the model frozen."""
    siblings: Literal["ignored", "negatives"] = "ignored"
    """Other captions of the same image in a batch: ignored by the loss, or negatives, as in the release."""
    twins: Literal["ignored", "negatives"] = "negatives"
    """Captions of another image with a sentence that this image has too: ignored by the loss, or negatives, as in the
    release."""
    dev_captions: int = setting(0, least=0, most=10**9)
    """Use only the first captions of dev; the released code uses 5000, 0 means all."""
    selection_images: int = setting(0, least=0, most=10**9)
    """Keep this many training images, the last ones, out of training and choose the best epoch on them; 0: on dev."""
    evaluation_precision: Precision = "float32"
    """Precision of attention and ranks; the released code uses float64. tf32 and bf16 apply to the matrix products of
    the attention only, on an accelerator that has them."""
    model: str = "scan"
    """A name of `uwml_lib.models.MODELS`: scan, vse, vse_infinity, bfan, dual_encoding or frozen."""
    embed_size: int = setting(1024, least=1, most=2**16)
    """Width of the common space; the released code uses 1024."""
    word_dim: int = setting(300, least=1, most=2**16)
    """Width of the word embeddings; the released code uses 300."""
    bidirectional: bool = True
    """Read captions with a GRU in both directions."""
    weight_norm: bool = False
    """Weight-normalise the image encoder."""
    hidden: int = setting(0, least=0, most=2**16)
    """Size of the hidden layer of frozen's heads; 0 means linear heads."""
    direction: Direction = "i2t"
    """i2t: regions attend to words; t2i: words attend to regions."""
    normalisation: Normalisation = "clipped_l2norm"
    """How region-word similarities are normalised before the softmax."""
    aggregation: Aggregation = "Mean"
    """How the similarities of the queries become one score."""
    lambda_softmax: float | None = setting(None, above=0)
    """Inverse temperature of the attention; None means 4 for i2t, 9 for t2i."""
    lambda_lse: float | None = setting(None, above=0)
    """Inverse temperature of LogSumExp; None means 5 for i2t, 6 for t2i."""
    start_from: str = ""
    """Folder name of a finished run on the same data, with whose best weights the training begins; empty: with random
    ones."""
    loss: str = "polynomial"
    """A name of `uwml_lib.losses.LOSSES`, such as polynomial or triplet."""
    loss_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the loss's constructor, as JSON: '{"margin": 0.1}'."""
    epochs: int = setting(30, least=1, most=10**6)
    """Passes over the training captions."""
    warmup_epochs: int = setting(0, least=0, most=10**6)
    """How many first epochs train on the dense form of the same loss, with all informative negatives."""
    batch_size: int = setting(128, least=2, most=10**6, why=", for a batch of one has no negatives")
    """Pairs of an image and a caption in a step."""
    batches: Literal["shuffled", "no_duplicates"] = "shuffled"
    """How an epoch is divided into batches. shuffled: at random; no_duplicates: at random, but no batch has two
    captions of one image, or a sentence twice."""
    learning_rate: float = setting(2e-4, above=0)
    """Adam's step size."""
    decay_epoch: int = setting(15, least=1, most=10**6)
    """Divide the learning rate by ten each time this many epochs have passed."""
    gradient_clip: float = setting(2.0, least=0)
    """Largest gradient norm; 0 means no clipping."""
    seed: int = setting(0, least=0, most=2**32 - 1)
    """Seed of the weights and of the order of the captions."""
    mixed_precision: Literal["no", "tf32", "fp16", "bf16", "auto"] = "no"
    """Precision of matrix products in training. tf32 and fp16 need an accelerator that has them; bf16 works on a CPU
    too. auto means bf16 on a CPU with instructions for it (AVX512-BF16, AMX) if embed_size is at least 256, else no."""
    device: Literal["auto", "cpu"] = "auto"
    """auto uses an accelerator if there is one."""
    threads: int = setting(1, least=1, most=1024)
    """Threads of torch on the CPU. The last bits of a result depend on this."""
    workers: int = setting(0, least=0, most=256, cosmetic=True)
    """Processes that load data."""
    log_every: int = setting(10, least=1, most=10**9, cosmetic=True)
    """Steps between two lines of metrics.jsonl."""
    checkpoint_minutes: float = setting(1.0, least=0, cosmetic=True)
    """Save the state of the training every so many minutes, within an epoch too, so that it can continue after an
    interruption; 0: after every step."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            _check(item.name, value, _fits(value, item.type), _words(item.type))
            if type(value) is int and float in (item.type, *get_args(item.type)):  # 2 and 2.0 are one experiment
                object.__setattr__(self, item.name, float(value))
            for holds, expected in item.metadata.get("bounds", ()) if value is not None else ():
                _check(item.name, value, holds(value), expected)
        _check("loss_options", self.loss_options, _is_plain(self.loss_options), "values of JSON, with finite numbers")
        where = "the name of a folder, without the path to it, which is data_root"
        _check("dataset", self.dataset, is_folder_name(self.dataset), where)
        _check(
            "start_from", self.start_from, not self.start_from or is_folder_name(self.start_from), "a run's folder name"
        )
        another = "another name, because the reports have a folder with this name"
        _check("dataset", self.dataset, self.dataset.removesuffix("_precomp") not in paths.NO_DATASET, another)
        if self.mixed_precision == "auto":  # what is kept, and told apart by, is what it stands for on this machine
            from uwml_lib.support.numerics import quick_precision

            object.__setattr__(self, "mixed_precision", quick_precision(self.device, self.embed_size))
        if self.data_root:  # notebooks run in another folder than the shell
            object.__setattr__(self, "data_root", str(absolute_path("data_root", self.data_root)))

    @property
    def data_folder(self) -> Path:
        """Folder of the data set."""
        return (Path(self.data_root) if self.data_root else paths.DATA) / self.dataset

    @property
    def identity(self) -> dict[str, Any]:
        """Every setting that can change a result: name -> value."""
        return {item.name: getattr(self, item.name) for item in fields(self) if "cosmetic" not in item.metadata}

    @property
    def chosen_by(self) -> str:
        """The images that choose the best epoch, in a word or two."""
        return "held-out train" if self.selection_images else "dev"

    @property
    def fidelity(self) -> str:
        """Name what `FIDELITY` these settings are; "mixed" if some are the one and some the other."""
        mine = self.identity
        if mine["captions"] == "vectors":  # nothing of which the release mangles
            mine["captions"] = "text"
        return next((name for name, values in FIDELITY.items() if mine.items() >= values.items()), "mixed")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ExperimentConfig":
        """Build a configuration from plain values; an unknown key is an error that names the nearest right one."""
        if not isinstance(values, Mapping):
            raise UWMLError(f"configuration: found {values!r}, expected names and values")
        if unknown := [key for key in values if key not in cls.__dataclass_fields__]:
            hint = nearest(unknown[0], [*cls.__dataclass_fields__])
            raise UWMLError(f"configuration: unknown key {unknown[0]!r}; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def run_name(self, data_fingerprint: str) -> str:
        """Return `loss-seedN-digest`, or `loss-seedN-nowarmup-digest`.

        The digest covers every setting that can change a result, and the data. Defaults are left out, so that a setting
        that is new does not rename the runs from before it.
        """
        usual = ExperimentConfig().identity
        identity = {name: value for name, value in self.identity.items() if value != usual[name]}
        digest = hashlib.sha256(json.dumps([identity, data_fingerprint], sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.loss}-seed{self.seed}-{'' if self.warmup_epochs else 'nowarmup-'}{digest}"


if TYPE_CHECKING:
    Settings = dict[str, Any]
else:
    _OF_A_STUDY = ("dataset", "data_root", "epochs", "loss", "loss_options", "seed")  # options of its own, or compared
    _kinds = {item.name: item.type for item in fields(ExperimentConfig) if item.name not in _OF_A_STUDY}
    Settings = TypedDict("Settings", _kinds, total=False)
"""Settings of `uwml train` for every training of a study, those that were given alone."""


@dataclass(frozen=True)
class StudyOptions:
    """What a study or a sweep trains on, with how many seeds, and for how long."""

    dataset: str = "scenes"
    """scenes or clips, which the kit builds, or the name of a folder in the SCAN layout."""
    data_root: str = ""
    """Folder that holds the data set's folder. Empty means data/."""
    seeds: str = ""
    """Seeds, separated by blanks or commas. The default is 0 to 4 (evidence: 0 to 9, sweep: 0 1, smoke: fewer)."""
    epochs: int | None = None
    """Epochs of every training. The default is the data set's preset; with a sweep's default space it is at most 4."""
    profile: Literal["full", "smoke"] = "full"
    """smoke: everything in tiny size, to see that it works."""
    settings: str = ""
    """A JSON file with settings for each loss, such as reports/reference/f8k_regions/settings.json."""
    committed: str = ""
    """Folder of results under version control, such as reports/reference/f8k_regions. What is in it counts as done, and
    finished work is copied there at once."""
    others: Settings = field(default_factory=dict)
    """Other settings of every training, which `uwml train --help` explains."""


def nearest(name: Any, known: Sequence[str]) -> str:
    """The end of an error that a name is unknown: the one that was meant, or all."""
    near = get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def is_folder_name(name: str) -> bool:
    """Say whether a folder can be called so."""
    return name not in ("", "..") and Path(name).name == name and name.isprintable()


def _check(name: str, value: Any, ok: bool, expected: str) -> None:
    if not ok:
        try:
            found = textwrap.shorten(repr(value), 200, placeholder=" ...")
        except (RecursionError, ValueError):  # nested too deeply; a number of thousands of digits
            found = f"a {type(value).__name__} too large to show"
        raise UWMLError(f"{name}: found {found}, expected {expected}")


def _fits(value: Any, kind: Any) -> bool:
    """Say whether a plain value is of a field's type; numbers must be finite, and True is not 1."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_fits(value, option) for option in get_args(kind))
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is (get_origin(kind) or kind)


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Say whether a value is JSON with finite numbers, nested no deeper than anybody would."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and _is_plain([*value.values()], depth)
    if isinstance(value, list | tuple):
        return depth < 10 and all(_is_plain(item, depth + 1) for item in value)
    return value is None or isinstance(value, bool | str) or _fits(value, float)


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is UnionType:
        return " or ".join(map(_words, get_args(kind)))
    words = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(kind, "a JSON object")


_SMOKE = {
    "embed_size": 32, "word_dim": 16, "batch_size": 16, "learning_rate": 2e-3, "epochs": 2, "decay_epoch": 1,
    "warmup_epochs": 1, "log_every": 2,
}  # fmt: skip
_PHOTOGRAPHS = {
    "embed_size": 256, "epochs": 8, "decay_epoch": 6, "learning_rate": 2e-3, "warmup_epochs": 2,
    "lambda_softmax": 10.0, "twins": "ignored", "mixed_precision": "auto",
}  # fmt: skip
# What differs from the defaults, data set by data set. Flickr30K and MSCOCO: settings of the SCAN release.
PRESETS: dict[str, dict[str, Any]] = {
    "scenes": {  # the settings that serve both losses best: examples/one_setting_for_both.py
        "embed_size": 64, "word_dim": 128, "batch_size": 64, "learning_rate": 4e-3, "lambda_softmax": 20.0, "epochs": 8,
        "decay_epoch": 6, "warmup_epochs": 1,
    },
    "scenes_smoke": _SMOKE,
    "clips": {
        "model": "dual_encoding", "embed_size": 256, "word_dim": 128, "batch_size": 64, "learning_rate": 1e-3,
        "epochs": 8, "decay_epoch": 6, "warmup_epochs": 2,
    },
    "clips_smoke": {**_SMOKE, "model": "dual_encoding"},
    "f8k_precomp": {
        "embed_size": 256, "epochs": 8, "decay_epoch": 5, "learning_rate": 2e-3, "warmup_epochs": 2,
        "lambda_softmax": 10.0,  # of 4, 10 and 20 for the polynomial loss, by the held-out images; both losses get it
        "selection_images": 500,  # there is no test split, and dev is to be reported
    },
    "f8k_regions": {**_PHOTOGRAPHS, "selection_images": 500},
    "flickr8k": _PHOTOGRAPHS,
    "flickr30k": _PHOTOGRAPHS,
    "f30k_precomp": {"twins": "ignored"},
    "coco_precomp": {"epochs": 20, "decay_epoch": 10, "learning_rate": 5e-4, "twins": "ignored"},
}  # fmt: skip
OWN: dict[str, Any] = {"warmup_epochs": 2, "twins": "ignored"}
"""What differs for any other data set: those of one's own are small, as a rule, and from scratch a loss on hardest
negatives alone may collapse on them."""
BACKBONE, RESOLUTION = "resnet50x4_clip.openai", 384
"""What makes features of pictures unless told otherwise: frozen maps of CLIP's ResNets beat ImageNet's and bottom-up
attention in VQA, its ViT's do not (Shen et al. 2022), and grids gain by larger inputs (Jiang et al. 2020)."""


def preset(dataset: str, **overrides: Any) -> ExperimentConfig:
    """Return the configuration for a data set; one without a preset of its own gets a warm-up and else the defaults."""
    return ExperimentConfig.from_dict({**PRESETS.get(dataset, OWN), "dataset": dataset, **overrides})
