"""Figures of trainings: recall and scores as they change, runs compared."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uwml_lib.reports.figures.style import PAIR_LOOK, _look, _panels, _styled
from uwml_lib.runs.run import Run
from uwml_lib.runs.study_runs import StudyRuns


@_styled
def caption_lengths(lengths: dict[str, Sequence[int]]) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of captions by length, split by split; lengths count `<start>` and `<end>`."""
    shares = pd.DataFrame({split: pd.Series(values).value_counts(normalize=True) for split, values in lengths.items()})
    shares = 100 * shares.sort_index().fillna(0)
    figure, axis = plt.subplots(figsize=(7, 3))
    for (split, column), linestyle in zip(shares.items(), ("-", "--", ":"), strict=False):
        axis.plot(shares.index, column, linestyle, label=split, marker=".")
    axis.set(xlabel="tokens in a caption, with <start> and <end>", ylabel="captions, %", title="How long captions are")
    axis.legend()
    return figure, shares


@_styled
def recall_curves(study: StudyRuns) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum on the images that choose the epoch: a line for the mean over seeds, a band from worst to best seed."""
    lines = pd.concat(
        run.history().query("kind == 'epoch'").assign(loss=loss, seed=run.seed)
        for loss, runs in study.by_loss().items()
        for run in runs
    )
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for loss, group in lines.groupby("loss", sort=False):
        by_epoch = group.groupby("epochs_done")["dev_rsum"].agg(["mean", "min", "max"])
        axis.plot(by_epoch.index, by_epoch["mean"], label=loss, markersize=4, **_look(loss))
        axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=_look(loss)["color"], alpha=0.15)
    _mark_warmup(axis, study.runs[0])
    words = study.runs[0].config.chosen_by
    axis.set(
        xlabel="epochs", ylabel=f"{words} rsum", title=f"Recall on {words}: mean over seeds, band from worst to best"
    )
    axis.legend()
    return figure, lines[["loss", "seed", "epochs_done", "dev_rsum"]]


@_styled
def score_curves(study: StudyRuns) -> tuple[Figure, pd.DataFrame]:
    """Draw how the mean score of a batch's positives and hardest negatives moves: a panel a loss, a line a seed."""
    by_loss = study.by_loss()
    figure, axes = plt.subplots(1, len(by_loss), figsize=(4.6 * len(by_loss), 3.8), sharey=True, squeeze=False)
    looks = {
        "positive_score": {**PAIR_LOOK["positive"], "label": "positives"},
        "hardest_negative_score": {**PAIR_LOOK["negative"], "label": "hardest negatives"},
    }
    drawn = []
    for axis, (loss, runs) in zip(axes.flat, by_loss.items(), strict=True):
        for run in runs:
            steps = run.history().query("kind == 'step'")
            for name, look in looks.items():
                axis.plot(steps["epochs_done"], steps[name], linewidth=1.1, **look)
            drawn.append(steps[["epochs_done", *looks]].assign(loss=loss, seed=run.seed))
        _mark_warmup(axis, runs[0])
        axis.set(title=f"{loss}, {len(runs)} seeds" if len(runs) > 1 else loss, xlabel="epochs")
    axes.flat[0].set_ylabel("mean score in a batch")
    figure.legend(*(item[:2] for item in axes.flat[0].get_legend_handles_labels()), loc="outside lower center", ncols=2)
    return figure, pd.concat(drawn)


@_styled
def collapse_curves(with_warmup: Sequence[Run], without_warmup: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """Draw the triplet loss of single runs with and without warm-up against the line 2 * margin * N.

    On that line every anchor's hardest negative scores like its positive: all scores are equal, nothing is learnt.
    """
    config = without_warmup[0].config
    level = 2 * config.loss_options.get("margin", 0.2) * config.batch_size
    figure, axis = plt.subplots(figsize=(7, 3.6))
    drawn = []
    for words, runs, style in (("with warm-up", with_warmup, "-"), ("without warm-up", without_warmup, ":")):
        for run in runs:
            steps = run.history().query("kind == 'step' and warmup == False")
            axis.plot(steps["epochs_done"], steps["loss"], style, color=_look("triplet")["color"], label=words)
            drawn.append(steps[["epochs_done", "loss"]].assign(run=words))
    axis.axhline(level, color="black", linewidth=1, linestyle="-.")
    place: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "xytext": (-4, 5),
        "textcoords": "offset points",
        "ha": "right",
    }
    axis.annotate("2 · margin · N", (1, level), **place)
    axis.set(
        xlabel="epochs", ylabel="hardest-negative triplet loss", title="What the warm-up is for", ylim=(0, 1.15 * level)
    )
    axis.legend()
    return figure, pd.concat(drawn)


@_styled
def convergence(study: StudyRuns, columns: int = 4) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum on the images that choose the epoch, mean over seeds: a panel a loss, all others in grey behind it."""
    lines = pd.DataFrame({
        loss: pd.concat([run.history().query("kind == 'epoch'").set_index("epoch")["dev_rsum"] for run in runs], axis=1)
        .mean(axis=1)
        for loss, runs in study.by_loss().items()
    })  # fmt: skip
    lines.index = lines.index.astype(int) + 1
    figure, axes = _panels(len(lines.columns), columns, width=2.5, height=2.0)
    for axis, loss in zip(axes, lines.columns, strict=False):
        axis.plot(lines.index, lines, color="#bbbbbb", linewidth=0.7)
        axis.plot(lines.index, lines[loss], color="#0072B2", marker=".")
        axis.set_title(f"{loss}: {lines[loss].iloc[-1]:.0f}", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("epochs done", fontsize=10)
    figure.supylabel(f"{study.runs[0].config.chosen_by} rsum", fontsize=10)
    return figure, lines


@_styled
def models_compared(study: StudyRuns) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum, model by model, a mark for each loss: the mean over seeds, with a line from worst to best."""
    found = study.by_model()
    rows = [
        {"model": model, "loss": loss, "seed": run.seed, "rsum": run.rsum}
        for model, by_loss in found.items()
        for loss, runs in by_loss.items()
        for run in runs
    ]
    values = pd.DataFrame(rows)
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(found) + 1.3))
    for offset, (loss, group) in zip((-0.13, 0.13), values.groupby("loss", sort=False), strict=False):
        spread = group.groupby("model", sort=False)["rsum"].agg(["mean", "min", "max"]).loc[list(found)]
        places = np.arange(len(found)) + offset
        ends = np.abs(spread[["min", "max"]].sub(spread["mean"], axis=0).to_numpy().T)
        look = _look(loss) | {"linestyle": "none"}
        axis.errorbar(spread["mean"], places, xerr=ends, label=loss, markersize=6, **look)
    axis.set(yticks=range(len(found)), yticklabels=list(found), xlabel=f"{study.split} rsum")
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.4)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, values


def _mark_warmup(axis: plt.Axes, run: Run) -> None:
    epochs = run.config.warmup_epochs
    if epochs:
        axis.axvspan(0, epochs, color="#000000", alpha=0.05, linewidth=0)
        axis.annotate(
            "warm-up",
            (0, 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize=8,
        )
