"""The report of two losses on one model: the table, the verdict, agreement with the published results."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from uwml_lib.evaluation.statistics import Comparison, Summary, chance_rsum, paired_bootstrap, summarize
from uwml_lib.reports import tables
from uwml_lib.reports.report import Report
from uwml_lib.runs.checkpoints import read_config
from uwml_lib.runs.run import Run
from uwml_lib.runs.study_runs import StudyRuns, settings_that_differ
from uwml_lib.support import paths
from uwml_lib.support.errors import UWMLError, expect, reading
from uwml_lib.support.files import read_json
from uwml_lib.support.progress import counted

FEATURES = {
    ("f8k_precomp", 36, 128): (
        "36 overlapping windows, 2 x 2 cells, of the last feature map (7 x 7 x 1280) of an ImageNet MobileNetV2, "
        "PCA-whitened to 128 numbers. They are no bottom-up-attention features, so these numbers compare losses and "
        "models with each other, not with published tables"
    ),
    ("f8k_regions", 36, 256): (
        "the whole image, up to 14 boxes of a COCO-trained SSD-MobileNetV2, 11 on average, then fixed windows; a region"
        " is an ImageNet EfficientNet-Lite3 on the box joined with the map of an EfficientNet-Lite2 averaged over it, "
        "PCA-whitened to 256 numbers. A bottom-up recipe in kind, much weaker than Visual Genome features, so these "
        "numbers compare losses and models with each other, not with published tables"
    ),
}
"""What features are, by data set and shape, where that must be known to read the numbers."""

TWINS = "metrics_if_twins_are_right"


def two_losses(study: StudyRuns) -> Report:
    """Report the polynomial loss against the triplet loss; raises UWMLError for runs that cannot be compared."""
    compared, run, by_loss = tables.compare_losses(study), study.runs[0], study.by_loss()
    summary = _summary(study, compared)
    verdict, n_images = summary["comparison"]["verdict"], summary["n_images"]
    values = ", ".join(f"{loss} {tables.mean_and_std(by_loss[loss])}" for loss in ("triplet", "polynomial"))
    listed, summed_up = by_seed(by_loss)
    finding = (
        f"On {study.dataset} ({counted(n_images, f'{study.split} image')}, {run.model}): {values} in rsum; {verdict}."
    )
    return Report(
        title=f"{study.dataset}: {counted(n_images, f'{study.split} image')}, "
        f"{counted(summary['captions_per_image'], 'caption')} each",
        table=tables.results_table(study),
        runs=tables.run_table(study.all_runs),
        commands=tables.commands_in_words(study.all_runs),
        about=(f"{run.model}; {tables.settings_in_words(study.runs)}.",),
        notes=(
            "Recalls in percent, mean ± sample standard deviation over seeds; rsum is the sum of the six recalls. "
            f"Random scores would give an rsum of {summary['chance_rsum']:.1f}.",
            f"polynomial − triplet, rsum, 95 % intervals: {compared.over_seeds} over seeds (paired t), "
            f"{compared.over_images} over {study.split} images (paired bootstrap, seeds averaged).",
            listed,
            *_levels(by_loss),
            *study.remarks,
            *_remarks(study),
            *filter(None, [agreement_with_reference(summary)]),
        ),
        verdict=verdict,
        decided=bool(compared.winner),
        findings=(finding, f"Seed by seed on {study.dataset}: {summed_up}."),
        outcomes={f"{run.model} on {study.dataset}": compared.leader("polynomial", "triplet")},
        data=summary,
    )


def _summary(study: StudyRuns, compared: Comparison) -> dict[str, Any]:
    """Everything the report states, as plain values, each traceable to its run folders."""
    first = study.runs[0].results
    n_images, captions_per_image = len(first["ranks"]["image_to_text_ranks"]), first["captions_per_image"]
    return {
        "dataset": study.dataset, "split": study.split, "n_images": n_images, "captions_per_image": captions_per_image,
        "chance_rsum": chance_rsum(n_images, captions_per_image),
        "losses": {
            loss: {
                "metrics": {name: tables.plain(tables.summary_of(runs, name)) for name in runs[0].metrics},
                "runs": tables.digests(runs),
                "training_seconds": tables.plain(summarize([run.results["training_seconds"] for run in runs])),
            }
            for loss, runs in study.by_loss().items()
        },
        "comparison": {
            "a": "polynomial", "b": "triplet", "verdict": compared.verdict("polynomial", "triplet"),
            "over_seeds": tables.plain(compared.over_seeds), "over_images": tables.plain(compared.over_images),
        },
        "without_warmup": {run.folder.name: run.rsum for run in study["without_warmup"]},
    }  # fmt: skip


def by_seed(by_loss: Mapping[str, Sequence[Run]]) -> tuple[str, str]:
    """List the differences, and sum them up by what does not mind seeds that fail by far: a median and a sign test."""
    rsums = {loss: {run.seed: run.rsum for run in by_loss[loss]} for loss in ("polynomial", "triplet")}
    of_seed = {seed: round(rsum - rsums["triplet"][seed], 6) + 0.0 for seed, rsum in rsums["polynomial"].items()}
    apart = [*of_seed.values()]  # 0.0, and not -0.0, where they are equal
    ahead, differ = sum(difference > 0 for difference in apart), sum(difference != 0 for difference in apart)
    p, middle = binomtest(ahead, differ).pvalue if differ else 1.0, float(np.median(apart))
    lost = {run.seed: f"; the scores of {loss} collapsed" for loss in rsums for run in by_loss[loss] if run.collapsed}
    far = ", ".join(
        f"{seed} ({difference:+.1f}{lost.get(seed, '')})"
        for seed, difference in of_seed.items() if abs(difference) > 5 * abs(middle)
    )  # fmt: skip
    widened = ". Seeds with more than five times this difference move the mean and widen its interval: " * bool(far)
    equal = f", equal with {len(apart) - differ}" * (differ < len(apart))
    listed = ", ".join(f"{seed}: {d:+.1f}" for seed, d in of_seed.items())
    return (
        f"polynomial − triplet, rsum, seed by seed: {listed}.",
        f"the polynomial loss is ahead with {ahead} of {counted(len(apart), 'seed')}{equal} (two-sided sign test: "
        f"p = {p:.1g}), by {middle:+.1f} in the median{widened}{far}",
    )


def _levels(by_loss: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Name the losses whose scores end at a high level with some seeds and at a low one with others."""
    for loss, runs in by_loss.items():
        if levels := tables.two_levels([run for run in runs if not run.collapsed]):
            yield (
                f"The scores of the {loss} loss settle at two levels: {'; '.join(map(_level, levels))}. "
                "Student's t takes these for one group, so its interval over seeds is no more than a hint."
            )


