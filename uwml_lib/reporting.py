"""From finished runs to an honest table: mean, spread, paired differences, and agreement with the published results."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from uwml_lib.checkpoints import read_metrics
from uwml_lib.config import FIDELITY, PRESETS, REFERENCE, RELIABILITY, REPORTS, RUNS, ExperimentConfig
from uwml_lib.errors import UWMLError
from uwml_lib.evaluation import RECALL_AT
from uwml_lib.files import check_files, read_json, read_sealed_json, sha256_of, write_json
from uwml_lib.models import MODELS
from uwml_lib.progress import duration
from uwml_lib.scoring import evaluation_file
from uwml_lib.statistics import Summary, paired_bootstrap, paired_interval, rsum_by_image, summarize, verdict

COLUMNS = {
    "image_to_text_recall_at_1": "i→t R@1",
    "image_to_text_recall_at_5": "R@5",
    "image_to_text_recall_at_10": "R@10",
    "text_to_image_recall_at_1": "t→i R@1",
    "text_to_image_recall_at_5": "R@5 ",
    "text_to_image_recall_at_10": "R@10 ",
    "rsum": "rsum",
}
"""Metric -> column heading; a trailing blank keeps the second direction's headings apart."""

COLLAPSED = 0.005
"""Mean difference of a positive's and its hardest negative's score below which a training has collapsed."""

FEATURES = {
    ("f8k_precomp", 36, 128): (
        "36 overlapping windows, 2 x 2 cells, of the last feature map (7 x 7 x 1280) of an ImageNet MobileNetV2, "
        "PCA-whitened to 128 numbers. They are no bottom-up-attention features, so these numbers compare losses and "
        "models with each other, not with published tables"
    ),
}
"""What features are, by data set and shape, where that must be known to read the numbers."""

HABITS: dict[str, dict[str, Any]] = {
    "none": {},
    "captions as bytes": {"captions": FIDELITY["released"]["captions"]},
    "siblings as negatives": {"siblings": FIDELITY["released"]["siblings"]},
    "all four": FIDELITY["released"],
}
"""Habit of the released code -> settings; the other two of the four are no matter of training."""

ExperimentName = Literal["reproduce", "compare", "fidelity", "models", "videos"]
FILES: dict[ExperimentName, str] = {
    "reproduce": "experiment.json", "compare": "comparison.json", "fidelity": "fidelity.json",
    "models": "models.json", "videos": "videos.json",
}  # fmt: skip
"""Make target -> file, beside the run folders, that says which of them belong to it."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what it wrote."""

    folder: Path
    results: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, file: str = "results.json") -> "Run":
        """Read a finished run; raises UWMLError if it is not finished, or if its files were changed since.

        file: results.json, or that of another split.
        """
        results = read_sealed_json(folder / file)
        check_files(folder, results["files"])
        return cls(folder, results)

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration, as plain values."""
        return self.results["config"]

    @property
    def model(self) -> str:
        """The model in a few words, and which of its kind it is."""
        name, config = MODELS[self.config["model"]].title, self.config
        if len(self.results.get("members", ())) > 1:
            return f"{name}, ensemble"
        if config["model"] == "scan":
            return f"{name}, {config['direction']} {config['aggregation']}"
        if config["model"] == "frozen":
            return f"{name}, {'a hidden layer' if config.get('hidden') else 'linear'}"
        return name

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best epoch on the evaluated split."""
        return self.results["metrics"]

    @property
    def chosen_by(self) -> str:
        """The images that chose the best epoch, in a word or two."""
        return ExperimentConfig.from_dict(self.config).chosen_by

    @property
    def rsum_by_image(self) -> np.ndarray:
        """One contribution to rsum for each image, (n_images,)."""
        ranks = self.results["ranks"]
        return rsum_by_image(*(np.array(ranks[f"{name}_ranks"]) for name in ("image_to_text", "text_to_image")))

    def history(self) -> pd.DataFrame:
        """Every line of metrics.jsonl, with `epochs_done` (fractional) to plot against."""
        lines = pd.DataFrame(read_metrics(self.folder))
        steps = lines.loc[lines["kind"] == "step", "step"].max()
        lines["epochs_done"] = lines["epoch"] + (lines["step"] / steps).fillna(1.0)
        return lines


