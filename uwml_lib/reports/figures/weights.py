"""Figures of pair weights; they need neither runs nor seaborn, which loads scipy."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch import Tensor

from uwml_lib.reports.figures import PAIR_LOOK, legend, looks, panels, styled
from uwml_lib.weighting.weights import pair_weights

Curves = dict[str, pd.DataFrame]
"""Under "positive" and "negative", frames of `weighting.weight_curve`, as `weighting.anchor_curves` returns them."""
NOISE = 1e-9
"""Weights this close to zero count as zero."""


@styled
def weight_curves(
    curves: dict[str, Curves], scores: dict[str, np.ndarray] | None = None, limits: tuple[float, float] = (-1.0, 1.0)
) -> tuple[Figure, dict[str, Curves]]:
    """Draw the weight of a pair against its similarity: a panel for positives, a panel for negatives.

    curves: loss -> its curves; a column `closed_form` is drawn as dots if there is one. scores: "positive" and
    "negative" scores of a trained model, drawn as a histogram under the curves. limits: of the similarity axis.
    """
    figure, axes = panels(2, columns=2, width=4.75, height=4.1)
    for axis, kind in zip(axes, PAIR_LOOK, strict=True):
        for loss, look in looks(curves).items():
            frame = curves[loss][kind].query("@limits[0] <= similarity <= @limits[1]")
            label = f"{loss}, autograd" if "closed_form" in frame else loss
            axis.plot(frame["similarity"], frame["weight"], label=label, **look | {"marker": ""})
            if "closed_form" in frame:
                dots = look | {"linestyle": "", "markersize": 5, "markerfacecolor": "none", "clip_on": False}
                axis.plot("similarity", "closed_form", data=frame[::10], label=f"{loss}, closed form", **dots)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{kind} pairs", xlabel="similarity of the pair", xlim=limits)
        axis.locator_params("x", nbins=5)
        if scores is not None:
            below = axis.twinx()
            below.hist(scores[kind], bins=40, range=limits, color="#777777", alpha=0.35, label="scores of a model")
            below.set(yticks=[], ylim=(0, 3 * below.get_ylim()[1]))
    axes[0].set_ylabel(_weight_label(*(axis.dataLim.ymin for axis in axes)))
    legend(figure, len(curves) + (scores is not None), "lower")
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
def weight_maps(maps: dict[str, pd.DataFrame], kind: str = "negative") -> tuple[Figure, dict[str, pd.DataFrame]]:
    """Draw the weight of a positive or negative pair (`kind`) over both similarities: a panel a loss, one colour scale.

    maps: loss -> a frame of `weighting.weight_map`. Colours go from blue over white (zero) to red and dotted (below
    zero), linearly up to 1 and logarithmically beyond; a line marks where both similarities are equal.
    """
    tables = {loss: frame.pivot(index="negative", columns="positive")[f"{kind}_weight"] for loss, frame in maps.items()}
    lowest = min(0.0, *(table.min(axis=None) for table in tables.values()))
    highest = max(NOISE, *(table.max(axis=None) for table in tables.values()))
    scale = SymLogNorm(1, linscale=2, vmin=-max(highest, -lowest), vmax=max(highest, -lowest))
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


def _weight_label(*lowest: float) -> str:
    return "weight\n(below 0: the wrong way)" if min(lowest) < -NOISE else "weight"
