"""The report of losses tuned alike, on one model or several: tables, verdict, where the trained scores lie."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from uwml_lib.datasets import EMBEDDED
from uwml_lib.evaluation.statistics import Comparison, compare, compare_all, paired_interval
from uwml_lib.released.published import ROWS
from uwml_lib.reports import tables
from uwml_lib.reports.report import Report
from uwml_lib.reports.score_ranges import draw_score_ranges, pushed_in_words, score_table, weighed_in_words
from uwml_lib.reports.tuning import Another, chosen, chosen_here, how_tuned, tried
from uwml_lib.reports.two_losses import by_seed, data_remarks
from uwml_lib.runs.run import Run
from uwml_lib.runs.study_runs import StudyRuns
from uwml_lib.support.errors import expect
from uwml_lib.support.progress import counted

FITTED = "polynomial_fitted"
"""The polynomial loss with coefficients fitted to the scores of the best trial of the released ones."""
PUBLISHED_GAINS = "The published gains of the polynomial loss"
"""How the sentence begins that says what is seen of them."""
EVERY_PAIR = (
    "Every pair of losses: by how much the row's rsum is above that of the row with the column's number (* both "
    "intervals, corrected for the number of pairs, exclude 0)"
)
WHERE_SCORES_LIE = (
    "Where the scores of the first seed lie (in training: means over the batches of the last epoch; else: over batches "
    "of the images that chose it)"
)
Key = tuple[str, str]
"""Model and loss."""


def groups_of(study: StudyRuns) -> dict[Key, list[Run]]:
    """Return (model, loss) -> its runs, in the order of the table: the first model, the fitted coefficients, others."""
    main = study.runs[0].model
    by_loss = study.by_loss()
    both = by_loss.keys() >= {"triplet", "polynomial"}
    expect(both, f"{study.dataset}: runs", f"those of {', '.join(by_loss)}", "some of triplet and of polynomial")
    if fitted := [*study["coefficients"]]:
        two = {loss: by_loss.pop(loss) for loss in ("triplet", "polynomial")}
        by_loss = {**two, FITTED: fitted, **by_loss}
    groups = {(main, loss): runs for loss, runs in by_loss.items()}
    for title in dict.fromkeys(run.model for run in study["models"]):
        of_model = tuple(run for run in study["models"] if run.model == title)
        by_loss = StudyRuns(study.dataset, {"runs": of_model}).by_loss()
        groups |= {(title, loss): runs for loss, runs in by_loss.items()}
    return groups


def on_first_model(groups: Mapping[Key, list[Run]]) -> dict[str, list[Run]]:
    """Return loss -> its runs, on the model that comes first."""
    (first, _), *_ = groups
    return {loss: runs for (model, loss), runs in groups.items() if model == first}


def comparisons(groups: Mapping[Key, list[Run]]) -> dict[Key, Comparison]:
    """Return (model, loss) -> how it compares with the triplet loss on that model.

    The question asked first, the polynomial loss on the first model, stands alone; all others are corrected for how
    many they are. Trainings with the same seed begin with the same weights, so they are pairs; where one loss has more
    seeds than the other, they cannot be.
    """
    first = next(key for key in groups if key[1] == "polynomial")
    pairs = {key: (runs, groups[key[0], "triplet"]) for key, runs in groups.items() if key[1] != "triplet"}
    return {first: compare(*pairs.pop(first))} | compare_all(pairs, paired=None)


def labels(groups: Mapping[Key, Sequence[Run]]) -> dict[Key, str]:
    """Return (model, loss) -> what its row is called; the model is named where there are several."""
    several = len({model for model, _ in groups}) > 1
    return {(model, loss): f"{model}: {loss}" if several else loss for model, loss in groups}


def tuned_losses(study: StudyRuns, another: Another = MappingProxyType({})) -> Report:
    """Report every loss against the triplet loss, with the settings and the budget of each.

    another: what other tunings chose that losses were offered.
    """
    study.check_comparable()
    groups = groups_of(study)
    found = comparisons(groups)
    first, run = next(iter(found)), study.runs[0]
    on_first = on_first_model(groups)
    every = every_pair(on_first)
    verdict, n_images = found[first].verdict("polynomial", "triplet"), run.images_ranked
    polynomial, triplet = (tables.mean_and_std(on_first[loss]) for loss in ("polynomial", "triplet"))
    finding = (
        f"On {study.dataset}, both losses tuned alike, the polynomial loss reaches an rsum of {polynomial} and the "
        f"triplet loss {triplet} ({first[0]}; {counted(n_images, f'{study.split} image')}; "
        f"{counted(found[first].n[0], 'seed')} each), a difference of {found[first].over_seeds} over seeds and "
        f"{found[first].over_images.ends} over images (95 % intervals); {verdict}."
    )
    return Report(
        title=f"{study.dataset}: losses tuned alike",
        table=_results(groups, found, study.split),
        runs=tables.run_table(study.all_runs),
        commands=tables.commands_in_words(study.all_runs),
        about=(how_tuned(on_first, another),),
        verdict=verdict,
        decided=bool(found[first].winner),
        notes=tuple(_notes(study, found)),
        findings=(finding, *_published_gain(study.dataset, first, found[first]),
                  f"Seed by seed on {study.dataset}, both tuned: {by_seed(on_first)[1]}.",
                  *_by_direction(study.dataset, on_first), *pushed_in_words(study.dataset, on_first),
                  *weighed_in_words(study.dataset, on_first),
                  *_of_all_losses(study.dataset, on_first, found, every)),
        outcomes={
            f"{model} on {study.dataset}, each loss tuned": comparison.leader("polynomial", "triplet")
            for (model, loss), comparison in found.items() if loss == "polynomial"
        },
        further={
            "What was chosen": chosen(labelled := {label: groups[key] for key, label in labels(groups).items()}),
            **tried(study.dataset, chosen_here(on_first), another),
            WHERE_SCORES_LIE: score_table(study.dataset, labelled),
            **({EVERY_PAIR: pairs(every)} if len(every) > 1 else {}),
        },
        data=_data(study, groups, found),
    )  # fmt: skip


def _published_gain(dataset: str, first: Key, found: Comparison) -> Iterator[str]:
    """Say what is seen of the published gain, with the same model on photographs."""
    if dataset in EMBEDDED or first[0] != "SCAN, i2t Mean" or math.isnan(found.over_seeds.low):
        return
    intervals = (found.over_seeds, found.over_images)
    low, high = min(of.low for of in intervals), max(of.high for of in intervals)
    names = ("polynomial_i2t_avg", "triplet_i2t_avg", "triplet_i2t_avg_retrained")
    polynomial, *triplets = (float(ROWS[f"f30k_{name}"].metrics["rsum"] or 0.0) for name in names)
    gains = [polynomial - triplet for triplet in triplets]
    published, again = ("above" if gain > high else "below" if gain < low else "within" for gain in gains)
    lie = f"both lie {again}" if published == again else f"the first lies {published}, the second {again}"
    yield (
        f"{PUBLISHED_GAINS}, {gains[0]:+.1f} over the published triplet loss and {gains[1]:+.1f} over the one that "
        f"others retrained, are of Flickr30K with better features; {lie} what these intervals span."
    )


def _by_direction(dataset: str, by_loss: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Say which direction of the retrieval the difference of the two losses comes from."""
    said = []
    for direction in ("image_to_text", "text_to_image"):
        names = [name for name in tables.COLUMNS if name.startswith(direction)]
        ours, theirs = (
            [sum(run.metrics[name] for name in names) for run in by_loss[loss]] for loss in ("polynomial", "triplet")
        )
        said.append(f"{direction.replace('_', ' ')} {paired_interval(ours, theirs)}")
    yield f"By direction on {dataset}, polynomial − triplet in the sum of three recalls, over seeds: {', '.join(said)}."


