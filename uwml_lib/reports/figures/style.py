"""The look that all figures share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

STYLE = Path(__file__).parent / "style.mplstyle"
# Colours of Okabe and Ito, which colour-blind readers can tell apart; line styles for those who print.
LOOK: dict[str, dict[str, Any]] = {
    "triplet": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "polynomial": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}

OTHER_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "linestyle": "-", "marker": "^"},
    {"color": "#009E73", "linestyle": "--", "marker": "v"},
    {"color": "#CC79A7", "linestyle": "-.", "marker": "D"},
    {"color": "#E69F00", "linestyle": ":", "marker": "x"},
)
PAIR_LOOK: dict[str, dict[str, Any]] = {
    "positive": {"color": "#009E73", "linestyle": "-"},
    "negative": {"color": "#CC3311", "linestyle": "--"},
}


def _styled(draw: Callable[..., tuple[Figure, Any]]) -> Callable[..., tuple[Figure, Any]]:
    @functools.wraps(draw)
    def styled(*arguments: Any, **options: Any) -> tuple[Figure, Any]:
        with plt.style.context(STYLE):
            return draw(*arguments, **options)

    return styled


def show(figure: Figure, alt: str, path: Path | None = None) -> None:
    """Show a figure in a notebook with a text for those who cannot see it, and keep it as a PNG file at `path`."""
    from IPython.display import display  # figures are drawn without it

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def _panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[plt.Axes]]:
    """Small multiples on shared axes; places left over are empty."""
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, list(axes.flat)


def _look(loss: str) -> dict[str, Any]:
    if loss in LOOK:
        return LOOK[loss]
    palette = sns.color_palette("colorblind")
    return {"color": palette[sum(map(ord, loss)) % len(palette)], "linestyle": "-.", "marker": "^"}
