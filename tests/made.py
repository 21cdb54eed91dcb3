"""Finished runs as tests need them: made in memory, or written as a training would have."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.evaluation import METRICS, retrieval_metrics
from uwml_lib.runs import Run, StudyRuns, save_study
from uwml_lib.support import paths
from uwml_lib.support.files import sha256_of, write_json, write_sealed_json

N_IMAGES, K = 40, 5
PROVENANCE = {
    **dict.fromkeys(("command", "commit", "machine", "python", "started"), "unknown"),
    "clean_tree": True, "versions": {"torch": "2"},
}  # fmt: skip


def made_run(rsum: float, folder: Path = Path(), results: Mapping[str, Any] = {}, **settings: Any) -> Run:  # noqa: B006
    """A run in memory with this rsum; the better, the more of its images are found at once, the others by no cut."""
    config = ExperimentConfig(**settings)
    found = [0 if image < (rsum - 370) / 2 else 20 for image in range(N_IMAGES)]
    ranks = {"image_to_text_ranks": found, "text_to_image_ranks": found}
    metrics = {**dict.fromkeys(METRICS, 1.0), "rsum": rsum}
    facts = {
        "best_epoch": 1,
        "dev_rsum": rsum,
        "training_seconds": 1.0,
        "provenance": {"command": "uwml x", "sessions": []},
    }
    values = {"config": config.to_dict(), "split": "test", "captions_per_image": 1, "metrics": metrics, "ranks": ranks}
    return Run(folder / config.run_name("x"), config, {**values, **facts, **results})


def made_runs(rsums: Mapping[int, float], **settings: Any) -> tuple[Run, ...]:
    """A run in memory for each seed, with its rsum."""
    return tuple(made_run(rsum, seed=seed, **settings) for seed, rsum in rsums.items())


def write_run(folder: Path, loss: str, seed: int, quality: float, **settings: Any) -> Run:
    """A finished run of two epochs on disk, whose true pairs score `quality` above the noise."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(N_IMAGES, N_IMAGES * K))
    scores += quality * np.repeat(np.eye(N_IMAGES), K, axis=1)
    metrics = retrieval_metrics(scores, K, return_ranks=True)
    ranks = {name: metrics.pop(name).tolist() for name in list(metrics) if name.endswith("ranks")}
    usual = {"dataset": "scenes", "loss": loss, "seed": seed, "warmup_epochs": 1, "epochs": 2}
    config = preset(**usual | settings)
    results = {
        "config": config.to_dict(), "split": "test", "captions_per_image": K, "metrics": metrics, "ranks": ranks,
        "best_epoch": 2, "dev_rsum": 100.0 + seed, "training_seconds": 60.0 + seed,
        "provenance": PROVENANCE | {"sessions": [{"commit": "abc" * 5, "clean_tree": True}]},
    }  # fmt: skip
    records = [
        {"kind": "step", "epoch": epoch, "step": step, "warmup": epoch < config.warmup_epochs, "loss": 9.0}
        | {"positive_score": 0.5, "hardest_negative_score": 0.4, "informative_share": 0.5, "gradient_norm": 1.0}
        for epoch in range(2)
        for step in (1, 2)
    ] + [{"kind": "epoch", "epoch": epoch, "dev_rsum": 100.0 + epoch, "seconds": 30.0} for epoch in range(2)]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "config.json", {"config": config.to_dict()})
    files = {name: sha256_of(folder / name) for name in ("config.json", "metrics.jsonl")}
    write_sealed_json(folder / "results.json", {**results, "files": files})
    return Run.load(folder)


def write_study(seeds: Iterable[int]) -> StudyRuns:
    """A study of two losses on disk, the polynomial one the better, and one run of the triplet without warm-up."""
    folder = paths.RUNS / "scenes"
    qualities = {"triplet": 1.5, "polynomial": 2.5}
    runs = [
        write_run(folder / f"{loss}-seed{seed}", loss, seed, quality)
        for loss, quality in qualities.items()
        for seed in seeds
    ]
    alone = write_run(folder / "triplet-nowarmup", "triplet", 0, 0.5, warmup_epochs=0)
    return save_study("scenes", "reproduce", {"runs": runs, "without_warmup": [alone]})


def altered(
    study: StudyRuns, runs: Iterable[Run] | None = None, results: Mapping[str, Any] = {}, **settings: Any
) -> StudyRuns:  # noqa: B006, E501
    """A study's runs with other settings, or other results, in some of them; in all if none are named."""
    chosen = {run.folder for run in (study.all_runs if runs is None else runs)}

    def change(run: Run) -> Run:
        if run.folder not in chosen:
            return run
        return Run(run.folder, replace(run.config, **settings), {**run.results, **results})

    return StudyRuns(study.dataset, {name: tuple(map(change, group)) for name, group in study.groups.items()})