@dataclass(frozen=True)
class Experiment:
    """The runs of one make target, which differ in loss, model and seed alone, and the runs around them.

    without_warmup: of `make reproduce`. tuning, coefficients, coefficient_tuning: of `make compare`. released: of
    `make fidelity`, the same trainings with habits of the released code.
    """

    dataset: str
    runs: tuple[Run, ...]
    without_warmup: tuple[Run, ...] = ()
    tuning: tuple[Run, ...] = ()
    coefficients: tuple[Run, ...] = ()
    coefficient_tuning: tuple[Run, ...] = ()
    released: tuple[Run, ...] = ()

    def by_loss(self) -> dict[str, list[Run]]:
        """Loss -> its runs in order of the seed."""
        losses = dict.fromkeys(run.config["loss"] for run in self.runs)
        return {
            loss: sorted((run for run in self.runs if run.config["loss"] == loss), key=lambda run: run.config["seed"])
            for loss in losses
        }

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """Every run, those that are compared first."""
        return tuple(run for group in GROUPS for run in getattr(self, group))

    @property
    def digest(self) -> str:
        """A digest of what the notebooks read of the runs."""
        read = [[run.results[name] for name in ("config", "metrics", "ranks")] for run in self.all_runs]
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return self.runs[0].results["split"]


GROUPS = tuple(field.name for field in fields(Experiment) if field.name != "dataset")


def save_experiment(dataset: str, name: ExperimentName = "reproduce", **groups: Sequence[Path]) -> None:
    """Note which run folders belong to which group of an experiment on a data set; see `Experiment` for the groups."""
    write_json(RUNS / dataset / FILES[name], {group: [run.name for run in groups[group]] for group in groups})


def load_experiment(dataset: str, name: ExperimentName = "reproduce") -> Experiment:
    """Load what a make target ran last on a data set; raises UWMLError if there is nothing."""
    path = RUNS / dataset / FILES[name]
    if Path(dataset).name != dataset or not path.exists():
        near = get_close_matches(dataset, [path.parent.name for path in RUNS.glob(f"*/{FILES[name]}")], n=1)
        small = f"{dataset}_smoke"
        hint = f"; did you mean {near[0]}?" if near else ""
        if small in PRESETS:
            hint = f'; `make {name} PROFILE=smoke` and DATASET = "{small}" show it in small'
        raise UWMLError(f"no finished runs on {dataset} yet: `make {name} DATASET={dataset}` makes them{hint}")
    groups = read_json(path)
    for group, listed in groups.items():
        if group not in GROUPS:
            raise UWMLError(f"{path}: found {group!r}, expected some of {', '.join(GROUPS)}")
        if not isinstance(listed, list) or not all(map(_is_name, listed)):
            raise UWMLError(f"{path}: {group}: found {listed!r}, expected names of run folders")
    if not groups.get("runs"):
        raise UWMLError(f"{path}: lists no runs")
    loaded = {group: tuple(Run.load(RUNS / dataset / run) for run in listed) for group, listed in groups.items()}
    return Experiment(dataset, **loaded)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and Path(value).name == value