def _level(runs: Sequence[Run]) -> str:
    at, rsums = [run.last_positive_score for run in runs], [run.rsum for run in runs]
    between = f"{min(at):+.2f} to {max(at):+.2f}, rsum {min(rsums):.1f} to {max(rsums):.1f}"
    return f"positives at {between} (seeds: {', '.join(map(str, sorted(run.seed for run in runs)))})"


def _remarks(study: StudyRuns) -> list[str]:
    """What must be known to read the numbers, as far as it applies."""
    remarks = tables.collapsed_in_words(study.runs)
    if without := study["without_warmup"]:
        rows = warmup_effect(study).itertuples()
        values = "; ".join(f"{row.loss} {row.without_warmup:.1f} against {row.with_warmup:.1f} with it" for row in rows)
        epochs = counted(without[0].config.epochs, "epoch")
        remarks.append(f"Without warm-up, dev rsum after {epochs} (one seed each): {values}.")
    if study.runs[0].dense_alone:
        remarks.append("Every epoch was warm-up: this compares the dense forms of the losses.")
    return remarks + data_remarks(study)


def data_remarks(study: StudyRuns) -> list[str]:
    """What must be known of the data to read the numbers: which images they are of, shared sentences, features."""
    config, remarks = study.runs[0].config, list[str]()
    if study.split != "test":
        held_out = f"the last {config.selection_images} training images, kept out of training, chose the epoch"
        chose = held_out if config.selection_images else "which also chose the epoch"
        remarks.append(f"These data have no test split, so this is {study.split}; {chose}.")
    if any(run.results.get(TWINS) for run in study.runs):
        rsums = {
            loss: [(run.results.get(TWINS) or run.metrics)["rsum"] for run in runs]
            for loss, runs in study.by_loss().items()
        }
        values = ", ".join(f"{loss} {summarize(of).mean_and_std}" for loss, of in rsums.items())
        remarks.append(f"Some images share a sentence. If it counts as right for each of them, rsum is: {values}.")
    shape = study.runs[0].results.get("features", {}).get(study.split, ())
    if about := FEATURES.get((study.dataset, *shape[1:])):
        remarks.append(f"The features: {about}.")
    if (baseline := paths.report_folder(study.dataset) / "linear_cca.json").exists():
        remarks.append(linear_cca_text(baseline, study))
    return remarks


