"""The figures of notebooks and reports; every function returns the figure and the data it drew.

A name is looked up when it is asked for, so that drawing a weight curve loads neither runs nor scipy.
"""

from importlib import import_module
from typing import Any

MODULES = {
    "style": ("LOOK", "PAIR_LOOK", "STYLE", "show"),
    "pictures": ("attention_by_word", "filmstrips", "pictures_with_boxes", "retrieval_examples"),
    "trainings": (
        "caption_lengths", "collapse_curves", "convergence", "models_compared", "recall_curves", "score_curves",
    ),
    "sweeps": ("sweep_panels",),
    "weights": ("batch_weights", "mass_by_rank", "weight_curves", "weight_gallery", "weight_maps"),
}  # fmt: skip
"""Module of this folder -> the names it gives."""


def __getattr__(name: str) -> Any:
    for module, names in MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
