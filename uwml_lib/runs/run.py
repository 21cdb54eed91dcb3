"""A finished run: its folder and what it wrote."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import chance_rsum, remark_on_size, rsum_by_image
from uwml_lib.models import MODELS
from uwml_lib.runs.checkpoints import read_metrics
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import check_files, read_sealed_json

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("config.json", "metrics.jsonl", "results.json")
"""Files of a run that hold its numbers; all others are what it needs to go on, or to score something else."""
COLLAPSED = 0.005
"""Mean difference of a positive's and its hardest negative's score below which a training may have collapsed."""
LITTLE = 0.4
"""Share of the way from chance to 600 below which its rsum then shows that it has."""


def stands_still(gap: float, rsum: float, chance: float) -> bool:
    """Say whether a training is at equal scores: the positives score as their hardest negatives, and rsum is low.

    gap: the mean difference of the two in an epoch; rsum: after it; chance: that of random scores. A gap alone says
    little: when the warm-up ends, it is as small in trainings that go well.
    """
    return abs(gap) < COLLAPSED and rsum - chance < LITTLE * (600 - chance)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its settings, and what it wrote; `evaluation.compare` takes groups of them."""

    folder: Path
    config: ExperimentConfig
    """Settings; those that are newer than the run have their defaults."""
    results: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, file: str = "results.json") -> Run:
        """Read a finished run, with the results in `file`; raises UWMLError if it is unfinished, or changed since.

        Where a folder has no checkpoint at all, as in reports/reference, its numbers alone are looked at.
        """
        results = read_sealed_json(folder / file)
        whole = (folder / "checkpoint").exists()
        check_files(folder, {name: results["files"][name] for name in results["files"] if whole or name in NUMBERS})
        return cls.of(folder, results)

    @classmethod
    def of(cls, folder: Path, results: dict[str, Any]) -> Run:
        """Return the run of results that were just written; raises UWMLError if their settings are none."""
        try:
            return cls(folder, ExperimentConfig.from_dict(results["config"]), results)
        except (KeyError, UWMLError) as error:
            raise UWMLError(f"{folder}: its results have no settings of this kit ({error})") from error

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.config.seed

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best epoch on the evaluated split."""
        return self.results["metrics"]

    @property
    def rsum(self) -> float:
        """Sum of the six recalls on the evaluated split, in percent."""
        return self.metrics["rsum"]

    @functools.cached_property
    def rsum_by_image(self) -> np.ndarray:
        """One contribution to rsum for each image, (n_images,)."""
        ranks = self.results["ranks"]
        return rsum_by_image(*(np.array(ranks[f"{name}_ranks"]) for name in ("image_to_text", "text_to_image")))

    @property
    def images_ranked(self) -> int:
        """Images that were ranked together: those of the split, or of one fold."""
        return len(self.results["ranks"]["image_to_text_ranks"]) // self.results.get("folds", 1)

    @property
    def _images_that_chose(self) -> int:
        """Images by which the best epoch was chosen; as many as were ranked where results do not say."""
        features = self.results.get("features", {})
        return self.config.selection_images or features.get("dev", [self.images_ranked])[0]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said where so few images were ranked, or chose the epoch, that recalls are worth little."""
        folds, features = self.results.get("folds", 1), self.results.get("features", {})
        sizes = {"" if folds > 1 else self.results["split"]: self.images_ranked}
        if "best_epoch" in self.results and "dev" in features:
            sizes.setdefault(self.config.chosen_by, self._images_that_chose)
        K = self.results["captions_per_image"]
        return tuple(filter(None, (remark_on_size(size, K, f"{name} image".strip()) for name, size in sizes.items())))

    @property
    def model(self) -> str:
        """The model in a few words, and which of its kind it is."""
        name, config = MODELS[self.config.model].title, self.config
        if len(self.results.get("members", ())) > 1:
            return f"{name}, ensemble"
        if config.model == "scan":
            return f"{name}, {config.direction} {config.aggregation}"
        if config.model == "frozen":
            return f"{name}, {'a hidden layer' if config.hidden else 'linear'}"
        return name

    @functools.cached_property
    def collapsed(self) -> bool:
        """Whether the training stood still at nearly equal scores in its last epoch."""
        if "members" in self.results:  # an ensemble, or a checkpoint: there is no training to look at
            return False
        last = self.last_epoch()
        gap = (last["positive_score"] - last["hardest_negative_score"]).mean()
        chance = chance_rsum(self._images_that_chose, self.results["captions_per_image"])
        return stands_still(gap, last["dev_rsum"].iloc[-1], chance)

    @property
    def dense_alone(self) -> bool:
        """Whether it was trained by the dense form of its loss to the end."""
        return self.config.warmup_epochs >= self.config.epochs

    @property
    def last_positive_score(self) -> float:
        """The mean score of positives in the batches of the last epoch."""
        return float(self.last_epoch()["positive_score"].mean())

    def last_epoch(self) -> pd.DataFrame:
        """The lines of `history` that are of the last epoch."""
        history = self.history()
        return history[history["epoch"] == history["epoch"].max()]

    def history(self) -> pd.DataFrame:
        """Every line of metrics.jsonl, with `epochs_done` (fractional) to plot against."""
        import pandas as pd

        lines = pd.DataFrame(read_metrics(self.folder))
        steps = lines.loc[lines["kind"] == "step", "step"].max()
        lines["epochs_done"] = lines["epoch"] + (lines["step"] / steps).fillna(1.0)
        return lines