def linear_cca_text(path: Path, study: StudyRuns) -> str:
    """Say how far the losses are from linear CCA as noted in a file; raises UWMLError if that is of other images."""
    baseline = read_json(path)
    with reading(path, "what `benchmarks/linear_cca.py` writes of these images; run it again"):
        expect(baseline["split"] == study.split, path, f"the {baseline['split']} split", f"{study.split}; run it again")
        cells = ", ".join(
            f"{heading.strip()} {baseline['metrics'][name]:.1f}" for name, heading in tables.COLUMNS.items()
        )
        theirs = np.array(baseline["rsum_by_image"])
        ours = {loss: np.mean([run.rsum_by_image for run in runs], axis=0) for loss, runs in study.by_loss().items()}
        apart = ", ".join(f"{loss} {paired_bootstrap(values, theirs)}" for loss, values in ours.items())
        fitted = counted(baseline["images"]["train"], "training image")
    return (
        f"For comparison, linear CCA, fitted on all {fitted}, held-out ones included, and scored on the same "
        f"images (`benchmarks/linear_cca.py --dataset {study.dataset}`): {cells}. In rsum the losses differ from it by "
        f"(95 % intervals over images, seeds averaged): {apart}."
    )


def warmup_effect(study: StudyRuns) -> pd.DataFrame:
    """One row a run without warm-up: its last dev rsum, and that of the same loss and seed with warm-up by then.

    Raises UWMLError for a run that has warm-up, or has no such other.
    """
    rows = []
    for run in study["without_warmup"]:
        name, loss, epochs = run.folder.name, run.config.loss, run.config.epochs
        if found := run.config.warmup_epochs:
            raise UWMLError(f"{name}: is listed as without warm-up; found warmup_epochs {found}, expected 0")
        same = [x for x in study.runs if (x.config.loss, x.seed) == (loss, run.seed) and x.config.epochs >= epochs]
        if not same:
            raise UWMLError(f"{name}: found no run of {loss} with seed {run.seed} and warm-up to compare it with")
        reached = [x.history().query("kind == 'epoch'")["dev_rsum"].iloc[epochs - 1] for x in (run, same[0])]
        rows.append((loss, run.seed, epochs, *reached))
    return pd.DataFrame(rows, columns=["loss", "seed", "epochs", "without_warmup", "with_warmup"])


def agreement_with_reference(summary: dict[str, Any]) -> str:
    """Say whether new results agree with reports/reference within the seeds' spread; empty if it has none of these, or
    has these very runs.

    summary: the `data` of a report. Numbers are compared only under the same settings, and judged only over seeds.
    """
    place = paths.reference_folder(summary["dataset"])
    if not (place / "summary.json").exists():
        return ""
    shown = "/".join(("reports/reference", *place.relative_to(paths.REFERENCE).parts))
    try:
        reference = read_json(place / "summary.json")
        what = ("dataset", "split", "n_images", "captions_per_image")
        differ = [f"{name} {summary[name]}, not {reference[name]}" for name in what if summary[name] != reference[name]]
        both = {loss: [each["losses"][loss] for each in (summary, reference)]
                for loss in summary["losses"] if loss in reference["losses"]}  # fmt: skip
        sentences = [_agreement(loss, *(Summary(**side["metrics"]["rsum"]) for side in both[loss])) for loss in both]
        pairs = [pair for ours, theirs in both.values() for pair in product(ours["runs"], theirs["runs"])]
    except (UWMLError, KeyError, TypeError, ValueError):
        return f"{shown}/summary.json cannot be read as a summary, so nothing is compared with it."
    if not pairs or all(ours["runs"] == theirs["runs"] for ours, theirs in both.values()):
        return ""  # or these are the published runs themselves
    try:
        for here, there in pairs:
            a, b = read_config(paths.RUNS / summary["dataset"] / here), read_config(place / "runs" / there)
            differ += [f"{name} {getattr(a, name)}, not {getattr(b, name)}" for name in settings_that_differ(a, b)]
    except UWMLError:
        return f"Against {shown}: the settings of its runs cannot be read, so the numbers are not compared."
    if differ:
        words = "; ".join(dict.fromkeys(differ))
        return f"Against {shown}: the settings differ ({words}), so the numbers are not compared."
    return f"Against {shown}: {'; '.join(sentences)}."


def _agreement(loss: str, ours: Summary, published: Summary) -> str:
    """Whether the means of one loss's rsum are within two standard deviations, the larger of both."""
    one_seed = min(ours.n, published.n) < 2
    spread = 0.0 if one_seed else max(ours.std, published.std)
    if not spread:
        why = "one seed" if one_seed else "seeds that do not differ"
        return f"{loss}: rsum {ours.mean:.1f}, published {published.mean:.1f}, and with {why} no spread to judge by"
    word = "agrees with" if abs(ours.mean - published.mean) <= 2 * spread else "differs from"
    return f"{loss}: rsum {ours.mean:.1f} {word} the {published.mean:.1f} there (2 std = {2 * spread:.1f})"
