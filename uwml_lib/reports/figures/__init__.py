"""The figures of notebooks and reports, and their look; every function returns the figure and the data it drew."""

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from uwml_lib.support.lazy import names_of

__getattr__ = names_of(
    __name__,
    {
        "attention": ("attention_maps", "lambda_curves"),
        "pictures": ("attention_by_word", "filmstrips", "pictures_with_boxes", "retrieval_examples", "scored_pairs"),
        "trainings": (
            "caption_lengths", "collapse_curves", "convergence", "intervals", "models_compared", "recall_curves",
            "rsum_by_seed", "score_curves", "score_histograms", "score_levels",
        ),
        "weights": (
            "batch_weights", "mass_by_rank", "score_paths", "score_ranges", "scores_of_models", "weight_card",
            "weight_curves", "weight_gallery", "weight_maps",
        ),
    },
)  # fmt: skip

STYLE = Path(__file__).parent / "style.mplstyle"
# Colours of Okabe and Ito, which colour-blind readers can tell apart; line styles and markers for those who print.
LOOK: dict[str, dict[str, Any]] = {
    "triplet": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "polynomial": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}
OTHER_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "linestyle": "-", "marker": "^"},
    {"color": "#009E73", "linestyle": "--", "marker": "v"},
    {"color": "#CC79A7", "linestyle": "-.", "marker": "D"},
    {"color": "#E69F00", "linestyle": ":", "marker": "P"},
)
PAIR_LOOK: dict[str, dict[str, Any]] = {
    "positive": {"color": "#009E73", "linestyle": "-"},
    "negative": {"color": "#CC3311", "linestyle": "--"},
}

styled = plt.style.context(STYLE)
"""Decorator: the function draws in the look of `style.mplstyle`."""


@styled
def show(figure: Figure, alt: str, path: Path | None = None) -> None:
    """Show a figure in a notebook with a text for those who cannot see it, and keep it as a PNG file at `path`."""
    from IPython.display import Image, display

    shown: Any = figure
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        finer = plt.rcParams["savefig.dpi"] / plt.rcParams["figure.dpi"]
        shown = Image(filename=path, width=round(plt.imread(path).shape[1] / finer))  # drawn once: layout takes long
    display(shown, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> colour, line style and marker: those of `LOOK`, or else the next of `OTHER_LOOKS`."""
    others = cycle(OTHER_LOOKS)
    return {name: LOOK.get(name) or next(others) for name in names}


def panels(count: int, columns: int, width: float, height: float, share: bool = True) -> tuple[Figure, list[plt.Axes]]:
    """Make `count` panels of a size in inches, at most `columns` in a row, on the same axes if `share`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=share, sharey=share, squeeze=False)
    for axis in axes.flat[count:]:
        axis.remove()
    shown = list(axes.flat[:count])
    for axis in shown[-columns:]:  # those at the bottom, or above a place that is empty
        axis.tick_params(labelbottom=True)
    return figure, shown


def legend(figure: Figure, columns: int, side: str = "upper") -> None:
    """Put one legend for all panels above ("upper") or below them ("lower"), instead of those that are there."""
    labels: dict[str, Any] = {}
    for axis in figure.axes:
        labels |= {label: line for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    for old in (*figure.legends, *filter(None, (axis.get_legend() for axis in figure.axes))):
        old.remove()
    place: Any = f"outside {side} center"
    figure.legend(labels.values(), labels.keys(), loc=place, ncols=columns)
