"""Trained models on a split: a run, a released checkpoint, or several of either together, as an ensemble."""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from uwml_lib.config import ExperimentConfig, Precision
from uwml_lib.datasets import PrecomputedDataset, Vocabulary, evaluation_split, fingerprint, load_split
from uwml_lib.datasets.loading import load_selection, words_covered
from uwml_lib.evaluation.metrics import DIRECTIONS, RANKS, fold_metrics, tied_queries
from uwml_lib.evaluation.scores import score_matrix
from uwml_lib.models import Matcher
from uwml_lib.runs.checkpoints import load_model, load_state, read_config, read_metrics
from uwml_lib.runs.provenance import provenance, this_device
from uwml_lib.runs.run import Run
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import check_files, lock, read_json, sha256_of, write_sealed_json
from uwml_lib.support.numerics import threads
from uwml_lib.weighting.weights import batch_scores

SOURCES = ("config.json", "vocabulary.json", "metrics.jsonl", "checkpoint/best.safetensors")
"""Files of a run folder that its results are made of."""


class Member(NamedTuple):
    """A model to be scored; facts: what results say of it besides its config; sessions: who worked on a run of ours."""

    name: str
    model: Matcher
    config: ExperimentConfig
    vocabulary: Vocabulary
    facts: Mapping[str, Any]
    sessions: Sequence[Mapping[str, Any]] = ()


def device_of(config: ExperimentConfig) -> str:
    """Name the device that a configuration computes on."""
    return "cpu" if config.device == "cpu" else str(this_device())


def evaluate_run(folder: Path | str, split: str | None = None, data_root: str = "", folds: int = 1) -> dict[str, Any]:
    """Evaluate a finished run's best epoch on a split and write results.json, or results-SPLIT[-FOLDSfolds].json.

    split: None, and results.json, stand for the test split, or dev where there is none. data_root: where the data set's
    folder is now, if it was moved since. folds: see `score_members`. Raises UWMLError if a file of the run was changed.
    """
    folder = Path(folder)
    member = member_of(folder, data_root)
    config, sessions, history = member.config, member.sessions, _epochs(folder)
    usual = evaluation_split(config.data_folder)
    split = split or usual
    scored = score_members([member], split, folds)
    shapes = {name: list(load_split(config, name).features.shape) for name in ("train", "dev")}
    best = max(history, key=lambda line: line["dev_rsum"])  # the first of equals, as in training
    results = {
        **scored, "features": shapes | scored["features"], "best_epoch": best["epoch"] + 1,
        "dev_rsum": best["dev_rsum"], "training_seconds": sum(line["seconds"] for line in history),
        "provenance": {**sessions[0], "sessions": sessions, "evaluated": provenance(device_of(config))},
        "files": {name: sha256_of(folder / name) for name in SOURCES},
    }  # fmt: skip
    name = "results.json" if (split, folds) == (usual, 1) else f"results-{_protocol(split, folds)}.json"
    write_sealed_json(folder / name, results)
    return results


def evaluate_members(
    members: Sequence[Member], split: str | None = None, folds: int = 1, kind: str = ""
) -> tuple[dict[str, Any], Path]:
    """Evaluate models as an ensemble, their scores averaged; return the results, and their file in reports/evaluations.

    split, folds: as for `evaluate_run`. kind: by whose habits, if not this kit's. Raises UWMLError if the data differ.
    """
    config = members[0].config
    split = split or evaluation_split(config.data_folder)
    path = evaluation_file(config.dataset, [member.name for member in members], split, folds, kind)
    results = score_members(members, split, folds) | {"members": [member.facts for member in members], "files": {}}
    results["provenance"] = provenance(device_of(config))
    with lock(path):
        write_sealed_json(path, results)
    return results, path


def member_of(folder: Path, data_root: str = "") -> Member:
    """Return a finished run as a member; raises UWMLError if it, or its data, is not what it was."""
    config = read_config(folder, data_root)
    sessions = _sessions(folder)
    if read_json(folder / "config.json").get("data") != fingerprint(config.data_folder, config.captions):
        raise UWMLError(f"{config.data_folder}: other data, or another tokenizer, than {folder} was trained on")
    model, config, vocabulary = load_model(folder, data_root)
    if (epochs := len(_epochs(folder))) < config.epochs:
        raise UWMLError(f"{folder}: {epochs} of {config.epochs} epochs are done; finish the training first")
    name = folder.resolve().name
    return Member(name, model, config, vocabulary, {"run": name}, sessions)


def _epochs(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder) if line["kind"] == "epoch"]


def evaluation_file(dataset: str, names: Sequence[str], split: str, folds: int = 1, kind: str = "") -> Path:
    """Where the results of an ensemble of runs go, or of checkpoints; kind: by whose habits these were evaluated."""
    return paths.EVALUATIONS / dataset / f"{'+'.join(names)}-{_protocol(split, folds)}{kind}.json"


def is_run(path: Path) -> bool:
    """Say whether a path is the folder of a training of this kit; else it should be what the release trained."""
    return not path.is_file() and "released" not in read_json(path / "config.json")


