"""A finished run: its folder and what it wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from uwml_lib.config import ExperimentConfig
from uwml_lib.evaluation.statistics import rsum_by_image
from uwml_lib.models import MODELS
from uwml_lib.runs.checkpoints import read_metrics
from uwml_lib.support.files import check_files, read_sealed_json

COLLAPSED = 0.005
"""Mean difference of a positive's and its hardest negative's score below which a training has collapsed."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what it wrote."""

    folder: Path
    results: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, file: str = "results.json") -> "Run":
        """Read a finished run; raises UWMLError if it is not finished, or if its files were changed since.

        file: results.json, or that of another split.
        """
        results = read_sealed_json(folder / file)
        check_files(folder, results["files"])
        return cls(folder, results)

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration, as plain values."""
        return self.results["config"]

    @property
    def model(self) -> str:
        """The model in a few words, and which of its kind it is."""
        name, config = MODELS[self.config["model"]].title, self.config
        if len(self.results.get("members", ())) > 1:
            return f"{name}, ensemble"
        if config["model"] == "scan":
            return f"{name}, {config['direction']} {config['aggregation']}"
        if config["model"] == "frozen":
            return f"{name}, {'a hidden layer' if config.get('hidden') else 'linear'}"
        return name

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best epoch on the evaluated split."""
        return self.results["metrics"]

    @property
    def chosen_by(self) -> str:
        """The images that chose the best epoch, in a word or two."""
        return ExperimentConfig.from_dict(self.config).chosen_by

    @property
    def rsum_by_image(self) -> np.ndarray:
        """One contribution to rsum for each image, (n_images,)."""
        ranks = self.results["ranks"]
        return rsum_by_image(*(np.array(ranks[f"{name}_ranks"]) for name in ("image_to_text", "text_to_image")))

    def history(self) -> pd.DataFrame:
        """Every line of metrics.jsonl, with `epochs_done` (fractional) to plot against."""
        lines = pd.DataFrame(read_metrics(self.folder))
        steps = lines.loc[lines["kind"] == "step", "step"].max()
        lines["epochs_done"] = lines["epoch"] + (lines["step"] / steps).fillna(1.0)
        return lines


def collapsed(run: Run) -> bool:
    """Whether scores were nearly equal in the last epoch: positives and hardest negatives differ by next to nothing."""
    steps = [line for line in read_metrics(run.folder) if line["kind"] == "step"]
    last = [line for line in steps if line["epoch"] == steps[-1]["epoch"]]
    gaps = [line["positive_score"] - line["hardest_negative_score"] for line in last]
    return bool(gaps) and abs(float(np.mean(gaps))) < COLLAPSED
