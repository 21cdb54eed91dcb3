"""`make models` and `make videos`: the two losses on every model, with the same data, budget and settings."""

from typing import Any

from uwml_lib.reports import tables
from uwml_lib.reports.report import Report
from uwml_lib.runs.scoring import evaluate_members, member_of
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.studies.study import Groups, Plan, Request, Study
from uwml_lib.support.progress import counted

MODELS_OF_IMAGES: tuple[dict[str, Any], ...] = (
    {"model": "scan"},
    {"model": "scan", "direction": "t2i", "lambda_softmax": None},
    {"model": "bfan", "lambda_softmax": None},
    {"model": "vse"},
    {"model": "vse_infinity"},
    {"model": "dual_encoding"},
    {"model": "frozen", "captions": "vectors"},
    {"model": "frozen", "captions": "vectors", "hidden": 256},
)
"""Settings of the models that are compared; where lambda is None, a model has its source's, for a data set's preset may
have one for SCAN i2t. SCAN's two directions are also scored together, as an ensemble."""
MODELS_OF_SEQUENCES = tuple({"model": name} for name in ("vse", "vse_infinity", "dual_encoding"))
NEED_ALL_NEGATIVES = ("vse", "dual_encoding", "frozen")
"""Models that see an image as a plain mean. On hardest negatives alone their trainings collapse with either loss
(notebook 10), so they take all informative negatives, the losses' dense form, to the end."""

DIFFERENCES = "Polynomial minus triplet loss in rsum, model by model, with 95 % intervals over seeds and images"


def plan_images(request: Request) -> Plan:
    """Both losses on every model of images, as far as the data have what it reads."""
    tried = [*MODELS_OF_IMAGES]
    if not (request.base.data_folder / "train_caps.npy").exists():
        tried = [settings for settings in tried if settings.get("captions") != "vectors"]
        request.say(f"frozen: left out, for {request.base.data_folder} has no vectors of its captions, train_caps.npy")
    to_the_end = {"warmup_epochs": request.base.epochs}
    tried = [{**to_the_end, **each} if each["model"] in NEED_ALL_NEGATIVES else each for each in tried]
    return {"runs": request.grid(*tried)}


def score_ensembles(request: Request, groups: Groups) -> Groups:
    """Score SCAN's two directions together, seed by seed."""
    for pair in StudyRuns(request.base.dataset, {"runs": tuple(groups["runs"])}).scan_pairs():
        evaluate_members([member_of(run.folder, request.base.data_root) for run in pair])
    return {}


def report(study: StudyRuns) -> Report:
    """The table, and which loss is ahead on which model."""
    words = {
        "polynomial": "the polynomial loss is better with", "triplet": "the triplet loss is better with",
        "": "not decided with", "collapsed": "nothing to compare, as trainings collapsed to nearly equal scores, with",
    }  # fmt: skip
    outcomes, models = {}, dict[str, list[str]]()
    for model, found in tables.losses_by_model(study).items():
        outcomes[f"{model} on {study.dataset}"] = found.winner
        title, _, which = model.partition(", ")
        models.setdefault(found.winner, []).append(f"{title} ({which})" if which else title)  # for a list with commas
    said = "; ".join(f"{words[winner]} {', '.join(models[winner])}" for winner in words if winner in models)
    title, corrected = f"{study.dataset}: both losses on every model", counted(len(outcomes), "comparison")
    findings = (f"Model by model on {study.dataset}: {said} (corrected for {corrected}).",)
    about = f"All models: {tables.settings_in_words(study.runs)}. These are the data set's; none was tuned by itself."
    dense = any("dense form" in model for model in study.by_model())
    about += " *Dense form*: trained on all informative negatives to the end." * dense
    notes = (tables.intervals_in_words(len(outcomes)), *study.remarks, *tables.collapsed_in_words(study.runs))
    return Report(
        title, tables.models_table(study), tables.run_table(study.all_runs), (about,), notes, findings=findings,
        outcomes=outcomes, commands=tables.commands_in_words(study.all_runs),
    )  # fmt: skip


MODELS = Study(
    "models", ("10_other_models",), report, plan_images, score_ensembles, title="Models",
    figure=("models_differences", DIFFERENCES),
)  # fmt: skip
VIDEOS = Study(
    "videos", ("11_video_text",), report, lambda request: {"runs": request.grid(*MODELS_OF_SEQUENCES)}, sequences=True,
    title="Video",
    figure=("videos_differences", DIFFERENCES),
)  # fmt: skip
