"""Where a loss does not move pairs, or moves them the wrong way, as shades behind what a figure draws."""

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes

from uwml_lib.weighting.coefficients import NOTHING, WRONG_WAY, Zone

ZONE_LOOK: dict[str, tuple[str, dict[str, Any]]] = {
    NOTHING: ("dead zone: {}s are not moved", {"facecolor": "#d9d9d9"}),
    WRONG_WAY: (
        "{}s are moved the wrong way", {"facecolor": "#fbe6df", "edgecolor": "#a08078", "hatch": "..."}
    ),
}  # fmt: skip
"""Effect of a zone -> its name in a legend, and its look."""


def shade(axis: Axes, zones: Iterable[Zone], kind: str, limits: tuple[float, float], of: str = "x") -> None:
    """Shade the zones in which pairs of a kind are not moved, or moved the wrong way, along an axis; name them."""
    for zone in zones:
        low, high = max(zone.low, limits[0]), min(zone.high, limits[1])
        if zone.pair == kind and zone.effect in ZONE_LOOK and low < high:
            name, look = ZONE_LOOK[zone.effect]
            span = axis.axvspan if of == "x" else axis.axhspan
            span(low, high, label=name.format(kind), linewidth=0, zorder=0, **look)
    (axis.set_xlim if of == "x" else axis.set_ylim)(limits)