def results_table(experiment: Experiment) -> pd.DataFrame:
    """One row a loss, mean ± std over seeds in every cell."""
    rows = {
        loss: {COLUMNS[name]: summarize([run.metrics[name] for run in runs]).mean_and_std for name in COLUMNS}
        | {"seeds": len(runs)}
        for loss, runs in experiment.by_loss().items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = f"loss ({experiment.split} split)"
    return table


def fidelity_table(experiment: Experiment) -> pd.DataFrame:
    """One row a habit of the released code, after one without any: mean ± std, and the difference in rsum to that.

    The differences are paired, with 95 % intervals: over seeds (paired t), and over images (bootstrap).
    """
    by_habit: dict[str, dict[int, Run]] = {}
    for run in (*experiment.runs, *experiment.released):
        by_habit.setdefault(habit_of(run), {})[run.config["seed"]] = run
    rows = {}
    for habit, runs in by_habit.items():
        shown = ("image_to_text_recall_at_1", "text_to_image_recall_at_1", "rsum")
        row = {COLUMNS[name]: summarize([run.metrics[name] for run in runs.values()]).mean_and_std for name in shown}
        if habit != "none":
            pairs = [(run, by_habit["none"][seed]) for seed, run in runs.items() if seed in by_habit["none"]]
            sides = list(zip(*pairs, strict=True))
            over_images = paired_bootstrap(*(np.mean([run.rsum_by_image for run in side], axis=0) for side in sides))
            with_habit, without = ([run.metrics["rsum"] for run in side] for side in sides)
            row["difference, over seeds"] = str(paired_interval(with_habit, without))
            row["difference, over images"] = str(over_images)
        rows[habit] = row | {"seeds": len(runs)}
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    table.index.name = f"habit ({experiment.split} split)"
    return table


def habit_of(run: Run) -> str:
    """Name the habit of the released code that a run was trained with, the most of several."""
    config = ExperimentConfig.from_dict(run.config)
    found = [name for name, changes in HABITS.items() if all(getattr(config, key) == changes[key] for key in changes)]
    return found[-1]


def models_table(experiment: Experiment) -> pd.DataFrame:
    """One row for each model: rsum of each loss, mean ± std, and of the first two their difference, paired over seeds.

    Where SCAN's two directions were scored as an ensemble, that is a row, too. Where all trainings of
    a loss collapsed, a last column names it.
    """
    rows = {}
    for model, by_loss in by_model(experiment).items():
        rsums = {loss: [run.metrics["rsum"] for run in runs] for loss, runs in by_loss.items()}
        b, a = list(rsums)[:2]
        over_images = paired_bootstrap(*(np.mean([r.rsum_by_image for r in by_loss[loss]], axis=0) for loss in (a, b)))
        rows[model] = {f"{loss} rsum": summarize(values).mean_and_std for loss, values in rsums.items()} | {
            f"{a} − {b}, over seeds": str(paired_interval(rsums[a], rsums[b])),
            "over images": str(over_images),
            "seeds": len(rsums[a]),
            "collapsed": ", ".join(loss for loss, runs in by_loss.items() if all(map(collapsed, runs))),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = f"model ({experiment.split} split)"
    return table if table["collapsed"].any() else table.drop(columns="collapsed")


def collapsed(run: Run) -> bool:
    """Whether scores were nearly equal in the last epoch: positives and hardest negatives differ by next to nothing."""
    steps = [line for line in read_metrics(run.folder) if line["kind"] == "step"]
    last = [line for line in steps if line["epoch"] == steps[-1]["epoch"]]
    gaps = [line["positive_score"] - line["hardest_negative_score"] for line in last]
    return bool(gaps) and abs(float(np.mean(gaps))) < COLLAPSED


def by_model(experiment: Experiment) -> dict[str, dict[str, list[Run]]]:
    """Model -> loss -> its runs in order of the seed; after SCAN's two directions their ensemble, where it is there."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in (*experiment.runs, *_ensembles(experiment)):
        found.setdefault(run.model, {}).setdefault(run.config["loss"], []).append(run)
    for by_loss in found.values():
        for runs in by_loss.values():
            runs.sort(key=lambda run: run.config["seed"])
    return found


def scan_pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """SCAN's runs in pairs of one loss and seed, i2t and t2i: each is an ensemble as SCAN's authors have it."""
    scan = [run for run in runs if run.config["model"] == "scan"]
    of = {(run.config["direction"], run.config["loss"], run.config["seed"]): run for run in scan}
    return [(of[key], of["t2i", *key[1:]]) for key in of if key[0] == "i2t" and ("t2i", *key[1:]) in of]


def _ensembles(experiment: Experiment) -> list[Run]:
    """What `uwml evaluate` found for pairs of SCAN's runs."""
    pairs = scan_pairs(experiment.runs)
    names = [[run.folder.name for run in pair] for pair in pairs]
    files = [evaluation_file(experiment.dataset, pair, experiment.split) for pair in names]
    return [Run(file, read_sealed_json(file)) for file in files if file.exists()]


def run_table(experiment: Experiment) -> pd.DataFrame:
    """One row for each run: its folder, what it reached, how long it took, commit, and SHA-256 of its results.json."""
    runs = experiment.all_runs
    several = len({run.model for run in runs}) > 1
    tried = any(run.config["loss_options"] for run in runs)
    return pd.DataFrame(
        {
            "run folder": run.folder.name,
            **({"model": run.model} if several else {}),
            **({"loss options": _options(run.config["loss_options"])} if tried else {}),
            **({"habit": habit_of(run)} if experiment.released else {}),
            "seed": run.config["seed"],
            "best epoch": run.results["best_epoch"],
            f"{run.chosen_by} rsum": round(run.results["dev_rsum"], 1),
            f"{experiment.split} rsum": round(run.metrics["rsum"], 1),
            "training": duration(run.results["training_seconds"]),
            "commit": ", then ".join(map(_commit, run.results["provenance"]["sessions"])),
            "SHA-256": sha256_of(run.folder / "results.json")[:12],
        }
        for run in runs
    ).set_index("run folder")


def _options(options: dict[str, Any]) -> str:
    """Arguments of a loss in few words, for a table."""
    words = json.dumps(options, separators=(", ", " ")).translate(str.maketrans("", "", '{}"'))
    return words or "defaults"


def _commit(session: dict[str, Any]) -> str:
    return (session["commit"] or "unknown")[:8] + ("" if session["clean_tree"] else " changed")


def comparison(experiment: Experiment, a: str = "polynomial", b: str = "triplet") -> dict[str, Any]:
    """Compare two losses by rsum: paired over seeds, and paired over test images with the seeds averaged.

    Raises UWMLError, naming them, for a run that is listed twice and for runs that differ in more than loss and seed,
    and if the two losses were not run with the same seeds.
    """
    _check_comparable(experiment)
    by_loss = experiment.by_loss()
    seeds = {name: [run.config["seed"] for run in by_loss.get(name, [])] for name in (a, b)}
    if not seeds[a] or seeds[a] != seeds[b]:
        raise UWMLError(f"{experiment.dataset}: found runs with the seeds {seeds}, expected the same for both losses")
    of_a, of_b = ([run.metrics["rsum"] for run in by_loss[name]] for name in (a, b))
    over_seeds = paired_interval(of_a, of_b)
    over_queries = paired_bootstrap(*(np.mean([run.rsum_by_image for run in by_loss[name]], axis=0) for name in (a, b)))
    return {
        "a": a, "b": b, "over_seeds": over_seeds, "over_queries": over_queries,
        "verdict": verdict(a, b, over_seeds, over_queries),
    }  # fmt: skip


def _check_comparable(experiment: Experiment) -> None:
    folders: dict[Path, Run] = {}
    pairs: dict[tuple[str, int], Run] = {}
    options: dict[str, Run] = {}
    first = experiment.runs[0]
    for run in (*experiment.runs, *experiment.without_warmup):
        if (other := folders.setdefault(run.folder.resolve(), run)) is not run:
            raise UWMLError(
                f"{experiment.dataset}: {run.folder} and {other.folder} are one run listed twice, expected once"
            )
    for run in experiment.runs:
        loss, seed = run.config["loss"], run.config["seed"]
        if (other := pairs.setdefault((loss, seed), run)) is not run:
            raise UWMLError(
                f"{experiment.dataset}: {other.folder.name} and {run.folder.name} are both {loss} with the seed "
                f"{seed}, expected one run of each"
            )
        like = options.setdefault(loss, run)
        names = [name for name in _settings_that_differ(first.config, run.config) if name != "loss_options"]
        names += [] if run.config["loss_options"] == like.config["loss_options"] else ["loss_options"]
        names += ["split"] if run.results["split"] != first.results["split"] else []
        if names:
            other = like if names == ["loss_options"] else first
            raise UWMLError(
                f"{experiment.dataset}: {run.folder.name} differs from {other.folder.name} in {', '.join(names)}, "
                "expected runs that differ in the loss and the seed alone"
            )


def _settings_that_differ(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the settings, other than loss and seed, that can change a result and differ."""
    skipped = {"loss", "seed", *(item.name for item in fields(ExperimentConfig) if "cosmetic" in item.metadata)}
    return [name for name in {**a, **b} if name not in skipped and a.get(name) != b.get(name)]


def chance_rsum(n_images: int, captions_per_image: int) -> float:
    """Expected rsum of random scores: the first k places are k draws without replacement."""
    n_captions = n_images * captions_per_image
    total = 0.0
    for k in RECALL_AT:
        missed = np.prod([(n_captions - captions_per_image - i) / (n_captions - i) for i in range(min(k, n_captions))])
        total += 100 * (1 - max(float(missed), 0)) + 100 * min(k / n_images, 1)
    return total


def summary_json(experiment: Experiment) -> dict[str, Any]:
    """Everything the report states, as plain values, each traceable to its run folders."""
    compared = comparison(experiment)
    first = experiment.runs[0].results
    n_images = len(first["ranks"]["image_to_text_ranks"])
    return {
        "dataset": experiment.dataset,
        "split": experiment.split,
        "n_images": n_images,
        "captions_per_image": first["captions_per_image"],
        "chance_rsum": chance_rsum(n_images, first["captions_per_image"]),
        "losses": {
            loss: {
                "metrics": {name: plain(summarize([run.metrics[name] for run in runs])) for name in runs[0].metrics},
                "runs": {run.folder.name: sha256_of(run.folder / "results.json") for run in runs},
                "training_seconds": plain(summarize([run.results["training_seconds"] for run in runs])),
            }
            for loss, runs in experiment.by_loss().items()
        },
        "comparison": compared | {name: plain(compared[name]) for name in ("over_seeds", "over_queries")},
        "without_warmup": {run.folder.name: run.metrics["rsum"] for run in experiment.without_warmup},
    }  # fmt: skip


def report_text(experiment: Experiment, against_reference: bool = True) -> str:
    """The result in Markdown: the table, the paired differences, the verdict, agreement with the published results."""
    summary = summary_json(experiment)
    compared = comparison(experiment)
    config = experiment.runs[0].config
    attends = "lambda_softmax" in MODELS[config["model"]].settings
    lines = [
        f"## {experiment.dataset}: {summary['n_images']} {experiment.split} images, "
        f"{summary['captions_per_image']} captions each",
        "",
        f"{experiment.runs[0].model}, width {config['embed_size']}, batches of "
        f"{config['batch_size']}"
        + (f", λ {config['lambda_softmax']:g} in the attention" if config["lambda_softmax"] and attends else "")
        + f"; {config['epochs']} epochs, {min(config['warmup_epochs'], config['epochs'])} of them "
        "warm-up" + (f"; only the first {config['max_images']} images" if config["max_images"] else "") + ".",
        "",
        results_table(experiment).to_markdown(),
        "",
        "Recalls in percent, mean ± sample standard deviation over seeds; rsum is the sum of the six recalls. "
        f"Random scores would give an rsum of {summary['chance_rsum']:.1f}.",
        "",
        f"{compared['a']} − {compared['b']}, rsum, 95 % intervals: {compared['over_seeds']} over seeds (paired t), "
        f"{compared['over_queries']} over {experiment.split} images (paired bootstrap, seeds averaged).",
        "",
        f"**Verdict: {compared['verdict']}.**",
    ]
    if experiment.without_warmup:
        values = "; ".join(
            f"{row.loss} {row.without_warmup:.1f} against {row.with_warmup:.1f} with it"
            for row in warmup_effect(experiment).itertuples()
        )
        epochs = experiment.without_warmup[0].config["epochs"]
        lines += ["", f"Without warm-up, dev rsum after {epochs} epochs (one seed each): {values}."]
    if config["warmup_epochs"] >= config["epochs"]:
        lines += ["", "Every epoch was warm-up: this compares the dense forms of the losses."]
    if experiment.split != "test":
        held_out = f"the last {config.get('selection_images')} training images, kept out of training, chose the epoch"
        chose = "which also chose the epoch" if experiment.runs[0].chosen_by == "dev" else held_out
        lines += ["", f"There is no test split here: this is {experiment.split}; {chose}."]
    shape = experiment.runs[0].results.get("features", {}).get(experiment.split, ())
    if about := FEATURES.get((experiment.dataset, *shape[1:])):
        lines += ["", f"The features: {about}."]
    if (baseline := report_folder(experiment.dataset) / "linear_cca.json").exists():
        lines += ["", linear_cca_text(baseline, experiment)]
    if against_reference and (agreement := agreement_with_reference(summary)):
        lines += ["", agreement]
    return "\n".join(lines) + "\n"


def linear_cca_text(path: Path, experiment: Experiment) -> str:
    """Say what `benchmarks/linear_cca.py` found on the same images, and how far the losses are from it.

    Raises UWMLError if the file is something else, or of other images.
    """
    baseline = read_json(path)
    try:
        metrics, theirs = baseline["metrics"], np.array(baseline["rsum_by_image"])
        cells = ", ".join(f"{COLUMNS[name].strip()} {metrics[name]:.1f}" for name in COLUMNS)
        apart = ", ".join(
            f"{loss} {paired_bootstrap(np.mean([run.rsum_by_image for run in runs], axis=0), theirs)}"
            for loss, runs in experiment.by_loss().items()
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UWMLError(f"{path}: not what `benchmarks/linear_cca.py` writes of these images; run it again") from error
    return (
        f"For comparison, linear CCA on the same images (`benchmarks/linear_cca.py`): {cells}. In rsum the losses "
        f"differ from it by (95 % intervals over images, seeds averaged): {apart}."
    )


def warmup_effect(experiment: Experiment) -> pd.DataFrame:
    """One row a run without warm-up: its last dev rsum, and that of the same loss and seed with warm-up by then."""
    rows = []
    for run in experiment.without_warmup:
        loss, seed, epochs = (run.config[name] for name in ("loss", "seed", "epochs"))
        same = [other for other in experiment.by_loss().get(loss, []) if other.config["seed"] == seed]
        other = next((other for other in same if other.config["epochs"] >= epochs), None)
        if other is None:
            raise UWMLError(
                f"{run.folder.name}: found no run of {loss} with seed {seed} and warm-up to compare it with"
            )
        without, with_warmup = (
            item.history().query("kind == 'epoch'")["dev_rsum"].iloc[epochs - 1] for item in (run, other)
        )
        rows.append((loss, seed, epochs, without, with_warmup))
    return pd.DataFrame(rows, columns=["loss", "seed", "epochs", "without_warmup", "with_warmup"])


def agreement_with_reference(summary: dict[str, Any]) -> str:
    """Say whether new results agree with reports/reference within the seeds' spread; empty if it has none of these.

    Numbers are compared only where the settings are the same, and judged only where there are seeds to judge by.
    """
    place = reference_folder(summary["dataset"])
    path = place / "summary.json"
    if not path.exists():
        return ""
    try:
        reference = read_json(path)
        if isinstance(reference["dataset"], str) and reference["dataset"] != summary["dataset"]:
            return ""
        what = {name: reference[name] for name in ("split", "n_images", "captions_per_image")}
        published = {loss: _rsum_and_runs(item) for loss, item in reference["losses"].items()}
    except (UWMLError, KeyError, TypeError, AttributeError):
        return f"{_shown(path)} cannot be read as a summary, so nothing is compared with it."
    ours = {loss: _rsum_and_runs(item) for loss, item in summary["losses"].items() if loss in published}
    if not ours:
        return ""
    try:
        differ = [f"{name} {summary[name]}, not {value}" for name, value in what.items() if summary[name] != value]
        for loss, (_, runs) in ours.items():
            here = [_run_config(RUNS / summary["dataset"] / name) for name in runs]
            there = [_run_config(place / "runs" / name) for name in published[loss][1]]
            for a, b in product(here, there):
                differ += [f"{name} {a[name]}, not {b[name]}" for name in _settings_that_differ(a, b)]
    except UWMLError:
        return f"Against {_shown(place)}: the settings of its runs cannot be read, so the numbers are not compared."
    if differ:
        words = "; ".join(dict.fromkeys(differ))
        return f"Against {_shown(place)}: the settings differ ({words}), so the numbers are not compared."
    sentences = []
    for loss, (rsum, _) in ours.items():
        other = published[loss][0]
        one_seed = min(rsum.n, other.n) < 2
        spread = 0.0 if one_seed else max(rsum.std, other.std)
        if not spread:
            why = "one seed" if one_seed else "seeds that do not differ"
            sentences.append(
                f"{loss}: rsum {rsum.mean:.1f}, published {other.mean:.1f}, and with {why} no spread to judge by"
            )
            continue
        word = "agrees with" if abs(rsum.mean - other.mean) <= 2 * spread else "differs from"
        sentences.append(f"{loss}: rsum {rsum.mean:.1f} {word} the {other.mean:.1f} there (2 std = {2 * spread:.1f})")
    return f"Against {_shown(place)}: {'; '.join(sentences)}."


def reference_folder(dataset: str) -> Path:
    """Where the published results on a data set are: reports/reference for scenes, a folder in it for any other."""
    return REFERENCE if dataset == "scenes" else REFERENCE / dataset.removesuffix("_precomp")


def _shown(path: Path) -> str:
    return "/".join(("reports/reference", *path.relative_to(REFERENCE).parts))


def _rsum_and_runs(item: dict[str, Any]) -> tuple[Summary, list[str]]:
    """Of one loss in a summary: rsum, and the names of its runs; raises KeyError or TypeError if it is not so made."""
    rsum, runs = Summary(**item["metrics"]["rsum"]), list(item["runs"].keys())
    numbers = (rsum.mean, rsum.n) if rsum.n == 1 else rsum
    if not runs or not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise TypeError("expected numbers, and the names of the runs they come from")
    return rsum, runs


def _run_config(folder: Path) -> dict[str, Any]:
    return ExperimentConfig.from_dict(read_json(folder / "config.json").get("config")).to_dict()


def reliability_text() -> str:
    """Say what `make torture` found last; empty if it has not run.

    Raises UWMLError, naming the file, if it holds something else.
    """
    if not RELIABILITY.exists():
        return ""
    found = read_json(RELIABILITY)
    try:
        kills = sum(item["killed"] for item in found["kills"].values())
        lost = sum(item["lost"] for item in found["kills"].values())
        mutations, tests = found["mutations"], found["tests"]
        failed = tests["failures"] + tests["errors"]
        skipped = f" ({tests['skipped']:,} skipped)" if "skipped" in tests else ""  # older files do not say
        return (
            f"Reliability (`make torture`): killed {kills:,} times at random moments ({', '.join(found['kills'])}), "
            f"results lost or changed: {lost:,}; {mutations['tried']:,} damaged files and settings, "
            f"wrong results: {mutations['wrong']:,}, unclear errors: {mutations['unclear']:,}, "
            f"hangs: {mutations['hung']:,}; of the {tests['tests']:,} attacks as tests{skipped}, which fill the disk "
            f"and deny permissions too, {failed:,} failed."
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UWMLError(
            f"{RELIABILITY}: not the figures of `make torture` ({type(error).__name__}: {error}); run it again"
        ) from error


def report_folder(dataset: str) -> Path:
    """Where the executed notebooks, the figures and the pages of a data set go."""
    return REPORTS / dataset


def record(dataset: str, notebook: str, **metrics: float | str | None) -> None:
    """Write what a notebook found to `metrics/NOTEBOOK.json` in the data set's report folder."""
    write_json(report_folder(dataset) / "metrics" / f"{notebook}.json", metrics)


def plain(value: Any) -> dict[str, float | None]:
    """Return a summary or an interval as JSON has it: null where there is no number."""
    return {name: None if isinstance(x, float) and np.isnan(x) else x for name, x in value._asdict().items()}
