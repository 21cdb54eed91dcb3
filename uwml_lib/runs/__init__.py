"""What a run is on disk: its settings, metrics, weights and results, and where they come from."""

from uwml_lib.runs.checkpoints import load_model, read_metrics
from uwml_lib.runs.run import Run
from uwml_lib.runs.scoring import dev_batches, evaluate_run
from uwml_lib.runs.study_runs import StudyRuns, load_study, save_study

__all__ = ["Run", "StudyRuns", "dev_batches", "evaluate_run", "load_model", "load_study", "read_metrics", "save_study"]
