"""Where the scores of trained models lie, as `scores.json` beside the runs notes it: in a table, a sentence, a figure.

Of each loss its first seed is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.polynomial import Polynomial

from uwml_lib.evaluation.statistics import summarize
from uwml_lib.losses import PolynomialLoss
from uwml_lib.reports import records
from uwml_lib.runs.run import Run
from uwml_lib.support import paths
from uwml_lib.support.errors import reading
from uwml_lib.support.files import atomic_path, make_folder
from uwml_lib.weighting import describe
from uwml_lib.weighting.coefficients import NOTHING, RIGHT, WRONG_WAY

ByLoss = Mapping[str, Sequence[Run]]
LAST_EPOCH = {
    "positives": "positive_score", "hardest negatives": "hardest_negative_score",
    "informative anchors": "informative_share",
}  # fmt: skip
SCORES = "where the scores of a run lie"


def score_table(dataset: str, labelled: ByLoss) -> pd.DataFrame:
    """One row for each label: mean scores in the first seed's last epoch, and what rsum still gained, a mean.

    As far as `scores.json` has it, also where the middle 98 % of that seed's scores on the images that choose lie, and
    which share of the hardest negatives the released coefficients would not move, or move the wrong way.
    """
    rows, noted = list[dict[str, str]](), records.noted(dataset, "scores")
    for label, runs in labelled.items():
        histories = [run.history() for run in runs]
        dev = [history.loc[history["kind"] == "epoch", "dev_rsum"].to_numpy() for history in histories]
        means = runs[0].last_epoch()[[*LAST_EPOCH.values()]].mean()
        gained = summarize([values[-1] - values[-2] for values in dev if len(values) > 1] or [0.0]).mean
        with reading(paths.RUNS / dataset / "scores.json", SCORES):
            told = _in_cells(noted.get(runs[0].folder.name))
        rows.append(
            {"loss": label}
            | {f"{heading}, in training": f"{means[name]:.2f}" for heading, name in LAST_EPOCH.items()}
            | {"rsum gained in the last epoch (all seeds)": f"{gained:+.1f}"}
            | told
        )
    return pd.DataFrame(rows).fillna("").set_index("loss")


def _in_cells(scores: Mapping[str, Any] | None) -> dict[str, str]:
    if scores is None:
        return {}
    spans = {f"{pair}s, 1 to 99 %": f"{low:.2f} to {high:.2f}" for pair, (low, *_, high) in scores["quantiles"].items()}
    moved = scores["moved"]["released"]["negative"]
    idle = {effect: f"{moved.get(effect, 0.0):.0%}" for effect in (NOTHING, WRONG_WAY)}
    return spans | {f"hardest negatives {effect} by the released coefficients": share for effect, share in idle.items()}


def pushed_in_words(dataset: str, by_loss: ByLoss) -> Iterator[str]:
    """Say which share of the hardest negatives of trained models the released coefficients push away."""
    said, noted = [], records.noted(dataset, "scores")
    for loss in ("polynomial", "triplet"):
        with reading(paths.RUNS / dataset / "scores.json", SCORES):
            scores = {run.seed: noted[run.folder.name] for run in by_loss[loss] if run.folder.name in noted}
            shares = [of["moved"]["released"]["negative"].get(RIGHT, 0.0) for of in scores.values()]
            spans = [of["quantiles"]["negative"] for of in scores.values()]
        if shares:
            share = " to ".join(dict.fromkeys(f"{of:.0%}" for of in (min(shares), max(shares))))
            lie = f"{min(low for low, *_ in spans):.2f} to {max(high for *_, high in spans):.2f}"
            seeds = f"seed{'s' * (len(scores) > 1)} {', '.join(map(str, scores))}"
            batches = f"batches of {by_loss[loss][0].config.batch_size}"
            said.append(f"{share} after training with the {loss} loss ({seeds}; {batches}; scores mostly {lie})")
    if said:
        yield (
            "The released coefficients push away this share of the hardest negatives of trained models on "
            f"{dataset}: {'; '.join(said)}."
        )


def weighed_in_words(dataset: str, by_loss: ByLoss) -> Iterator[str]:
    """Say how far apart the polynomial loss weighs the pairs of a model trained with it, on batches of the images that
    chose its epoch; and, where coefficients were fitted, what these do to the hardest negatives of theirs.
    """
    noted, run, triplet = records.noted(dataset, "scores"), by_loss["polynomial"][0], by_loss["triplet"][0]
    with reading(paths.RUNS / dataset / "scores.json", SCORES):
        if scores := noted.get(run.folder.name):
            loss, ranges = PolynomialLoss(**run.config.loss_options), scores["quantiles"]
            pull, push = -Polynomial(loss.positive).deriv(), Polynomial(loss.negative).deriv()
            (far, *_, near), (easy, *_, hard) = ranges["positive"], ranges["negative"]
            inform = [f"{of.last_epoch()['informative_share'].mean():.0%}" for of in (run, triplet)]
            yield (
                f"On {dataset} the polynomial loss weighs positives of its own trained model from {pull(far):.2f} down "
                f"to {pull(near):.2f} and hardest negatives from {max(0, push(easy)):.2f} up to {push(hard):.2f} (seed "
                f"{run.seed}; the middle 98 % of their scores), where the triplet loss weighs every informative pair "
                f"1. In the last epoch {inform[0]} of the anchors were informative, with the triplet loss {inform[1]}."
            )
        every = [noted.get(runs[0].folder.name, {}).get("moved", {}) for runs in by_loss.values()]
        for moved in (of["own"]["negative"] for of in every if "own" in of):
            away, idle, nearer = (moved.get(effect, 0) for effect in (RIGHT, NOTHING, WRONG_WAY))
            yield (
                f"Coefficients fitted on {dataset} push {away:.0%} of the hardest negatives of a model trained with "
                f"them away, leave {idle:.0%} where they are and pull {nearer:.0%} nearer."
            )


def draw_score_ranges(dataset: str, by_loss: ByLoss, picture: Path) -> None:
    """Draw where the scores lie, as far as `scores.json` has them; no picture, and none of other runs, without any."""
    from uwml_lib.reports import figures

    noted, ranges = records.noted(dataset, "scores"), {}
    for loss, runs in by_loss.items():
        if scores := noted.get(runs[0].folder.name):
            with reading(paths.RUNS / dataset / "scores.json", SCORES):
                ranges[loss] = scores["quantiles"]
    picture.unlink(missing_ok=True)
    if ranges:
        figure, _ = figures.score_ranges(ranges, describe(PolynomialLoss(), (-1.0, 1.0)).zones)
        with atomic_path(make_folder(picture.parent) / picture.name) as path, figures.plt.style.context(figures.STYLE):
            figure.savefig(path, format="png")
        figures.plt.close(figure)
