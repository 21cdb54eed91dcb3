"""Tables of finished runs: mean, spread, paired differences with intervals."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from uwml_lib.evaluation.statistics import Comparison, Summary, compare, compare_all, summarize
from uwml_lib.models import MODELS
from uwml_lib.reports.report import plain_markdown
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import sha256_of
from uwml_lib.support.progress import counted, duration

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
APART = 0.3
"""Difference in the mean score of positives from which seeds have ended at two levels."""
RECALL_AT_1_AND_RSUM = ("image_to_text_recall_at_1", "text_to_image_recall_at_1", "rsum")


def results_table(study: StudyRuns) -> pd.DataFrame:
    """One row a loss, mean ± std over seeds in every cell."""
    rows = {
        loss: {heading: mean_and_std(runs, name) for name, heading in COLUMNS.items()} | {"seeds": len(runs)}
        for loss, runs in study.by_loss().items()
    }
    return _table(rows, f"loss ({study.split} split)")


def compare_losses(study: StudyRuns, a: str = "polynomial", b: str = "triplet") -> Comparison:
    """Compare two losses of a study; raises UWMLError if their runs differ in other settings, or in their seeds."""
    study.check_comparable()
    by_loss = study.by_loss()
    if missing := [name for name in (a, b) if name not in by_loss]:
        raise UWMLError(f"{study.dataset}: found runs of {', '.join(by_loss)}, expected some of {missing[0]} too")
    return compare(by_loss[a], by_loss[b])


def differences(comparison: Comparison) -> dict[str, str]:
    """The two intervals of a comparison, as cells of a table."""
    return {"over seeds": str(comparison.over_seeds), "over images": str(comparison.over_images)}


def intervals_in_words(comparisons: int) -> str:
    """What the differences in a table are, and when one counts; comparisons: so many are made at once."""
    corrected = f", both corrected for {comparisons} comparisons (Holm)" if comparisons > 1 else ""
    return (
        "Mean ± sample standard deviation over seeds. Differences in rsum have 95 % intervals, over seeds by paired t "
        f"and over images by paired bootstrap{corrected}. One counts where both exclude 0."
    )


class OfModel(NamedTuple):
    """The two losses on one model: their runs, how they compare, and the losses all of whose trainings collapsed."""

    by_loss: dict[str, list[Run]]
    comparison: Comparison
    collapsed: list[str]

    @property
    def winner(self) -> str:
        """The loss that is ahead, "" where neither is, "collapsed" where there is nothing to compare."""
        return "collapsed" if self.collapsed else self.comparison.leader("polynomial", "triplet")


def losses_by_model(study: StudyRuns) -> dict[str, OfModel]:
    """Model -> its runs, the polynomial loss compared with the triplet's and corrected for the number of models."""
    by_model = study.by_model()
    compared = compare_all({model: (runs["polynomial"], runs["triplet"]) for model, runs in by_model.items()})
    return {
        model: OfModel(runs, compared[model], [loss for loss in runs if all(run.collapsed for run in runs[loss])])
        for model, runs in by_model.items()
    }


def models_table(study: StudyRuns) -> pd.DataFrame:
    """One row for each model: rsum of both losses, mean ± std, the polynomial loss's difference to the triplet's, with
    intervals corrected for the number of models, and which loss is better; or which trainings collapsed.
    """
    rows = {
        model: {f"{loss} rsum": mean_and_std(runs) for loss, runs in found.by_loss.items()}
        | {f"polynomial − triplet, {name}": cell for name, cell in differences(found.comparison).items()}
        | {"better": ": ".join(filter(None, (found.winner, ", ".join(found.collapsed)))) or "not decided"}
        | {"seeds": found.comparison.n[0]}
        for model, found in losses_by_model(study).items()
    }
    return _table(rows, f"model ({study.split} split)")


def settings_in_words(runs: Sequence[Run]) -> str:
    """The settings that trainings have alike, as far as tables are read by them; what differs between them is left out.

    >>> from types import SimpleNamespace
    >>> from uwml_lib.config import preset
    >>> settings_in_words([SimpleNamespace(config=preset("scenes", warmup_epochs=epochs)) for epochs in (1, 2)])
    'width 64; batches of 64; learning rate 0.004; λ 20 in the attention; 8 epochs'
    """
    config, *others = [run.config for run in runs]
    alike = {name for name, value in vars(config).items() if all(getattr(other, name) == value for other in others)}
    attends = "lambda_softmax" in MODELS[config.model].settings and config.lambda_softmax
    warmup = min(config.warmup_epochs, config.epochs)
    warm = {0: "without warm-up", config.epochs: "all warm-up"}.get(warmup, f"{warmup} of them warm-up")
    said = {
        "embed_size": f"width {config.embed_size}", "batch_size": f"batches of {config.batch_size}",
        "learning_rate": f"learning rate {config.learning_rate:g}",
        "lambda_softmax": f"λ {config.lambda_softmax:g} in the attention" if attends else "",
        "epochs": counted(config.epochs, "epoch") + (f", {warm}" if "warmup_epochs" in alike else ""),
        "max_images": f"only the first {counted(config.max_images, 'image')}" if config.max_images else "",
    }  # fmt: skip
    return "; ".join(words for name, words in said.items() if name in alike and words)


