"""`make compare`: every loss with the same model, budget and tuning effort; chosen on dev, reported on test."""

from uwml_lib.losses import LOSSES
from uwml_lib.reports.tuned_losses import FITTED, tuned_losses
from uwml_lib.studies.alike import train_alike
from uwml_lib.studies.score_ranges import note_scores
from uwml_lib.studies.study import Groups, Plan, Request, Study


def plan(request: Request) -> Plan:
    """Nothing: what is trained follows from what is chosen."""
    return {}


def train_every_loss(request: Request, groups: Groups) -> Groups:
    """Tune and train every loss, and the polynomial loss with coefficients fitted to its scores."""
    runs = train_alike(request, [*LOSSES], request.seeds)
    fitted = train_alike(request, (FITTED,), request.seeds)
    note_scores(request, [*runs, *fitted])
    return {"runs": runs, "coefficients": fitted}


STUDY = Study(
    "compare", ("07_loss_comparison", "08_choosing_coefficients"), plan, tuned_losses, more=train_every_loss,
    title="All losses", figure="convergence",
)  # fmt: skip