def _of_all_losses(
    dataset: str, of_model: Mapping[str, list[Run]], found: Mapping[Key, Comparison], every: Mapping[Key, Comparison]
) -> Iterator[str]:
    """Say which losses are the best on the first model, how they compare, and whether fitted coefficients helped."""
    model = of_model["triplet"][0].model
    if len(of_model) < 3:
        return
    ranked = sorted(of_model, key=lambda loss: -tables.summary_of(of_model[loss]).mean)
    highest = ", ".join(f"{loss} {tables.mean_and_std(of_model[loss])}" for loss in ranked[:3])
    better, worse, undecided = (
        ", ".join(loss for loss in ranked if (model, loss) in found and found[model, loss].winner == side) or "none"
        for side in ("a", "b", "")
    )
    yield (
        f"{len(of_model)} losses on {dataset}, each tuned by the same rule. The highest mean rsums: "
        f"{highest}. Better than the triplet loss: {better}; worse: {worse}; not decided: {undecided}."
    )
    yield pairs_in_words(every)
    if FITTED in of_model:
        change = compare(of_model[FITTED], of_model["polynomial"], paired=None)
        yield (
            f"The polynomial loss on {dataset} with coefficients fitted to its scores, tuned alike: its rsum changes "
            f"by {change.over_seeds} against the released ones, {'a' if change.winner else 'not a'} statistically "
            "significant difference as one planned comparison, which is not corrected for all the pairs."
        )
    yield from _levels(dataset, of_model)


