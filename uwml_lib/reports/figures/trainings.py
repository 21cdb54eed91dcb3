"""Figures of trainings: recall and scores as they change, runs compared."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from uwml_lib.evaluation.statistics import Comparison
from uwml_lib.reports.figures import LOOK, PAIR_LOOK, legend, looks, panels, styled
from uwml_lib.reports.figures.zones import shade
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.weighting import positives_and_hardest_negatives
from uwml_lib.weighting.coefficients import Zone

WORST_TO_BEST = ("pi", 100)  # as seaborn calls the interval that holds all values
RSUM_BY_EPOCH: dict[str, Any] = {"x": "epochs_done", "y": "dev_rsum", "errorbar": WORST_TO_BEST}
LINE_A_SEED: dict[str, Any] = {"units": "seed", "estimator": None}


@styled
def caption_lengths(lengths: dict[str, Sequence[int]]) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of captions by length, split by split; lengths count `<start>` and `<end>`."""
    shares = pd.DataFrame({split: pd.Series(values).value_counts(normalize=True) for split, values in lengths.items()})
    shares = 100 * shares.sort_index().fillna(0)
    figure, [axis] = panels(1, columns=1, width=7, height=3)
    sns.lineplot(shares, markers=True, palette="colorblind", ax=axis)
    axis.set(xlabel="tokens in a caption, with <start> and <end>", ylabel="captions, %")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, columns=len(shares.columns))
    return figure, shares


@styled
def recall_curves(study: StudyRuns) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum on the images that choose the epoch: a line for the mean over seeds, a band from worst to best seed."""
    lines = _records("epoch", study.by_loss())
    figure, [axis] = panels(1, columns=1, width=7, height=3.9)
    for loss, look in looks(lines["loss"].unique()).items():
        sns.lineplot(lines[lines["loss"] == loss], **RSUM_BY_EPOCH, label=loss, ax=axis, **look)
    _mark_warmup(axis, study.runs[0])
    dev = study.runs[0].config.chosen_by
    axis.set(xlabel="epochs", ylabel=f"{dev} rsum", title=f"Recall on {dev}: mean over seeds, band from worst to best")
    legend(figure, columns=4, side="lower")
    return figure, lines[["loss", "seed", "epochs_done", "dev_rsum"]]


@styled
def score_curves(study: StudyRuns) -> tuple[Figure, pd.DataFrame]:
    """Draw how the mean score of a batch's positives and hardest negatives moves: a panel a loss, a line a seed."""
    by_loss = study.by_loss()
    lines = _records("step", by_loss)
    columns = {"positives": "positive_score", "hardest negatives": "hardest_negative_score"}
    figure, axes = panels(len(by_loss), columns=4, width=4.6, height=3.8)
    for axis, (loss, of_loss) in zip(axes, lines.groupby("loss", sort=False), strict=True):
        for (name, column), look in zip(columns.items(), PAIR_LOOK.values(), strict=True):
            look = look | {"label": name, "linewidth": 1.1}
            sns.lineplot(of_loss, x="epochs_done", y=column, **LINE_A_SEED, ax=axis, **look)
        _mark_warmup(axis, by_loss[loss][0])
        title = f"{loss}, {len(by_loss[loss])} seeds" if len(by_loss[loss]) > 1 else loss
        axis.set(title=title, xlabel="epochs", ylabel="mean score in a batch")
    legend(figure, columns=2, side="lower")
    return figure, lines[["loss", "seed", "epochs_done", *columns.values()]]


