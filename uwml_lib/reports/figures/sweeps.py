"""Figures of sweeps."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from uwml_lib.reports.figures.style import styled

SWEEP_LOOK: dict[bool, dict[str, Any]] = {
    False: {"marker": "o", "markersize": 6, "markerfacecolor": "white", "label": "a setting, ± std over seeds"},
    True: {"marker": "*", "markersize": 14, "markerfacecolor": "black", "label": "the chosen one"},
}


@styled
def sweep_panels(
    settings: pd.DataFrame, names: Sequence[str], label: str, columns: int = 3
) -> tuple[Figure, pd.DataFrame]:
    """Draw what was reached against every setting that was varied: a panel a name, a ring a setting of the sweep.

    settings: a row a setting, with its values under `names`, the mean over seeds and its std (NaN for one seed), which
    is the error bar, and whether it was chosen, which makes the ring a star. label: of the mean. Numbers lie where they
    belong, on a logarithmic axis if they span more than a factor of 20; other values stand side by side, and so do the
    settings of one such value. Returns a row a point.
    """
    rows = -(-len(names) // columns)
    across = min(columns, len(names))
    figure, axes = plt.subplots(rows, across, figsize=(3.4 * across, 3.1 * rows), sharey=True, squeeze=False)
    drawn = []
    for axis, name in zip(axes.flat, names, strict=False):
        points = settings.sort_values("setting")[["setting", "mean", "std", "chosen", name]]
        points = points.assign(name=name, value=points[name].map(json.dumps))
        if all(type(value) in (int, float) for value in settings[name]):
            points["x"] = settings[name].astype(float)
            if points["x"].min() > 0 and points["x"].max() > 20 * points["x"].min():
                axis.set_xscale("log")
        else:
            places = {value: place for place, value in enumerate(points["value"].unique())}
            same = points.groupby("value")["value"]
            beside = (same.cumcount() + 0.5) / same.transform("size") - 0.5
            points["x"] = points["value"].map(places) + 0.6 * beside
            axis.set_xticks(list(places.values()), [textwrap.shorten(value, 22) for value in places], fontsize=8)
            axis.set_xlim(-0.5, len(places) - 0.5)
        axis.errorbar(points["x"], points["mean"], points["std"], fmt="none", ecolor="#777777", elinewidth=1, capsize=3)
        for chosen, look in SWEEP_LOOK.items():
            part = points[points["chosen"] == chosen]
            axis.plot(part["x"], part["mean"], linestyle="", markeredgecolor="black", zorder=3, **look)
        axis.set_xlabel(name)
        drawn.append(points)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for row in axes:
        row[0].set_ylabel(label)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, pd.concat(drawn, ignore_index=True)[["name", "setting", "value", "x", "mean", "std", "chosen"]]
