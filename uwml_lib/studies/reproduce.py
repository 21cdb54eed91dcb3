"""`make reproduce`: the polynomial loss against the triplet loss on one model."""

from uwml_lib.datasets import SCENES
from uwml_lib.reports.two_losses import two_losses
from uwml_lib.studies.study import Plan, Request, Study

EPOCHS_WITHOUT_WARMUP = 4  # enough to see whether such a training gets going


def plan(request: Request) -> Plan:
    """Both losses with every seed; on `scenes`, where it costs least, one seed without warm-up too."""
    base, runs = request.base, request.grid({})
    if not base.warmup_epochs or base.dataset not in SCENES:
        return {"runs": runs}
    lengths = (of.get("epochs", base.epochs) for of in request.tuned.values())
    cold = {"warmup_epochs": 0, "epochs": min(base.epochs, EPOCHS_WITHOUT_WARMUP, *lengths)}
    return {"runs": runs, "without_warmup": request.once().grid(cold)}


STUDY = Study(
    name="reproduce",
    notebooks=(
        "00_start_here", "01_data_preparation", "02_training", "03_cross_attention", "04_evaluation",
        "05_weight_functions", "06_twelve_losses", "12_your_own_model", "13_your_own_photographs",
    ),
    plan=plan,
    report=two_losses,
    smoke_seeds=(0, 1),
    table="table",
    data="summary",
    publishes_preset=True,
    title="The two losses",
    figure=("recall_curves", "Dev rsum by epoch of both losses, with bands from the worst to the best seed"),
    next="Next: open that page in a browser; `make lab` for the notebooks; `make compare` for every loss, tuned alike.",
)  # fmt: skip
