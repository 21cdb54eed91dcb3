"""Figures of cross attention: its weights as maps, and what lambda does to them."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from uwml_lib.reports.figures import legend, looks, panels, styled

LARGEST_WORDS = 24
"""Words, or regions, that an axis has room to name."""


@styled
def attention_maps(
    maps: Mapping[str, pd.DataFrame], highest: float | None = None
) -> tuple[Figure, Mapping[str, pd.DataFrame]]:
    """Draw attention weights as maps, a panel each, on one colour scale with a bar.

    maps: title -> weights (regions, words) in 0..1, whose index and columns name the regions and the words; words may
    stand twice. highest: the scale's end, None for the largest weight that is drawn. The scale goes with the square
    root of the weight, so that small ones can be told from none. Axes that are too long have no names.
    """
    n_regions, n_words = next(iter(maps.values())).shape
    width, height = max(2.2, 0.24 * min(n_words, LARGEST_WORDS)), max(2.4, 0.2 * min(n_regions, LARGEST_WORDS) + 0.9)
    scale = PowerNorm(0.5, 0, highest or max(weights.max(axis=None) for weights in maps.values()))
    figure, axes = panels(len(maps), columns=2, width=width, height=height)
    figure.set_figwidth(figure.get_figwidth() + 1)  # for the bar
    for axis, (title, weights) in zip(axes, maps.items(), strict=True):
        colours = axis.imshow(weights, norm=scale, cmap="Greys", aspect="auto")
        axis.grid(visible=False)
        axis.set_title(title, fontsize=10)
        if n_words <= LARGEST_WORDS:
            axis.set_xticks(range(n_words), weights.columns, rotation=90, fontsize=8, parse_math=False)
        if n_regions <= LARGEST_WORDS:
            axis.set_yticks(range(n_regions), weights.index, fontsize=8)
    figure.supxlabel("word")
    figure.supylabel("region")
    figure.colorbar(colours, ax=axes, label="attention weight")
    return figure, maps


@styled
def lambda_curves(curves: pd.DataFrame, marked: float) -> tuple[Figure, pd.DataFrame]:
    """Draw score and entropy of the attention against lambda, a line a pair, with a thin line at the lambda in use.

    curves: a row for every pair and lambda above 0, with the columns pair, lambda, score and entropy (in bits).
    """
    figure, axes = panels(2, columns=2, width=4.2, height=3.4, share=False)
    labels = {"score": "score of the pair", "entropy": "entropy of the attention, bits"}
    look = looks(curves["pair"].unique())
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for pair, line in curves.groupby("pair", sort=False):
            axis.plot(line["lambda"], line[column], label=pair, markersize=4, **look[str(pair)])
        axis.axvline(marked, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set(xlabel="λ", ylabel=label)
    legend(figure, columns=2, side="lower")
    return figure, curves