def score_members(members: Sequence[Member], split: str, folds: int = 1) -> dict[str, Any]:
    """Score a split with the mean of the members' scores: metrics, ranks, how long it took, what of the split was used.

    folds: cut the images into so many equal parts, in order, and take the mean over them, as of five for MSCOCO's 1K.
    In the results, ties is of `tied_queries`, and metrics_if_twins_are_right, where they differ, count a caption as
    right for every image that has its very sentence. Raises UWMLError where the members' data differ, or cannot be cut
    so.
    """
    started = time.monotonic()
    sets = [load_split(member.config, split, member.vocabulary) for member in members]
    first, n_images = sets[0], len(sets[0].features)
    for other, member in zip(sets, members, strict=True):
        if other.features.shape[0] != n_images or other.captions != first.captions:
            raise UWMLError(f"{member.name}: is for other images than {members[0].name}, expected the same for all")
        made_for = member.facts.get("feature_dim", other.feature_dim)
        found, expected = f"{other.feature_dim} numbers a region", f"{made_for}, which {member.name} was made for"
        expect(other.feature_dim == made_for, f"{other.folder}: {split} split", found, expected)
    expect(n_images % folds == 0, "folds", folds, f"a divisor of the {n_images} {split} images of {first.folder}")
    wanted = {member.config.evaluation_precision for member in members}
    precision = wanted.pop() if len(wanted) == 1 else "float64" if "float64" in wanted else "float32"
    for member in members:
        member.model.to(device_of(member.config))
    size = n_images // folds
    parts = [range(start, start + size) for start in range(0, n_images, size)]
    with naming(first):
        means = [_mean_scores(members, sets, part, precision) for part in parts]
        metrics, by_fold = fold_metrics(means, first.captions_per_image, return_ranks=True)
        ties = [tied_queries(scores, first.captions_per_image) for scores in means]
        if_twins_are_right, _ = fold_metrics(means, first.captions_per_image, sentences=first.sentences.tolist())
    ranks = {name: metrics.pop(name).tolist() for name in RANKS}
    alone = len(members) == 1
    covered = words_covered({split if alone else of.name: data for of, data in zip(members, sets, strict=True)})
    return {
        "config": members[0].config.to_dict(), "split": split, "folds": folds, "words_covered": covered,
        "captions_per_image": first.captions_per_image, "features": {split: list(first.features.shape)},
        "metrics": metrics, "fold_metrics": [{name: fold[name] for name in metrics} for fold in by_fold],
        "ties": {name: sum(fold[name] for fold in ties) for name in DIRECTIONS},
        "metrics_if_twins_are_right": if_twins_are_right if if_twins_are_right != metrics else None,
        "ranks": ranks, "evaluation_seconds": time.monotonic() - started,
    }  # fmt: skip


def _mean_scores(
    members: Sequence[Member], sets: Sequence[PrecomputedDataset], images: range, precision: Precision
) -> Tensor:
    def scores(member: Member, dataset: PrecomputedDataset) -> Tensor:
        with threads(member.config.threads):
            return score_matrix(member.model, dataset, images=images, precision=precision)

    total = functools.reduce(Tensor.add_, map(scores, members, sets))  # one matrix beside the sum at a time
    return total / len(members) if len(members) > 1 else total


@contextlib.contextmanager
def naming(dataset: PrecomputedDataset) -> Iterator[None]:
    """Turn what the metrics say of scores that cannot be ranked into a sentence that names the split."""
    try:
        yield
    except ValueError as error:
        raise UWMLError(f"{dataset.split} split of {dataset.folder}: {error}; look for NaN in its features") from error


def _sessions(folder: Path) -> list[dict[str, Any]]:
    """Who worked on a run; raises UWMLError if a file of it was changed since it was written."""
    if (folder / "results.json").exists():
        return Run.load(folder).results["provenance"]["sessions"]
    state = load_state(path := folder / "checkpoint" / "last.pt")
    try:
        files, records, sessions = dict(state["files"]), state["records"], list(state["sessions"])
    except (KeyError, TypeError, ValueError) as error:
        raise UWMLError(f"{path}: not a training state of this kit") from error
    check_files(folder, files)
    if read_metrics(folder) != records:
        raise UWMLError(f"{folder / 'metrics.jsonl'}: was changed after it was written; train again to mend it")
    return sessions


def _protocol(split: str, folds: int) -> str:
    return split + (f"-{folds}folds" if folds > 1 else "")


def dev_batches(folder: Path | str, data_root: str = "", n_images: int = 500) -> Tensor:
    """Score pairs with a run's best model, (batches, n, n) float32 with the positives on the diagonal.

    The pairs are of dev, or of the training images held out in its place, where dev is what is reported. Batches are of
    the size used in training, see `batch_scores`. n_images: take the first ones alone.
    """
    model, config, vocabulary = load_model(folder, data_root)
    dev = load_selection(config, vocabulary)
    with threads(config.threads):
        scores = score_matrix(model, dev, images=range(n_images))
    return batch_scores(scores, dev.captions_per_image, config.batch_size)
