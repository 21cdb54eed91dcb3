"""Where the scores of trained models lie, and what coefficients of the polynomial loss do to them there."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from uwml_lib.losses import PolynomialLoss
from uwml_lib.runs import Run, dev_batches
from uwml_lib.studies.study import Request
from uwml_lib.support.files import read_json, write_json
from uwml_lib.weighting import describe, positives_and_hardest_negatives

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
FILE = "scores.json"


def note_scores(request: Request, runs: Iterable[Run]) -> None:
    """Note in `scores.json` beside the runs where the scores of some lie; those noted before are left alone.

    A run whose weights are not here, for its numbers alone were kept, is passed over.
    """
    path = request.folder / FILE
    noted = read_json(path) if path.exists() else {}
    for run in runs:
        if run.folder.name not in noted and (run.folder / "checkpoint").exists():
            noted[run.folder.name] = scores_of(run, request.base.data_root)
            write_json(path, noted)
            request.keep(path)


def scores_of(run: Run, data_root: str = "") -> dict[str, Any]:
    """Return quantiles of a model's scores on the images that chose its epoch, and what coefficients do to them.

    Of positives and of each image's hardest negative, in batches as in training. Shares of them that the released
    coefficients, and the run's own if it has others, move the right way, the wrong way, or not.
    """
    scores = positives_and_hardest_negatives(dev_batches(run.folder, data_root))
    pairs = {pair: found.numpy().astype(float) for pair, found in zip(("positive", "negative"), scores, strict=True)}
    losses, given = {"released": PolynomialLoss()}, run.config.loss_options
    if own := {name: given[name] for name in ("positive", "negative") if name in given}:
        losses["own"] = PolynomialLoss(**own, positive_ceiling=None)
    return {
        "chosen_by": run.config.chosen_by,
        "quantiles": {pair: np.quantile(found, QUANTILES).round(4).tolist() for pair, found in pairs.items()},
        "moved": {name: {pair: effects(loss, pair, pairs[pair]) for pair in pairs} for name, loss in losses.items()},
    }


def effects(loss: PolynomialLoss, pair: str, scores: np.ndarray) -> dict[str, float]:
    """Return what a polynomial loss does to positives or negatives -> the share of them with which it does that."""
    zones = [zone for zone in describe(loss, (-1.0, 1.0)).zones if zone.pair == pair]
    places = np.clip(np.searchsorted([zone.high for zone in zones], scores), 0, len(zones) - 1)
    shares = np.bincount(places, minlength=len(zones)) / len(scores)
    found: dict[str, float] = {}
    for zone, share in zip(zones, shares, strict=True):
        found[zone.effect] = round(found.get(zone.effect, 0.0) + float(share), 4)
    return found
