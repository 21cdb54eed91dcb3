"""`make compare`: every loss with the same model, budget and tuning effort; chosen on dev, reported on test.

A loss of the gap alone ties its scores to no level, so the polynomial loss with its released coefficients may not fit
them. The models whose hard negatives score lowest are trained on with it, with coefficients that fit, and with their
own loss.
"""

from collections.abc import Sequence
from dataclasses import replace

from uwml_lib.config import ExperimentConfig
from uwml_lib.losses import LOSSES
from uwml_lib.reports import trained_on
from uwml_lib.reports.report import Report
from uwml_lib.reports.tuned_losses import FITTED, tuned_losses
from uwml_lib.runs import Run, StudyRuns
from uwml_lib.studies.alike import NoCoefficients, coefficients_of, train_alike
from uwml_lib.studies.score_ranges import note_scores
from uwml_lib.studies.study import Groups, Request, Study


def train_every_loss(request: Request, groups: Groups) -> Groups:
    """Tune and train every loss, and the polynomial loss with coefficients fitted to its scores."""
    runs = train_alike(request, [*LOSSES], request.seeds)
    fitted = train_alike(request, (FITTED,), request.seeds)
    later = request.train(further(request, lowest(runs)))
    note_scores(request, [*runs, *fitted, *later])
    return {"runs": runs, "coefficients": fitted, "trained_on": later}


def lowest(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the loss, other than the polynomial one, whose hardest negatives end at the lowest scores."""
    by_loss = StudyRuns("", {"runs": tuple(runs)}).by_loss()
    others = [of for loss, of in by_loss.items() if loss != "polynomial"]
    return min(others, key=lambda of: sum(run.last_epoch()["hardest_negative_score"].mean() for run in of) / len(of))


def further(request: Request, starts: Sequence[Run]) -> list[ExperimentConfig]:
    """Return how trained models are trained on for half of the epochs: as they were, but for the loss.

    With their own loss, and with the polynomial loss, its coefficients as released and fitted to the model's scores.
    """
    epochs = max(1, request.base.epochs // 2)
    decay = max(1, round(request.base.decay_epoch * epochs / request.base.epochs))
    configs = []
    for run in starts:
        try:
            fitted = coefficients_of(request, run.folder)
        except NoCoefficients as error:
            request.say(f"not trained on: {error}")
            continue
        base = replace(
            run.config, data_root=request.base.data_root, start_from=run.folder.name, warmup_epochs=0, epochs=epochs,
            decay_epoch=decay,
        )  # fmt: skip
        configs += [base, *(replace(base, loss="polynomial", loss_options=options) for options in ({}, fitted))]
    return configs


def report(study: StudyRuns) -> Report:
    """Report the losses, and what became of the models that were trained on."""
    of_losses, groups = tuned_losses(study), trained_on.models(study)
    if not groups:
        return of_losses
    return replace(
        of_losses,
        further={
            **of_losses.further,
            f"Models of {groups[trained_on.START][0].config.loss}, trained further": trained_on.table(groups),
        },
        findings=(*of_losses.findings, f"On {study.dataset}: {trained_on.in_words(groups)}"),
    )


STUDY = Study(
    "compare", ("07_loss_comparison", "08_choosing_coefficients"), report, more=train_every_loss,
    title="All losses", figure=("convergence", "Dev rsum by epoch, a panel for each loss"),
)  # fmt: skip
