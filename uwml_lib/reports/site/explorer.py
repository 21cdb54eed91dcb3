"""The weight explorer: one page, without kernel, server or network, that draws losses and weights as sliders move.

Every loss is computed in the page (`templates/shared/formulas.js`); the polynomial and the triplet loss have sliders.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert

from uwml_lib.losses import PolynomialLoss, TripletLoss
from uwml_lib.reports.site.formulas import TEMPLATES, losses_for_pages, render
from uwml_lib.support.files import sha256_of, write_text

LIVE = ("polynomial", "triplet")
SIMILARITIES = [step / 100 for step in range(-100, 100)]


class Slider(NamedTuple):
    """A number the page can change: what it is called, its range, and where it starts."""

    words: str
    low: float
    high: float
    start: float


_polynomial, _triplet = PolynomialLoss(), TripletLoss()
SLIDERS = {
    **{f"p{power}": Slider(f"P{'₀₁₂'[power]}", -2, 2, value) for power, value in enumerate(_polynomial.positive)},
    **{f"q{power}": Slider(f"Q{'₀₁₂'[power]}", -2, 2, value) for power, value in enumerate(_polynomial.negative)},
    "margin": Slider("polynomial margin", 0, 1, _polynomial.margin),
    "triplet_margin": Slider("triplet margin", 0, 1, _triplet.margin),
    "negative_held": Slider("negative held at", -1, 1, 1.0),
    "positive_held": Slider("positive held at", -1, 1, -1.0),
    "at": Slider("similarity", SIMILARITIES[0], SIMILARITIES[-1], 0.5),
}
CHOICES = {
    "clamp": {"each": "each: [P]₊ + [Q]₊", "sum": "sum: [P + Q]₊"},
    "scale": {"absolute": "one scale for all", "relative": "each curve to its largest"},
}
START: dict[str, Any] = {name: slider.start for name, slider in SLIDERS.items()}
START |= {"clamp": _polynomial.clamp, "scale": "absolute", "show": list(LIVE)}
# What a preset changes from START, and a sentence about it.
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "released": ({}, "The coefficients, margin and clamps of the released code."),
    "public variant": (
        {"q0": 0.03, "q1": -0.3, "q2": 1.2, "clamp": "sum"},
        "A public re-implementation: another Q and one clamp on the sum; not verified as the paper's.",
    ),
    "no dead zone": (
        {"q0": 0.0, "q1": 0.0, "q2": 0.9},
        "Q(n) = 0.9 n² is never below 0, so no clamp holds it; for n below 0 the weight still points the wrong way.",
    ),
    "typical scores": (
        {"negative_held": 0.5, "positive_held": 0.6},
        "The released loss with the other pair held at a typical score: outside the margin an anchor takes no part.",
    ),
    "triplet as polynomial": (
        {"p0": 0.2, "p1": -1.0, "p2": 0.0, "q0": 0.0, "q1": 1.0, "q2": 0.0, "clamp": "sum"},
        "P(p) + Q(n) = 0.2 − p + n with one clamp on the sum is the triplet loss.",
    ),
}


def build_explorer(path: Path | str) -> Path:
    """Write the page to `path`, all it needs inside it, unless it is there already; return the path."""
    losses = losses_for_pages()
    templates = [*(TEMPLATES / "explorer").iterdir(), *(TEMPLATES / "shared").iterdir()]
    made_of = [str(losses), version("vl-convert-python"), *map(sha256_of, sorted([*templates, Path(__file__)]))]
    key = f"<!-- {hashlib.sha256(''.join(made_of).encode()).hexdigest()} -->\n"
    if Path(path).exists() and Path(path).read_text(encoding="utf-8").endswith(key):
        return Path(path)
    data = {
        "similarities": SIMILARITIES, "losses": losses, "start": START,
        "bounds": {name: [slider.low, slider.high] for name, slider in SLIDERS.items()},
        "choices": {name: list(words) for name, words in CHOICES.items()},
        "presets": {name: changes for name, (changes, _) in PRESETS.items()},
    }  # fmt: skip
    # Vega as one script, which vl-convert carries inside its wheel.
    charts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    ordered = [*LIVE, *sorted(losses.keys() - LIVE)]
    page = render(
        "explorer", data, sliders=SLIDERS, choices=CHOICES, presets=PRESETS, losses=ordered, live=LIVE, charts=charts
    )
    write_text(path, f"{page}\n{key}")
    return Path(path)
