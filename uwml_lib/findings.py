"""What the experiments found, in sentences that follow from their numbers, for those who read nothing else."""

from collections.abc import Callable, Sequence

from uwml_lib.reporting import Experiment, ExperimentName, Run, by_model, comparison, habit_of
from uwml_lib.statistics import Interval, paired_interval, summarize


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
    ranked = sorted(by_loss, key=lambda loss: -summarize(_rsums(by_loss[loss])).mean)
    if "polynomial" not in ranked:
        return []
    place, best = ranked.index("polynomial") + 1, ranked[0]
    sentences = [
        f"Among {len(ranked)} losses on {experiment.dataset}, with equal budgets and tuning efforts, the polynomial "
        f"loss with its released coefficients is number {place} by the mean ({_rsum(by_loss['polynomial'])}); first is "
        f"{best} ({_rsum(by_loss[best])})."
    ]
    if experiment.coefficients:
        interval = _over_seeds(experiment.coefficients, by_loss["polynomial"])
        sentences.append(
            f"Coefficients chosen for the model's own scores change its rsum by {interval} against the released ones: "
            f"{'a' if _excludes_zero(interval) else 'no'} difference is shown."
        )
    return sentences


def _habits(experiment: Experiment) -> list[str]:
    groups: dict[str, list[Run]] = {}
    for run in experiment.released:
        groups.setdefault(habit_of(run), []).append(run)
    intervals = {habit: _over_seeds(runs, experiment.runs) for habit, runs in groups.items()}
    if not intervals:
        return []
    said = "; ".join(f"{habit} {interval}" for habit, interval in intervals.items())
    shown = ", ".join(habit for habit, interval in intervals.items() if _excludes_zero(interval))
    end = f"an effect of {shown} is shown" if shown else "no effect is shown"
    return [f"Habits of the released code on {experiment.dataset}, change in rsum: {said}; {end}."]


def _models(experiment: Experiment) -> list[str]:
    ahead: dict[str, list[str]] = {"polynomial": [], "triplet": [], "neither": []}
    for model, by_loss in by_model(experiment).items():
        interval = _over_seeds(by_loss["polynomial"], by_loss["triplet"])
        winner = "polynomial" if interval.difference > 0 else "triplet"
        ahead[winner if _excludes_zero(interval) else "neither"].append(model)
    said = "; ".join(f"{who} with {', '.join(models)}" for who, models in ahead.items() if models)
    return [f"Which loss is shown to be ahead on {experiment.dataset}, model by model: {said}."]


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


def _excludes_zero(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0