def _levels(dataset: str, by_loss: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Say with which losses the scores of the seeds end at two levels, and what that costs."""
    said = []
    for loss, runs in by_loss.items():
        if levels := tables.two_levels(runs):
            high, low = levels
            cost = tables.summary_of(high).mean - tables.summary_of(low).mean
            by = f"{abs(cost):.0f} points of rsum {'behind' if cost > 0 else 'ahead of'} its other seeds"
            said.append(f"{loss} with {len(low)} of {len(runs)} seeds, {by}")
    if at := "; ".join(said):
        yield f"With some losses scores settle on {dataset} at one of two levels, by the seed. At the lower one: {at}."


def _notes(study: StudyRuns, found: Mapping[Key, Comparison]) -> list[str]:
    others = len(found) - 1
    corrected = f" All but polynomial − triplet are corrected for their number, {others} (Holm)." if others > 1 else ""
    return [
        "Recalls in percent, mean ± sample standard deviation over seeds. Differences in rsum with 95 % intervals: "
        "over seeds by Student's t over pairs, for trainings with the same seed begin with the same weights, and by "
        f"Welch's t where one loss has more seeds; over images by paired bootstrap, seeds averaged.{corrected}",
        by_seed(study.by_loss())[0],
        *study.remarks,
        *tables.collapsed_in_words(study.runs),
        *data_remarks(study),
    ]


def _results(groups: Mapping[Key, list[Run]], found: Mapping[Key, Comparison], split: str) -> pd.DataFrame:
    apart = {key: tables.differences(comparison) for key, comparison in found.items()}
    models = [model for model, _ in groups]
    rows = [
        {f"loss ({split} split)": label}
        | {tables.COLUMNS[name].strip(): tables.mean_and_std(groups[key], name) for name in tables.RECALL_AT_1_AND_RSUM}
        | {"seeds": len(groups[key])}
        | {f"− triplet, {over}": cell for over, cell in apart.get(key, {}).items()}
        | {"better": (found[key].leader(key[1], "triplet") or "not decided") if key in found else ""}
        for key, label in sorted(
            labels(groups).items(), key=lambda row: (models.index(row[0][0]), -tables.summary_of(groups[row[0]]).mean)
        )
    ]
    return pd.DataFrame(rows).fillna("").set_index(list(rows[0])[0])


def every_pair(by_loss: Mapping[str, list[Run]]) -> dict[Key, Comparison]:
    """Return pairs of losses of one model, the higher mean rsum first -> how they compare, corrected for all."""
    ranked = sorted(by_loss, key=lambda loss: -tables.summary_of(by_loss[loss]).mean)
    every = {(a, b): (by_loss[a], by_loss[b]) for a, b in itertools.combinations(ranked, 2)}
    return compare_all(every, paired=None)


def pairs(found: Mapping[Key, Comparison]) -> pd.DataFrame:
    """One row and one column for each loss, numbered, the best first: by how much the row's rsum is above the column's.

    found: of `every_pair`. A star marks what both intervals, corrected for the number of pairs, show to be a
    difference.
    """
    losses = [*dict.fromkeys(itertools.chain(*found))]
    rows = [f"{number}. {loss}" for number, loss in enumerate(losses, 1)]

    def cell(a: str, b: str) -> str:
        if a == b:
            return ""
        sign, comparison = (1, found[a, b]) if (a, b) in found else (-1, found[b, a])
        return f"{sign * comparison.over_seeds.difference:+.1f}{'*' if comparison.winner else ''}"

    cells = [[cell(a, b) for b in losses] for a in losses]
    return pd.DataFrame(cells, rows, range(1, len(losses) + 1)).rename_axis("loss")


def pairs_in_words(found: Mapping[Key, Comparison]) -> str:
    """Say which pairs of losses differ, and which losses no other one is shown to be better than."""
    losses = [*dict.fromkeys(itertools.chain(*found))]
    worse = {loss: [b for (a, b), comparison in found.items() if a == loss and comparison.winner] for loss in losses}
    sure = sum(map(len, worse.values()))
    said = "".join(f" {loss} is better than {', '.join(others)}." for loss, others in worse.items() if others)
    unbeaten = [loss for loss in losses if not any(loss in others for others in worse.values())]
    differ = "differs" if sure == 1 else "differ"
    return (
        f"Of {counted(len(found), 'pair')} of losses {sure or 'none'} {differ} statistically significantly.{said} "
        f"Shown to be worse than no other: {', '.join(unbeaten)}."
    )


def draw_scores(study: StudyRuns, picture: Path) -> None:
    """Draw where the scores of each loss's first seed lie on the first model."""
    draw_score_ranges(study.dataset, on_first_model(groups_of(study)), picture)


def _data(study: StudyRuns, groups: Mapping[Key, Sequence[Run]], found: Mapping[Key, Comparison]) -> dict[str, Any]:
    """Everything the report states, as plain values, each traceable to its run folders."""
    return {
        "dataset": study.dataset, "split": study.split, "n_images": study.runs[0].images_ranked,
        "groups": [
            {
                "model": model, "loss": loss,
                "metrics": {name: tables.plain(tables.summary_of(runs, name)) for name in tables.COLUMNS},
                "runs": tables.digests(runs),
                "against_triplet": _plain(found[model, loss]) if (model, loss) in found else None,
            }
            for (model, loss), runs in groups.items()
        ],
    }  # fmt: skip


def _plain(comparison: Comparison) -> dict[str, Any]:
    intervals = {name: tables.plain(getattr(comparison, name)) for name in ("over_seeds", "over_images")}
    return {**intervals, "winner": comparison.winner, "corrected_for": comparison.family}
