"""`make models` and `make videos`: the losses on every model, with the same data, budget and settings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from uwml_lib.config import ExperimentConfig
from uwml_lib.reports.site import site
from uwml_lib.reports.tables import models_table
from uwml_lib.runs.groups import load_experiment, save_experiment, scan_pairs
from uwml_lib.runs.scoring import evaluate_together
from uwml_lib.studies.engine import LOSSES_COMPARED, Profile, base_config, check_seeds, execute_notebooks, prepare
from uwml_lib.studies.side_by_side import train_all
from uwml_lib.support.files import lock
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, say
from uwml_lib.training.checks import check_config, check_model_fits

SETTINGS: dict[Literal["models", "videos"], tuple[dict[str, Any], ...]] = {
    "models": (
        {"model": "scan"},
        {"model": "scan", "direction": "t2i"},
        {"model": "bfan", "lambda_softmax": None},  # its source's; a data set's preset may have one for SCAN
        {"model": "vse"},
        {"model": "vse_infinity"},
        {"model": "dual_encoding"},
        {"model": "frozen", "captions": "vectors"},
        {"model": "frozen", "captions": "vectors", "hidden": 256},
    ),
    "videos": ({"model": "vse"}, {"model": "vse_infinity"}, {"model": "dual_encoding"}),
}
"""Make target -> the models of its table. SCAN's two directions are also scored together, as an ensemble."""

NEED_ALL_NEGATIVES = ("vse", "dual_encoding", "frozen")
"""Models of `make models` that see an image as a plain mean. On hardest negatives alone their trainings collapse with
either loss (notebook 8), so they take all informative negatives, the losses' dense form, to the end."""


def compare_models(
    name: Literal["models", "videos"],
    dataset: str,
    data_root: str = "",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    profile: Profile = "full",
    say: Say = say,
) -> str:
    """Train both losses on every model, execute the notebook, and return the table.

    name: "models" is for images, and notebook 08; "videos" for items of unequal length, and notebook 09. seeds: None
    means 0, 1, 2 (smoke: 0). epochs: None means the preset's. profile: "smoke" is the same, tiny.
    """
    seeds = check_seeds(seeds if seeds is not None else (0,) if profile == "smoke" else (0, 1, 2))
    base = base_config(dataset, data_root, epochs, profile)
    parameters = prepare(name, base, say)
    tried = SETTINGS[name]
    if not (base.data_folder / "train_caps.npy").exists():
        tried = tuple(settings for settings in tried if settings.get("captions") != "vectors")
        if tried != SETTINGS[name]:
            say(f"frozen: left out, for {base.data_folder} has no vectors of its captions, train_caps.npy")
    configs = [
        replace(base, loss=loss, seed=seed, warmup_epochs=_warmup(name, settings, base), **settings)
        for settings in tried
        for seed in seeds
        for loss in LOSSES_COMPARED
    ]
    for config in configs:
        check_config(config)
    for config in configs[:: len(seeds) * len(LOSSES_COMPARED)]:
        check_model_fits(config)
    with lock(report_folder(base.dataset), say):
        say(f"1/3 training: {len(configs)} runs of {base.epochs} epochs")
        runs = train_all(configs, say)
        pairs = scan_pairs(runs)
        say(f"2/3 ensembles: {len(pairs)}")
        for pair in pairs:
            evaluate_together([run.folder for run in pair], data_root=data_root)
        save_experiment(base.dataset, name, runs=[run.folder for run in runs])
        say("3/3 notebook and report")
        execute_notebooks(name, base.dataset, parameters, say)
        index = site.build(say)
    text = models_table(load_experiment(base.dataset, name)).to_markdown()
    say(f"\n{text}\n\nReport: {index}")
    return text


def _warmup(name: str, settings: dict[str, Any], base: ExperimentConfig) -> int:
    return base.epochs if name == "models" and settings["model"] in NEED_ALL_NEGATIVES else base.warmup_epochs
