"""Checkpoints of the release on a split, alone or together with runs of this kit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uwml_lib.datasets import Vocabulary
from uwml_lib.released.checkpoints import load_released_checkpoint
from uwml_lib.runs.checkpoints import check_vocabulary, load_model
from uwml_lib.runs.scoring import Member, evaluate_members, is_run, member_of
from uwml_lib.support.files import read_json, sha256_of


def evaluate_together(
    paths: Sequence[Path],
    split: str | None = None,
    data_root: str = "",
    folds: int = 1,
    released: Mapping[str, Any] | None = None,
    dataset: str = "",
    vocabulary: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Evaluate released checkpoints, or several models as an ensemble; see `evaluate_members`.

    paths: run folders, converted checkpoints, files of the release. released: settings for those that the release
    trained, as in `FIDELITY`; runs are evaluated as they were trained. dataset: folder of the data set, if not the one
    that the checkpoint names. vocabulary: of the release's files; None is `NAME_vocab.json` in the data set's folder.
    Raises UWMLError.
    """
    members = [
        member_of(path, data_root)
        if is_run(path)
        else released_member(path, data_root, dataset, vocabulary, released or {})
        for path in paths
    ]
    kind = "" if all(map(is_run, paths)) else f"-{members[0].config.fidelity}"
    return evaluate_members(members, split, folds, kind)


def released_member(
    path: Path, data_root: str, dataset: str, vocabulary: Path | None, settings: Mapping[str, Any]
) -> Member:
    """Return what the release trained, a file or a converted folder, to be evaluated by these settings."""
    if path.is_dir():
        model, config, words = load_model(path)
        digest = read_json(path / "config.json")["released"]["sha256"]
    else:
        model, config = load_released_checkpoint(path)
        digest, words = sha256_of(path), None
    config = replace(config, data_root=data_root, **{"dataset": dataset or config.dataset, **settings})
    if words is None:
        words = Vocabulary.load(vocabulary or config.data_folder / f"{config.dataset}_vocab.json")
    check_vocabulary(path, model, words)
    facts = {"file": path.name, "sha256": digest}
    return Member(f"{path.name.partition('.')[0]}-{digest[:8]}", model, config, words, facts)
