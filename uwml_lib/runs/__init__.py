"""What a run is on disk: its settings, metrics, weights and results, and where they come from."""

from uwml_lib.runs.checkpoints import load_model, read_config, read_metrics
from uwml_lib.runs.groups import by_model, load_experiment, save_experiment
from uwml_lib.runs.provenance import environment
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import dev_batches, evaluate_run

__all__ = [
    "Run",
    "by_model",
    "dev_batches",
    "environment",
    "evaluate_run",
    "load_experiment",
    "load_model",
    "read_config",
    "read_metrics",
    "save_experiment",
]