def two_levels(runs: Sequence[Run]) -> tuple[list[Run], list[Run]] | None:
    """Runs whose scores ended at a high and at a low level, if `APART` or more lies between; None if it does not."""
    by_level = sorted(runs, key=lambda run: -run.last_positive_score)
    gaps = [a.last_positive_score - b.last_positive_score for a, b in itertools.pairwise(by_level)]
    if max(gaps, default=0.0) < APART:
        return None
    high = gaps.index(max(gaps)) + 1
    return by_level[:high], by_level[high:]


def collapsed_in_words(runs: Sequence[Run]) -> list[str]:
    """A sentence that names the trainings that collapsed, if any did."""
    several = len({run.model for run in runs}) > 1
    equal = [
        f"{run.model + ', ' if several else ''}{run.config.loss}, seed {run.seed} (rsum {run.rsum:.1f})"
        for run in runs
        if run.collapsed
    ]
    said = f"Collapsed (positives and hardest negatives score the same): {'; '.join(equal)}."
    return [said] if equal else []


def run_table(runs: tuple[Run, ...], **columns: list[Any]) -> pd.DataFrame:
    """One row for each run: its folder, what it reached, how long it took, commit, and SHA-256 of its results.json.

    columns: others, for runs that differ in more than loss and seed.
    """
    several = len({run.model for run in runs}) > 1
    tried = any(run.config.loss_options for run in runs)
    later = any(run.config.start_from for run in runs)
    return pd.DataFrame(
        {
            "run folder": run.folder.name,
            **{name: values[place] for name, values in columns.items()},
            **({"model": run.model} if several else {}),
            **({"loss options": _in_words(run.config.loss_options)} if tried else {}),
            **({"begins with": run.config.start_from} if later else {}),
            "seed": run.seed,
            "best epoch": run.results["best_epoch"],
            f"{run.config.chosen_by} rsum": round(run.results["dev_rsum"], 1),
            f"{run.results['split']} rsum": round(run.rsum, 1),
            "training": duration(run.results["training_seconds"]),
            "commit": ", then ".join(map(_commit, run.results["provenance"]["sessions"])),
            "SHA-256": sha256_of(run.folder / "results.json")[:12],
        }
        for place, run in enumerate(runs)
    ).set_index("run folder")


def commands_in_words(runs: Iterable[Run]) -> str:
    """Name the commands that trained the runs, with how many each trained."""
    counts = Counter(run.results["provenance"]["command"] for run in runs)
    said = "; ".join(f"{plain_markdown(command)} ({counted(n, 'run')})" for command, n in counts.items())
    return f"Trained by: {said}." + " Here ... is a folder outside the checkout." * (".../" in said)


def summary_of(runs: Sequence[Run], metric: str = "rsum") -> Summary:
    """Mean and standard deviation of a metric over seeds."""
    return summarize([run.metrics[metric] for run in runs])


def mean_and_std(runs: list[Run], metric: str = "rsum") -> str:
    """Mean ± standard deviation of a metric over seeds."""
    return summary_of(runs, metric).mean_and_std


def digests(runs: Iterable[Run]) -> dict[str, str]:
    """Return run folder -> SHA-256 of its results.json."""
    return {run.folder.name: sha256_of(run.folder / "results.json") for run in runs}


def plain(value: Any) -> dict[str, float | None]:
    """Return a summary or an interval as JSON has it: null where there is no number."""
    return {name: None if isinstance(x, float) and np.isnan(x) else x for name, x in value._asdict().items()}


def _in_words(options: dict[str, Any]) -> str:
    return json.dumps(options, separators=(", ", " ")).translate(str.maketrans("", "", '{}"')) or "defaults"


def _commit(session: dict[str, Any]) -> str:
    return (session["commit"] or "unknown")[:8] + ("" if session["clean_tree"] else " changed")


def _table(rows: dict[str, dict[str, Any]], heading: str) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis(heading)