@styled
def collapse_curves(with_warmup: Sequence[Run], without_warmup: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """Draw the triplet loss of single runs with and without warm-up against the line 2 * margin * N.

    On that line every anchor's hardest negative scores like its positive: all scores are equal, nothing is learnt.
    """
    config, look = without_warmup[0].config, {"color": LOOK["triplet"]["color"], **LINE_A_SEED}
    level = 2 * config.loss_options.get("margin", 0.2) * config.batch_size
    lines = _records("step", {"with warm-up": with_warmup, "without warm-up": without_warmup}, "run")
    lines = lines[~lines["warmup"].astype(bool)]
    figure, [axis] = panels(1, columns=1, width=7, height=3.9)
    sns.lineplot(lines, x="epochs_done", y="loss", style="run", ax=axis, **look)
    axis.axhline(level, color="black", linewidth=1, linestyle="-.", label="2 · margin · N")
    axis.set(xlabel="epochs", ylabel="hardest-negative triplet loss", ylim=(0, 1.15 * level))
    legend(figure, columns=3, side="lower")
    return figure, lines[["run", "epochs_done", "loss"]]


@styled
def score_histograms(batches: Mapping[str, Tensor]) -> tuple[Figure, pd.DataFrame]:
    """Draw how the scores of positives and of hardest negatives are distributed: a panel a model, on the same axes.

    batches: name -> scores (batches, n, n), positives on the diagonal, as `runs.dev_batches` returns them. The share of
    the pairs is drawn on a logarithmic axis, for a collapsed model has all of them in one bar. Returns a row for every
    score, with the columns model, pair and score.
    """
    of = {model: positives_and_hardest_negatives(scores) for model, scores in batches.items()}
    frames = {(model, pair): pd.Series(x.numpy()) for model in of for pair, x in zip(PAIR_LOOK, of[model], strict=True)}
    scores = pd.concat(frames, names=["model", "pair", None]).rename("score").reset_index(["model", "pair"])
    limits = scores["score"].min(), scores["score"].max()
    figure, axes = panels(len(batches), columns=3, width=4.2, height=3.4)
    for axis, model in zip(axes, batches, strict=True):
        for name, (pair, look) in zip(("positives", "hardest negatives"), PAIR_LOOK.items(), strict=True):
            values, outline = frames[model, pair], {"histtype": "step", "linewidth": 1.6, **look}
            axis.hist(values, bins=40, range=limits, weights=0 * values + 100 / len(values), label=name, **outline)
        axis.set(title=model, xlabel="score", yscale="log", ylim=(0.1, 150))
        axis.yaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel("pairs, %")
    legend(figure, columns=2, side="lower")
    return figure, scores


@styled
def convergence(groups: Mapping[str, Sequence[Run]]) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum on the images that choose the epoch: a panel a loss, with the means of all losses in grey behind it.

    groups: loss -> its runs. A line is the mean over seeds, a band from worst to best. Returns the means, a column a
    loss.
    """
    lines = _records("epoch", groups).astype({"epochs_done": int})
    means = lines.pivot_table("dev_rsum", "epochs_done", "loss", sort=False)
    figure, axes = panels(len(means.columns), columns=4, width=2.5, height=2.0)
    for axis, loss in zip(axes, means, strict=True):
        axis.plot(means, color="#bbbbbb", linewidth=0.7)
        sns.lineplot(lines[lines["loss"] == loss], **RSUM_BY_EPOCH, ax=axis, markersize=4, **LOOK["polynomial"])
        axis.set_title(f"{loss}: {means[loss].iloc[-1]:.0f}", fontsize=9)
        axis.set(xlabel="", ylabel="")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("epochs done")
    figure.supylabel(f"{next(iter(groups.values()))[0].config.chosen_by} rsum")
    return figure, means


@styled
def models_compared(study: StudyRuns) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum, model by model, a mark for each loss: the mean over seeds, with a line from worst to best."""
    runs_of = {model: [run for runs in by_loss.values() for run in runs] for model, by_loss in study.by_model().items()}
    rows = [(model, run.config.loss, run.seed, run.rsum) for model, runs in runs_of.items() for run in runs]
    values = pd.DataFrame(rows, columns=["model", "loss", "seed", "rsum"])
    look = pd.DataFrame(looks(values["loss"].unique())).T
    figure, [axis] = panels(1, columns=1, width=7, height=0.42 * values["model"].nunique() + 1.3)
    sns.pointplot(
        values, x="rsum", y="model", hue="loss", palette=list(look["color"]), markers=list(look["marker"]),
        errorbar=WORST_TO_BEST, linestyle="none", dodge=0.26, markersize=6, linewidth=1.8, ax=axis,
    )  # fmt: skip
    axis.set(xlabel=f"{study.split} rsum")
    legend(figure, columns=4)
    return figure, values


@styled
def intervals(found: Mapping[str, Comparison], against: str) -> tuple[Figure, pd.DataFrame]:
    """Draw differences in rsum with their intervals over seeds and over images, a row for each comparison.

    against: what each is compared with. A mark is filled where both intervals show a difference. An interval that is
    much wider than all others runs out of the frame, with an arrow, so that those stay legible. Returns two
    rows for each comparison: its name, over seeds or images, the difference with its ends, and the winner as
    `Comparison` has it.
    """
    values = pd.DataFrame(
        {"compared": name, "over": over, **getattr(comparison, f"over_{over}")._asdict(), "winner": comparison.winner}
        for name, comparison in found.items()
        for over in ("seeds", "images")
    )
    figure, [axis] = panels(1, columns=1, width=7, height=0.42 * len(found) + 1.3)
    frame = _frame(values)
    for over, shift, look in zip(("seeds", "images"), (-0.15, 0.15), LOOK.values(), strict=True):
        rows = values[values["over"] == over].reset_index()
        axis.hlines(rows.index + shift, rows["low"], rows["high"], color=look["color"], linestyle="-")
        for end, arrow in ((-frame, "<"), (frame, ">")):
            for beyond in rows.index[(rows["low"] < end) & (rows["high"] > end)] + shift:
                axis.plot(end, beyond, arrow, color=look["color"], clip_on=False)
        marks = {**look, "linestyle": "", "label": f"over {over}"}
        axis.plot(rows["difference"], rows.index + shift, markerfacecolor="white", **marks)
        decided = rows[rows["winner"] != ""]
        axis.plot(decided["difference"], decided.index + shift, **marks | {"label": None})
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(yticks=range(len(found)), yticklabels=[*found], xlabel=f"difference in rsum to {against}")
    axis.set_ylim(len(found) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -1.02 * frame), min(high, 1.02 * frame))
    legend(figure, columns=2)
    return figure, values


