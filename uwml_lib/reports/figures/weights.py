"""Figures of pair weights."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from uwml_lib.reports.figures.style import LOOK, OTHER_LOOKS, PAIR_LOOK, _panels, _styled
from uwml_lib.weighting.weights import pair_weights


@_styled
def weight_curves(
    curves: dict[str, dict[str, pd.DataFrame]],
    scores: dict[str, np.ndarray] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> tuple[Figure, dict[str, dict[str, pd.DataFrame]]]:
    """Draw the weight of a pair against its similarity: a panel for positives, a panel for negatives.

    curves: loss -> {"positive": ..., "negative": ...}, frames of `weighting.weight_curve`, with a column `closed_form`
    drawn as dots if there is one. scores: "positive" and "negative" scores of a trained model, drawn as a histogram
    under the curves. limits: of the similarity axis.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.1), sharey=True)
    looks = {name: LOOK.get(name, OTHER_LOOKS[place % len(OTHER_LOOKS)]) for place, name in enumerate(curves)}
    bottom, top = [], []
    for axis, kind in zip(axes, ("positive", "negative"), strict=True):
        for loss, frames in curves.items():
            frame, look = frames[kind], {**looks[loss], "marker": ""}
            axis.plot(frame["similarity"], frame["weight"], label=f"{loss}, autograd", **look)
            if "closed_form" in frame:
                few = frame.iloc[::10]
                dots = {"linestyle": "", "marker": looks[loss]["marker"], "markersize": 5, "markerfacecolor": "none"}
                axis.plot(
                    few["similarity"], few["closed_form"], color=look["color"], label=f"{loss}, closed form", **dots
                )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{kind} pair", xlabel="similarity of the pair", xlim=limits)
        if scores is not None:
            below = axis.twinx()
            below.hist(scores[kind], bins=40, range=limits, color="#777777", alpha=0.35, density=True)
            below.set(yticks=[], ylim=(0, 3 * below.get_ylim()[1]))
            below.grid(False)
        seen = [frame[kind].loc[frame[kind]["similarity"].between(*limits), "weight"] for frame in curves.values()]
        bottom.append(min(0, *(weights.min() for weights in seen)))
        top.append(max(0, *(weights.max() for weights in seen)))
    axes[0].set_ylabel("weight (below 0: pushed the wrong way)")
    axes[0].set_ylim(min(bottom) - 0.1, max(top) + 0.1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure, curves


@_styled
def weight_gallery(
    curves: dict[str, dict[str, pd.DataFrame]], columns: int = 4
) -> tuple[Figure, dict[str, dict[str, pd.DataFrame]]]:
    """Draw a small panel for every loss, all on the same axes: the weight of a positive and of a negative pair.

    curves: as in `weight_curves`. The weight axis is linear up to 1 and logarithmic beyond.
    """
    figure, axes = _panels(len(curves), columns, width=2.6, height=2.2)
    for axis, (loss, frames) in zip(axes, curves.items(), strict=False):
        for kind, look in PAIR_LOOK.items():
            axis.plot(frames[kind]["similarity"], frames[kind]["weight"], label=f"{kind} pair", **look)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_yscale("symlog", linthresh=1, linscale=1.5)
        axis.set_title(loss, fontsize=9)
    figure.supxlabel("similarity of the pair", fontsize=10)
    figure.supylabel("weight (below 0: the wrong way)", fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, curves


@_styled
def weight_maps(
    maps: dict[str, pd.DataFrame], kind: str = "negative", columns: int = 4
) -> tuple[Figure, dict[str, pd.DataFrame]]:
    """Draw a loss's weight of a positive or negative pair (`kind`) over both similarities: a panel a loss.

    maps: loss -> a frame of `weighting.weight_map`. Colours go from each loss's own largest weight (blue) over zero
    (white) to weights of the wrong sign (red); a line marks where both similarities are equal.
    """
    figure, axes = _panels(len(maps), columns, width=2.5, height=2.4)
    for axis, (loss, frame) in zip(axes, maps.items(), strict=False):
        table = frame.pivot(index="negative", columns="positive", values=f"{kind}_weight")
        largest = max(table.abs().to_numpy().max(), 1e-12)
        axis.pcolormesh(
            table.columns,
            table.index,
            table / largest,
            cmap="RdBu",
            vmin=-1,
            vmax=1,
            shading="nearest",
            rasterized=True,
        )
        axis.plot([-1, 1], [-1, 1], color="black", linewidth=0.7, linestyle=":")
        axis.set_title(f"{loss}, up to {largest:.3g}", fontsize=8)
        axis.grid(False)
    figure.supxlabel("similarity of the positive", fontsize=10)
    figure.supylabel("similarity of its negative", fontsize=10)
    return figure, maps


@_styled
def batch_weights(
    loss: Callable[..., Any], scores: Any, curves: dict[str, pd.DataFrame]
) -> tuple[Figure, pd.DataFrame]:
    """Draw a loss's weight curves and, as dots on top, the weights it gives the pairs of a batch of scores (n, n).

    curves: "positive" and "negative", frames of `weighting.weight_curve`. Negatives without weight are left out.
    """
    weights = pair_weights(loss, scores)
    pushed = weights.negative != 0
    dots = {
        "positive": (scores.diagonal(), weights.positive),
        "negative": (scores[pushed], weights.negative[pushed]),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6))
    for axis, (kind, (similarity, weight)) in zip(axes, dots.items(), strict=True):
        axis.plot(curves[kind]["similarity"], curves[kind]["weight"], label="one anchor alone", **PAIR_LOOK[kind])
        axis.plot(similarity, weight, ".", color="black", alpha=0.6, label="pairs of the batch")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{kind} pairs", xlabel="similarity of the pair", ylabel="weight", xlim=(-1, 1))
        axis.legend(fontsize=8)
    frames = [
        pd.DataFrame({"pair": kind, "similarity": similarity, "weight": weight})
        for kind, (similarity, weight) in dots.items()
    ]
    return figure, pd.concat(frames, ignore_index=True)


@_styled
def mass_by_rank(masses: dict[str, pd.DataFrame]) -> tuple[Figure, pd.DataFrame]:
    """Draw, loss by loss, how the weight of a batch's negatives is shared between hard and easy ones.

    masses: loss -> a frame of `weighting.negative_mass`.
    """
    edges, names = [0, 1, 5, 20, np.inf], ["hardest", "2nd to 5th", "6th to 20th", "the rest"]
    table = pd.DataFrame({
        loss: frame.groupby(pd.cut(frame["rank"], edges, labels=names), observed=False)["share"].sum()
        for loss, frame in masses.items()
    }).T  # fmt: skip
    table = 100 * table.div(table.sum(axis=1).replace(0, np.nan), axis=0)
    figure, axis = plt.subplots(figsize=(7.5, 0.32 * len(table) + 1.2))
    left = np.zeros(len(table))
    for name, colour, hatch in zip(
        names, ("#08306b", "#2171b5", "#6baed6", "#deebf7"), ("", "//", "..", ""), strict=True
    ):
        axis.barh(table.index, table[name], left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left = left + table[name].fillna(0).to_numpy()
    axis.invert_yaxis()
    axis.set(xlabel="share of the negatives' weight, %", xlim=(0, 100))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    return figure, table
