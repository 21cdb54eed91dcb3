"""What the experiments found, in sentences that follow from their numbers, for those who read nothing else."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from uwml_lib.evaluation.statistics import Interval, paired_bootstrap, paired_interval, summarize
from uwml_lib.reports.tables import comparison, habit_of
from uwml_lib.runs.groups import Experiment, ExperimentName, by_model
from uwml_lib.runs.run import Run, collapsed


def findings(name: ExperimentName, experiment: Experiment) -> list[str]:
    """Say what one experiment found; nothing where there is too little to say."""
    return SENTENCES[name](experiment)


def _two_losses(experiment: Experiment) -> list[str]:
    found, first = comparison(experiment), experiment.runs[0]
    by_loss = experiment.by_loss()
    values = ", ".join(f"{loss} {_rsum(by_loss[loss])}" for loss in (found["b"], found["a"]))
    images = f"{len(first.results['ranks']['image_to_text_ranks']):,} {experiment.split} images"
    return [f"On {experiment.dataset} ({images}, {first.model}): {values} in rsum; {found['verdict']}."]


def _all_losses(experiment: Experiment) -> list[str]:
    by_loss = experiment.by_loss()
    if "polynomial" not in by_loss or len(by_loss) == 1:
        return []
    ranked = sorted(by_loss, key=lambda loss: -summarize(_rsums(by_loss[loss])).mean)
    best = ", ".join(f"{loss} {_rsum(by_loss[loss])}" for loss in ranked[:3])
    winners = {loss: _winner(runs, by_loss["polynomial"]) for loss, runs in by_loss.items() if loss != "polynomial"}
    ahead, behind = ([loss for loss in ranked if winners.get(loss) == side] for side in ("first", "second"))
    sentences = [
        f"Among {len(ranked)} losses on {experiment.dataset}, each tuned a little and alike (so numbers differ from "
        f"those above), the highest means have {best}. The polynomial loss with its released coefficients has "
        f"{_rsum(by_loss['polynomial'])}; shown to be ahead of it: {', '.join(ahead) or 'none'}; behind it: "
        f"{', '.join(behind) or 'none'}; undecided: the others."
    ]
    if experiment.coefficients:
        changed, released = experiment.coefficients, by_loss["polynomial"]
        sentences.append(
            "Other coefficients for the polynomial loss, chosen on dev among proposals that fit the scores of trained "
            f"models, change its rsum by {_over_seeds(changed, released)} against the released ones: "
            f"{'a' if _winner(changed, released) else 'no'} difference is shown."
        )
    return sentences


def _habits(experiment: Experiment) -> list[str]:
    groups: dict[str, list[Run]] = {}
    for run in experiment.released:
        groups.setdefault(habit_of(run), []).append(run)
    if not groups:
        return []
    said = "; ".join(f"{habit} {_over_seeds(runs, experiment.runs)}" for habit, runs in groups.items())
    shown = ", ".join(habit for habit, runs in groups.items() if _winner(runs, experiment.runs))
    end = f"an effect of {shown} is shown" if shown else "no effect is shown"
    return [f"Habits of the released code on {experiment.dataset}, change in rsum: {said}; {end}."]


def _models(experiment: Experiment) -> list[str]:
    words = {
        "first": "the polynomial loss with", "second": "the triplet loss with", "": "neither with",
        "collapsed": "nothing to compare, as trainings collapsed to nearly equal scores, with",
    }  # fmt: skip
    found = _by_winner(experiment)
    said = "; ".join(f"{words[who]} {', '.join(found[who])}" for who in words if found[who])
    return [f"Which loss is shown to be ahead on {experiment.dataset}, model by model: {said}."]


def _by_winner(experiment: Experiment) -> dict[str, list[str]]:
    """The models with which the polynomial ("first") or the triplet loss ("second") is ahead, neither, or nothing."""
    ahead: dict[str, list[str]] = {"first": [], "second": [], "": [], "collapsed": []}
    for model, by_loss in by_model(experiment).items():
        title, _, which = model.partition(", ")
        winner = _winner(by_loss["polynomial"], by_loss["triplet"])
        if any(all(map(collapsed, runs)) for runs in by_loss.values()):
            winner = "collapsed"
        ahead[winner].append(f"{title} ({which})" if which else title)
    return ahead


def in_short(experiments: Sequence[tuple[ExperimentName, Experiment]]) -> str:
    """Count over all data sets and models which loss is shown to be ahead; "" where nothing was compared."""
    rich = {experiment.dataset for name, experiment in experiments if name in ("models", "videos")}
    counts: Counter[str] = Counter()
    for name, experiment in experiments:
        if name in ("models", "videos") or (name == "reproduce" and experiment.dataset not in rich):
            counts.update({who: len(models) for who, models in _by_winner(experiment).items()})
    if not counts.total():
        return ""
    collapses = f"; in {counts['collapsed']} trainings collapsed" if counts["collapsed"] else ""
    return (
        f"In short: of {counts.total()} comparisons, each of one model on one data set, the polynomial loss is shown "
        f"to be ahead in {counts['first']}, the triplet loss in {counts['second']}, neither in {counts['']}{collapses}."
    )


SENTENCES: dict[ExperimentName, Callable[[Experiment], list[str]]] = {
    "reproduce": _two_losses, "compare": _all_losses, "fidelity": _habits, "models": _models, "videos": _models,
}  # fmt: skip


def _rsums(runs: Sequence[Run]) -> list[float]:
    return [run.metrics["rsum"] for run in runs]


def _rsum(runs: Sequence[Run]) -> str:
    return summarize(_rsums(runs)).mean_and_std


def _over_seeds(a: Sequence[Run], b: Sequence[Run]) -> Interval:
    """Interval of the rsum of a - b over the seeds that both have."""
    sides = [{run.config["seed"]: run.metrics["rsum"] for run in side} for side in (a, b)]
    seeds = [seed for seed in sides[0] if seed in sides[1]]
    first, second = ([side[seed] for seed in seeds] for side in sides)
    return paired_interval(first, second)


def _winner(a: Sequence[Run], b: Sequence[Run]) -> str:
    """Which is shown to be ahead, "first" or "second": both intervals, over seeds and over images, exclude 0; or ""."""
    images = (np.mean([run.rsum_by_image for run in side], axis=0) for side in (a, b))
    intervals = (_over_seeds(a, b), paired_bootstrap(*images))
    if all(interval.low > 0 for interval in intervals):
        return "first"
    return "second" if all(interval.high < 0 for interval in intervals) else ""
