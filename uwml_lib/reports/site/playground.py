"""The loss playground: one page, without kernel, server or network, in which a loss moves points step by step.

Images and captions are points of a plane; the score of a pair is 1 - d²/2 for a distance d, the cosine of two unit
vectors at that distance. A step is gradient descent on the points themselves, by the weights of `formulas.js`.
"""

from pathlib import Path
from typing import Any

from uwml_lib.reports.site.formulas import losses_for_pages, render
from uwml_lib.support.files import write_text

PAIRS = 16
START: dict[str, Any] = {"start": "random", "seed": 1, "warmup": 20, "loss": "triplet"}
STARTS = {"random": "random", "collapsed": "nearly collapsed", "dead": "dead zone", "low": "low scores"}
# A learning rate for each formula, in which a step is neither lost nor too long.
RATES = {
    "circle": 0.005, "infonce": 0.3, "multi_similarity": 1, "polynomial": 0.5, "polynomial_relative": 0.3,
    "sigmoid": 0.5, "triplet": 0.3, "triplet_semihard": 0.3, "triplet_soft": 0.5,
}  # fmt: skip
# What may be changed of a loss: what it is called, and the smallest number it takes or, of words and lists, None.
PARAMETERS: dict[str, tuple[str, float | None]] = {
    "negatives": ("negatives", None), "margin": ("margin", 0), "clamp": ("clamp", None),
    "positive": ("P, for the score p of a true pair: coefficients of 1, p, p²", None),
    "negative": ("Q, for the score n of a wrong pair: coefficients of 1, n, n²", None),
    "coefficients": ("R, for x = n − p: coefficients of 1, x, x²; empty for (margin + x)²", None),
    "temperature": ("temperature", 0.01), "scale": ("scale", 0.01), "bias": ("bias", -100), "alpha": ("alpha", 0.01),
    "beta": ("beta", 0.01), "base": ("base", -1), "relaxation": ("relaxation", -1), "gamma": ("gamma", 0.01),
}  # fmt: skip
# What a preset changes, and what to notice.
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "A loss at work": (
        {"loss": "triplet"},
        "Press play. Every image finds its caption, and the diagonal of the matrix stands out. "
        "A pair beyond the margin has no arrows any more: the triplet loss is done with it.",
    ),
    "Collapse": (
        {"loss": "triplet", "start": "collapsed", "warmup": 0},
        "All scores are nearly equal. Every point is pulled to its partner and pushed from its hardest rival. Both "
        "have the same weight and lie in the same spot, so the two moves nearly cancel. The loss stays on the dashed "
        "line, 2 × margin = 0.4, for a hundred steps. Ranks may come out right, but the gaps stay near 0.",
    ),
    "Warm-up": (
        {"loss": "triplet", "start": "collapsed", "warmup": 30},
        "The same start, but for 30 steps every wrong pair is pushed, not the hardest alone. The pushes add up, the "
        "points spread, and the loss leaves the dashed line. Then the hardest rivals do the rest.",
    ),
    "Dead zone": (
        {"loss": "polynomial", "start": "dead", "rate": 0.1, "warmup": 0},
        "Wrong pairs that score between 0.10 and 0.35 get no push from the released coefficients. Nothing but the pull "
        "is left, so all scores rise together, until the push begins. Near 0.5 the two balance.",
    ),
    "The wrong way": (
        {"loss": "polynomial", "start": "low", "rate": 0.1, "warmup": 0},
        "Below 0.10 the released coefficients pull wrong pairs nearer: the dotted red arrows. Step on, and watch the "
        "scores of the hardest wrong pairs rise.",
    ),
    "New coefficients": (
        {"loss": "polynomial", "start": "low", "rate": 0.1, "warmup": 0,
         "positive": [-0.0721, -0.2033, 0.1687], "negative": [0.8067, 2.1363, 1.3979]},
        "The same start, with P and Q fitted to its scores. No arrow is red, and the scores of the hardest wrong pairs "
        "fall from the first step.",
    ),
}  # fmt: skip


def build_playground(path: Path | str) -> Path:
    """Write the page to `path`, all it needs inside it, and return the path."""
    losses = losses_for_pages()
    data = {
        "pairs": PAIRS, "start": START, "starts": [*STARTS], "losses": losses, "rates": RATES,
        "parameters": PARAMETERS, "presets": {name: changes for name, (changes, _) in PRESETS.items()},
    }  # fmt: skip
    write_text(path, render("playground", data, presets=PRESETS, starts=STARTS, losses=losses, pairs=PAIRS))
    return Path(path)