def _frame(values: pd.DataFrame) -> float:
    """How far from 0 intervals are drawn: no limit, unless one row's is more than twice as wide as all others."""
    ends = values.set_index("compared")[["low", "high"]].abs().max(axis=1).groupby(level=0).max().sort_values()
    inner = 1.2 * max(ends.iloc[-2:-1].max(), values["difference"].abs().max())
    return inner if ends.iloc[-1] > 2 * inner else np.inf


@styled
def rsum_by_seed(groups: Mapping[str, Sequence[Run]], joined: bool = False) -> tuple[Figure, pd.DataFrame]:
    """Draw the rsum of every run, a row a group, and the mean of each; joined: join the runs of one seed.

    Returns the values, a row a group and a column a seed.
    """
    values = pd.DataFrame({name: {run.seed: run.rsum for run in runs} for name, runs in groups.items()}).T
    figure, [axis] = panels(1, columns=1, width=7, height=0.3 * len(groups) + 1.1)
    places = range(len(groups))
    for seed, of_seed in values.items():
        line = "-" if joined else ""
        look: dict[str, Any] = {"color": "#0072B2", "linewidth": 0.8, "marker": "o", "markersize": 4, "alpha": 0.7}
        axis.plot(of_seed, places, linestyle=line, label="a seed" if seed == values.columns[0] else None, **look)
    axis.plot(values.mean(axis=1), places, "|", color="black", markersize=14, markeredgewidth=2, label="mean")
    axis.set(yticks=places, yticklabels=[*groups], xlabel=f"{next(iter(groups.values()))[0].results['split']} rsum")
    axis.invert_yaxis()
    legend(figure, columns=2)
    return figure, values


@styled
def score_levels(groups: Mapping[str, Sequence[Run]], zones: Sequence[Zone] = ()) -> tuple[Figure, pd.DataFrame]:
    """Draw where the scores of trainings end: a row a group, in it a line a seed.

    A line goes from the mean score of the hardest negatives to that of the positives, in the batches of the last epoch.
    zones: of `weighting.describe`; those of negatives that are not moved the right way are shaded. Returns both scores,
    a row for each group and seed.
    """
    columns = {"hardest negatives": "hardest_negative_score", "positives": "positive_score"}
    ends_of = {
        (group, run.seed): run.last_epoch()[[*columns.values()]].mean()
        for group, runs in groups.items()
        for run in runs
    }
    levels = pd.DataFrame(ends_of, index=pd.Index(columns.values())).T.rename_axis(["group", "seed"])
    levels.columns = pd.Index(columns)
    figure, [axis] = panels(1, columns=1, width=7, height=0.085 * len(levels) + 0.12 * len(groups) + 1.2)
    row, middles = 0.0, []
    for group in groups:
        ends = levels.loc[group]
        places = [row + number for number in range(len(ends))]
        axis.hlines(places, *(ends[name] for name in columns), color="#999999", linestyle="-", linewidth=1)
        for name, look in zip(columns, ("negative", "positive"), strict=True):
            marker: dict[str, Any] = {"marker": "s" if look == "negative" else "o", "markersize": 3.5, "linestyle": ""}
            label = name if group == next(iter(groups)) else None
            axis.plot(ends[name], places, color=PAIR_LOOK[look]["color"], label=label, **marker)
        middles.append(sum(places) / len(places))
        row = places[-1] + 2.5
    lowest, highest = levels.min().min(), levels.max().max()
    axis.set(
        yticks=middles, yticklabels=[*groups], xlabel="mean score in the batches of the last epoch",
        ylim=(row - 1.0, -1.5),
    )  # fmt: skip
    shade(axis, zones, "negative", (min(lowest, 0.0) - 0.1, highest + 0.1) if zones else axis.get_xlim())
    legend(figure, columns=4)
    return figure, levels


def _records(kind: Literal["step", "epoch"], groups: Mapping[str, Sequence[Run]], group: str = "loss") -> pd.DataFrame:
    """Return what the runs wrote after every step or epoch, with their seed and, under `group`, their group's name."""
    every = [(name, run) for name, runs in groups.items() for run in runs]
    histories = [run.history().assign(**{group: name, "seed": run.seed}) for name, run in every]
    return pd.concat(histories, ignore_index=True).query("kind == @kind")


def _mark_warmup(axis: plt.Axes, run: Run) -> None:
    if epochs := run.config.warmup_epochs:
        axis.axvspan(0, epochs, color="#000000", alpha=0.05, linewidth=0)
        axis.text(0, 0.02, " warm-up", fontsize=8, transform=axis.get_xaxis_transform())
