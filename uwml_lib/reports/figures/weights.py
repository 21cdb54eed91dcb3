"""Figures of pair weights; they need neither runs nor seaborn, which loads scipy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch import Tensor

from uwml_lib.reports.figures import PAIR_LOOK, legend, looks, panels, styled
from uwml_lib.reports.figures.zones import shade
from uwml_lib.weighting.coefficients import Zone
from uwml_lib.weighting.weights import pair_weights

Curves = dict[str, pd.DataFrame]
"""Under "positive" and "negative", frames of `weighting.weight_curve`, as `weighting.anchor_curves` returns them."""
NOISE = 1e-9
"""Weights this close to zero count as zero."""
CARD = (-4.0, 500.0)
"""The weight axis of every card."""
TICKS = (-1.0, 0.0, 0.5, 1.0, 10.0, 100.0)
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@styled
def weight_curves(
    curves: dict[str, Curves],
    scores: dict[str, np.ndarray] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
    zones: Iterable[Zone] = (),
) -> tuple[Figure, dict[str, Curves]]:
    """Draw the weight of a pair against its similarity: a panel for positives, a panel for negatives.

    curves: loss -> its curves; a column `closed_form` is drawn as markers if there is one. scores: "positive" and
    "negative" scores of a trained model, drawn as a histogram under the curves. limits: of the similarity axis. zones:
    of `weighting.describe`; where pairs are not moved, or moved the wrong way, the panel is shaded.
    """
    figure, axes = panels(2, columns=2, width=4.75, height=4.1)
    formulas = False
    for axis, kind in zip(axes, PAIR_LOOK, strict=True):
        for loss, look in looks(curves).items():
            frame = curves[loss][kind].query("@limits[0] <= similarity <= @limits[1]")
            axis.plot(frame["similarity"], frame["weight"], label=f"_{loss}, autograd", **look | {"marker": ""})
            marked = look | {"markersize": 5, "markerfacecolor": "none"}
            if "closed_form" in frame:
                formulas = True
                dots = marked | {"linestyle": "", "clip_on": False}
                axis.plot("similarity", "closed_form", data=frame[::10], label=f"_{loss}, closed form", **dots)
            axis.plot([], [], label=loss, **marked if "closed_form" in frame else look | {"marker": ""})
        shade(axis, zones, kind, limits)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{kind} pairs", xlabel="similarity of the pair", xlim=limits)
        axis.locator_params("x", nbins=5)
        if scores is not None:
            below = axis.twinx()
            below.hist(scores[kind], bins=40, range=limits, color="#777777", alpha=0.35, label="scores of a model")
            below.set(yticks=[], ylim=(0, 3 * below.get_ylim()[1]))
    axes[0].set_ylabel(_weight_label(*(axis.dataLim.ymin for axis in axes)))
    legend(figure, 3, "lower")
    if formulas:
        figure.legends[0].set_title("lines: automatic differentiation; markers: closed form")
    return figure, curves


@styled
def batch_weights(loss: Callable[..., Tensor], scores: Tensor, curves: Curves) -> tuple[Figure, pd.DataFrame]:
    """Draw a loss's weight curves and, as dots on top, the weights it gives the pairs of a batch of scores (n, n).

    Negatives without weight are left out. Returns a row for every dot.
    """
    weights = pair_weights(loss, scores)
    pushed = weights.negative != 0
    dots = {"positive": (scores.diagonal(), weights.positive), "negative": (scores[pushed], weights.negative[pushed])}
    alone = {kind: frame[["similarity", "weight"]] for kind, frame in curves.items()}
    figure, _ = weight_curves({"one anchor alone": alone})
    look = PAIR_LOOK["negative"] | {"linestyle": "", "marker": "o", "markersize": 4, "alpha": 0.6}
    for axis, pairs in zip(figure.axes, dots.values(), strict=True):
        axis.plot(*pairs, label="pairs of the batch", **look)
    figure.axes[0].set_ylabel(_weight_label(*(axis.dataLim.ymin for axis in figure.axes)))
    legend(figure, columns=2, side="lower")
    frames = [pd.DataFrame({"pair": kind, "similarity": x, "weight": y}) for kind, (x, y) in dots.items()]
    return figure, pd.concat(frames, ignore_index=True)


@styled
def weight_gallery(curves: dict[str, Curves], columns: int = 4) -> tuple[Figure, dict[str, Curves]]:
    """Draw the weights of positives and negatives, a small panel a loss, all on the same axes, logarithmic beyond 1."""
    figure, axes = panels(len(curves), columns, width=2.6, height=2.2)
    for axis, (loss, frames) in zip(axes, curves.items(), strict=True):
        for kind, look in PAIR_LOOK.items():
            axis.plot(frames[kind]["similarity"], frames[kind]["weight"], label=f"{kind} pair", **look)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_yscale("symlog", linthresh=1, linscale=1.5)
        axis.set_title(loss, fontsize=9)
    figure.supxlabel("similarity of the pair")
    figure.supylabel(_weight_label(*(axis.dataLim.ymin for axis in axes)))
    legend(figure, columns=2)
    return figure, curves


@styled
def weight_card(name: str, curves: dict[str, Curves]) -> tuple[Figure, dict[str, Curves]]:
    """Draw one loss's weights of a positive and of a negative, on the same axes as every other card.

    curves: how the other pair was held -> curves, at most four. Both axes are the same for all losses: similarities
    from -1 to 1, weights from -4 to 500, linearly up to 1 and logarithmically beyond.
    """
    figure, axes = panels(2, columns=2, width=3.6, height=2.7)
    for axis, kind in zip(axes, PAIR_LOOK, strict=True):
        for (held, frames), line in zip(curves.items(), ("-", "--", ":", "-."), strict=False):
            colour = "black" if line == "-" else PAIR_LOOK["negative"]["color"]
            axis.plot(frames[kind]["similarity"], frames[kind]["weight"], label=held, color=colour, linestyle=line)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_yscale("symlog", linthresh=1, linscale=2)
        axis.set(title=f"{kind} pair", xlabel=f"similarity of the {kind}", xlim=(-1, 1), ylim=CARD)
        axis.set_yticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
        axis.minorticks_off()
    axes[0].set_ylabel(_weight_label(*(axis.dataLim.ymin for axis in axes)))
    figure.suptitle(name)
    legend(figure, columns=2, side="lower")
    return figure, curves


@styled
def weight_maps(maps: dict[str, pd.DataFrame], kind: str = "negative") -> tuple[Figure, dict[str, pd.DataFrame]]:
    """Draw the weight of a positive or negative pair (`kind`) over both similarities: a panel a loss, one colour scale.

    maps: loss -> a frame of `weighting.weight_map`. Colours go from blue over white (zero) to red and dotted (below
    zero), linearly up to 1 and logarithmically beyond, and mean the same for both kinds; a line marks where both
    similarities are equal.
    """
    tables = {loss: frame.pivot(index="negative", columns="positive")[f"{kind}_weight"] for loss, frame in maps.items()}
    lowest = min(0.0, *(table.min(axis=None) for table in tables.values()))
    highest = max(NOISE, *(table.max(axis=None) for table in tables.values()))
    every = pd.concat(maps)[["positive_weight", "negative_weight"]].abs().max(axis=None)
    scale = SymLogNorm(1, linscale=2, vmin=-max(NOISE, every), vmax=max(NOISE, every))
    figure, axes = panels(len(maps), columns=4, width=2.5, height=2.4)
    figure.set_figwidth(figure.get_figwidth() + 1)  # for the bar
    for axis, (loss, table) in zip(axes, tables.items(), strict=True):
        places = table.columns, table.index, table
        colours = axis.pcolormesh(*places, norm=scale, cmap="RdBu", rasterized=True)
        if table.min(axis=None) < -NOISE:
            axis.contourf(*places, levels=[-np.inf, -NOISE], colors="none", hatches=["...."])
        axis.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle=":")
        axis.set_title(loss, fontsize=9)
    figure.supxlabel("similarity of the positive")
    figure.supylabel("similarity of its negative")
    bar = figure.colorbar(colours, ax=axes, aspect=40, label=_weight_label(lowest))
    bar.set_ticks(TICKS, labels=[f"{tick:g}" for tick in TICKS], minor=False)
    bar.ax.minorticks_off()
    bar.ax.axhspan(lowest, 0, fill=False, linewidth=0, hatch="....")
    bar.ax.set_ylim(lowest, highest)
    return figure, maps


@styled
def mass_by_rank(masses: dict[str, pd.DataFrame]) -> tuple[Figure, pd.DataFrame]:
    """Draw, loss by loss, how the weight of a batch's negatives is shared between hard and easy ones.

    masses: loss -> a frame of `weighting.negative_mass`. Returns percentages, a row a loss.
    """
    edges, names = [0, 1, 5, 20, np.inf], ["hardest", "2nd to 5th", "6th to 20th", "the rest"]
    table = pd.DataFrame({
        loss: frame.groupby(pd.cut(frame["rank"], edges, labels=names), observed=False)["share"].sum()
        for loss, frame in masses.items()
    }).T  # fmt: skip
    table = 100 * table.div(table.sum(axis=1).replace(0, np.nan), axis=0)
    figure, [axis] = panels(1, columns=1, width=7.5, height=0.32 * len(table) + 1.2)
    colours = ["#08306b", "#2171b5", "#6baed6", "#deebf7"]
    table.plot.barh(stacked=True, ax=axis, color=colours, edgecolor="white", width=0.8)
    for bars, hatch in zip(axis.containers, ("", "//", "..", ""), strict=True):
        plt.setp(bars, hatch=hatch)
    axis.invert_yaxis()
    axis.set(xlabel="share of the negatives' weight, %", ylabel="loss", xlim=(0, 100))
    legend(figure, columns=4)
    return figure, table


def scores_of_models(
    scores: dict[str, dict[str, np.ndarray]], zones: Iterable[Zone] = ()
) -> tuple[Figure, pd.DataFrame]:
    """Draw where the scores of some models lie, a row a model: positives, and the hardest negative of each image.

    scores: model -> "positive" and "negative" scores. zones: of `weighting.describe`, shaded for negatives. Returns
    the quantiles drawn, a row for each model and kind: thin lines from 0.01 to 0.99, thick ones from 0.25 to 0.75.
    """
    return score_ranges({
        model: {kind: np.quantile(found, QUANTILES) for kind, found in kinds.items()} for model, kinds in scores.items()
    }, zones)  # fmt: skip


@styled
def score_ranges(
    quantiles: Mapping[str, Mapping[str, Sequence[float]]], zones: Iterable[Zone] = ()
) -> tuple[Figure, pd.DataFrame]:
    """Draw what `scores_of_models` does. quantiles: model -> "positive" and "negative" -> theirs at `QUANTILES`."""
    figure, [axis] = panels(1, columns=1, width=8.5, height=0.34 * len(quantiles) + 1.6)
    rows = {}
    for row, (model, kinds) in enumerate(quantiles.items()):
        for kind, shift in {"positive": -0.16, "negative": 0.16}.items():
            low, left, middle, right, high = of = kinds[kind]
            rows[model, kind], colour = of, PAIR_LOOK[kind]["color"]
            axis.plot([low, high], [row + shift] * 2, color=colour, linewidth=1)
            axis.plot([left, right], [row + shift] * 2, color=colour, linewidth=4, solid_capstyle="butt")
            label = {"positive": "positives", "negative": "hardest negatives"}[kind] if row == 0 else None
            marker, filled = ("o", "black") if kind == "positive" else ("s", "white")
            look: dict[str, Any] = {"color": "black", "markerfacecolor": filled, "zorder": 3}
            axis.plot(middle, row + shift, label=label, linestyle="", marker=marker, **look)
    shade(axis, zones, "negative", axis.get_xlim())
    axis.set(xlabel="similarity of the pair", ylabel="trained model", yticks=range(len(quantiles)))
    axis.set_yticklabels(list(quantiles))
    axis.set_ylim(len(quantiles) - 0.5, -0.5)  # the first on top
    axis.grid(axis="y", visible=False)
    legend(figure, columns=2, side="lower")
    return figure, pd.DataFrame(rows, index=[f"{q:g}" for q in QUANTILES]).T


@styled
def score_paths(paths: dict[str, pd.DataFrame], zones: Iterable[Zone] = ()) -> tuple[Figure, dict[str, pd.DataFrame]]:
    """Draw how scores move under gradient steps: a panel a start, on the same axes.

    paths: start -> a frame with the columns positive and hardest_negative (means), a row a step. zones: of
    `weighting.describe`, shaded for negatives.
    """
    figure, axes = panels(len(paths), columns=3, width=3.2, height=3.1)
    for axis, (start, frame) in zip(axes, paths.items(), strict=True):
        for kind, column in {"positive": "positive", "negative": "hardest_negative"}.items():
            label = column.replace("_", " ") + "s, mean"
            axis.plot(range(len(frame)), frame[column], label=label, **PAIR_LOOK[kind])
        axis.set_title(start)
    for axis in axes:
        shade(axis, zones, "negative", axis.get_ylim(), of="y")
    figure.supxlabel("gradient step")
    figure.supylabel("score")
    legend(figure, columns=2)
    return figure, paths


def _weight_label(*lowest: float) -> str:
    return "weight\n(below 0: the wrong way)" if min(lowest) < -NOISE else "weight"
