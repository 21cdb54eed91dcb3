"""The figures of the notebooks; every function returns the figure and the data it drew."""

import functools
import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uwml_lib.reporting import Experiment, Run, by_model
from uwml_lib.weighting import pair_weights

STYLE = Path(__file__).parent / "style.mplstyle"
# Colours of Okabe and Ito, which colour-blind readers can tell apart; line styles for those who print.
LOOK: dict[str, dict[str, Any]] = {
    "triplet": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "polynomial": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}

OTHER_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "linestyle": "-", "marker": "^"},
    {"color": "#009E73", "linestyle": "--", "marker": "v"},
    {"color": "#CC79A7", "linestyle": "-.", "marker": "D"},
    {"color": "#E69F00", "linestyle": ":", "marker": "x"},
)
PAIR_LOOK: dict[str, dict[str, Any]] = {
    "positive": {"color": "#009E73", "linestyle": "-"},
    "negative": {"color": "#CC3311", "linestyle": "--"},
}

SWEEP_LOOK: dict[bool, dict[str, Any]] = {
    False: {"marker": "o", "markersize": 6, "markerfacecolor": "white", "label": "a setting, ± std over seeds"},
    True: {"marker": "*", "markersize": 14, "markerfacecolor": "black", "label": "the chosen one"},
}


def _styled(draw: Callable[..., tuple[Figure, Any]]) -> Callable[..., tuple[Figure, Any]]:
    @functools.wraps(draw)
    def styled(*arguments: Any, **options: Any) -> tuple[Figure, Any]:
        with plt.style.context(STYLE):
            return draw(*arguments, **options)

    return styled


def show(figure: Figure, alt: str, path: Path | None = None) -> None:
    """Show a figure in a notebook with a text for those who cannot see it, and keep it as a PNG file at `path`."""
    from IPython.display import display  # all other figures are drawn without it

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


@_styled
def pictures_with_boxes(
    pictures: np.ndarray, boxes: np.ndarray, titles: Sequence[str] = (), columns: int = 4
) -> tuple[Figure, np.ndarray]:
    """Draw pictures (n, height, width, 3) with their region proposals (n, regions, 4), fractions x1, y1, x2, y2."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, picture_boxes in zip(axes.flat, pictures, boxes, strict=False):
        axis.imshow(picture)
        for box in picture_boxes:
            _rectangle(axis, box, picture.shape, edgecolor="white", linewidth=0.8, alpha=0.8)
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=9, fontweight="normal")
    return figure, boxes


@_styled
def filmstrips(films: Sequence[np.ndarray], titles: Sequence[str]) -> tuple[Figure, list[np.ndarray]]:
    """Draw films, each (frames, height, width, 3), frame beside frame in a row, with a title over each."""
    longest = max(map(len, films))
    figure, axes = plt.subplots(len(films), 1, figsize=(0.42 * longest, 0.85 * len(films)), squeeze=False)
    strips = [np.concatenate(list(film), axis=1) for film in films]
    for axis, strip, title in zip(axes.flat, strips, titles, strict=True):
        axis.imshow(strip)
        axis.set_xlim(-0.5, longest * strip.shape[0] - 0.5)
        axis.set_title(title, loc="left", fontsize=9, fontweight="normal")
        axis.axis("off")
    return figure, strips


@_styled
def caption_lengths(lengths: dict[str, Sequence[int]]) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of captions by length, split by split; lengths count `<start>` and `<end>`."""
    shares = pd.DataFrame({split: pd.Series(values).value_counts(normalize=True) for split, values in lengths.items()})
    shares = 100 * shares.sort_index().fillna(0)
    figure, axis = plt.subplots(figsize=(7, 3))
    for (split, column), linestyle in zip(shares.items(), ("-", "--", ":"), strict=False):
        axis.plot(shares.index, column, linestyle, label=split, marker=".")
    axis.set(xlabel="tokens in a caption, with <start> and <end>", ylabel="captions, %", title="How long captions are")
    axis.legend()
    return figure, shares


@_styled
def recall_curves(experiment: Experiment) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum on the images that choose the epoch: a line for the mean over seeds, a band from worst to best seed."""
    lines = pd.concat(
        run.history().query("kind == 'epoch'").assign(loss=loss, seed=run.config["seed"])
        for loss, runs in experiment.by_loss().items()
        for run in runs
    )
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for loss, group in lines.groupby("loss", sort=False):
        by_epoch = group.groupby("epochs_done")["dev_rsum"].agg(["mean", "min", "max"])
        axis.plot(by_epoch.index, by_epoch["mean"], label=loss, markersize=4, **_look(loss))
        axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=_look(loss)["color"], alpha=0.15)
    _mark_warmup(axis, experiment.runs[0])
    words = experiment.runs[0].chosen_by
    axis.set(
        xlabel="epochs", ylabel=f"{words} rsum", title=f"Recall on {words}: mean over seeds, band from worst to best"
    )
    axis.legend()
    return figure, lines[["loss", "seed", "epochs_done", "dev_rsum"]]


@_styled
def score_curves(experiment: Experiment) -> tuple[Figure, pd.DataFrame]:
    """Draw how the mean score of a batch's positives and hardest negatives moves: a panel a loss, a line a seed."""
    by_loss = experiment.by_loss()
    figure, axes = plt.subplots(1, len(by_loss), figsize=(4.6 * len(by_loss), 3.8), sharey=True, squeeze=False)
    looks = {
        "positive_score": {**PAIR_LOOK["positive"], "label": "positives"},
        "hardest_negative_score": {**PAIR_LOOK["negative"], "label": "hardest negatives"},
    }
    drawn = []
    for axis, (loss, runs) in zip(axes.flat, by_loss.items(), strict=True):
        for run in runs:
            steps = run.history().query("kind == 'step'")
            for name, look in looks.items():
                axis.plot(steps["epochs_done"], steps[name], linewidth=1.1, **look)
            drawn.append(steps[["epochs_done", *looks]].assign(loss=loss, seed=run.config["seed"]))
        _mark_warmup(axis, runs[0])
        axis.set(title=f"{loss}, {len(runs)} seeds" if len(runs) > 1 else loss, xlabel="epochs")
    axes.flat[0].set_ylabel("mean score in a batch")
    figure.legend(*(item[:2] for item in axes.flat[0].get_legend_handles_labels()), loc="outside lower center", ncols=2)
    return figure, pd.concat(drawn)


@_styled
def collapse_curves(with_warmup: Sequence[Run], without_warmup: Sequence[Run]) -> tuple[Figure, pd.DataFrame]:
    """Draw the triplet loss of single runs with and without warm-up against the line 2 * margin * N.

    On that line every anchor's hardest negative scores like its positive: all scores are equal, nothing is learnt.
    """
    config = without_warmup[0].config
    level = 2 * config["loss_options"].get("margin", 0.2) * config["batch_size"]
    figure, axis = plt.subplots(figsize=(7, 3.6))
    drawn = []
    for words, runs, style in (("with warm-up", with_warmup, "-"), ("without warm-up", without_warmup, ":")):
        for run in runs:
            steps = run.history().query("kind == 'step' and warmup == False")
            axis.plot(steps["epochs_done"], steps["loss"], style, color=_look("triplet")["color"], label=words)
            drawn.append(steps[["epochs_done", "loss"]].assign(run=words))
    axis.axhline(level, color="black", linewidth=1, linestyle="-.")
    place: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "xytext": (-4, 5),
        "textcoords": "offset points",
        "ha": "right",
    }
    axis.annotate("2 · margin · N", (1, level), **place)
    axis.set(
        xlabel="epochs", ylabel="hardest-negative triplet loss", title="What the warm-up is for", ylim=(0, 1.15 * level)
    )
    axis.legend()
    return figure, pd.concat(drawn)


@_styled
def retrieval_examples(
    examples: Sequence[dict[str, Any]], pictures: np.ndarray, columns: int = 3
) -> tuple[Figure, Sequence[dict[str, Any]]]:
    """Draw queries, their true image and the best results: each example has query, images, true, rank (from 1)."""
    width = 2 + columns
    figure, axes = plt.subplots(len(examples), width, figsize=(2.1 * width, 2.2 * len(examples)), squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        row[0].text(0.5, 0.5, textwrap.fill(example["query"], 22), ha="center", va="center", fontsize=10)
        row[0].set_title(f"true image at rank {example['rank']}", fontsize=9, fontweight="normal")
        row[0].axis("off")
        shown = [("its image", example["true"])]
        shown += [(f"found {place}.", image) for place, image in enumerate(example["images"], 1)]
        for axis, (words, image) in zip(row[1:], shown, strict=False):
            axis.imshow(pictures[image])
            right = image == example["true"]
            axis.set_title(f"{words} {'✓' if right and words != 'its image' else ''}", fontsize=9, fontweight="normal")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=3 if right else 0.5, color="#009E73" if right else "#888888")
    return figure, examples


@_styled
def attention_by_word(
    picture: np.ndarray, boxes: np.ndarray, words: Sequence[str], weights: np.ndarray, columns: int = 4
) -> tuple[Figure, pd.DataFrame]:
    """Draw, word by word, the attention over regions: weights (words, regions), boxes (regions, 4) as fractions.

    The opacity and the width of a box grow with its weight; the number is the largest weight of the word.
    """
    rows = -(-len(words) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, word, word_weights in zip(axes.flat, words, weights, strict=False):
        axis.imshow(picture, alpha=0.75)
        for box, weight in zip(boxes, word_weights, strict=True):
            strength = float(weight / word_weights.max())
            width = 0.4 + 2.6 * strength  # white on black, visible on digits of any colour
            _rectangle(axis, box, picture.shape, edgecolor="black", linewidth=width + 2, alpha=strength**2)
            _rectangle(axis, box, picture.shape, edgecolor="white", linewidth=width, alpha=strength**2)
        axis.set_title(f"{word}  ({word_weights.max():.2f})", fontsize=10, fontweight="normal")
    return figure, pd.DataFrame(weights, index=pd.Index(words, name="word"))


@_styled
def weight_curves(
    curves: dict[str, dict[str, pd.DataFrame]],
    scores: dict[str, np.ndarray] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> tuple[Figure, dict[str, dict[str, pd.DataFrame]]]:
    """Draw the weight of a pair against its similarity: a panel for positives, a panel for negatives.

    curves: loss -> {"positive": ..., "negative": ...}, frames of `weighting.weight_curve`, with a column `closed_form`
    drawn as dots if there is one. scores: "positive" and "negative" scores of a trained model, drawn as a histogram
    under the curves. limits: of the similarity axis.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.1), sharey=True)
    looks = {name: LOOK.get(name, OTHER_LOOKS[place % len(OTHER_LOOKS)]) for place, name in enumerate(curves)}
    bottom, top = [], []
    for axis, kind in zip(axes, ("positive", "negative"), strict=True):
        for loss, frames in curves.items():
            frame, look = frames[kind], {**looks[loss], "marker": ""}
            axis.plot(frame["similarity"], frame["weight"], label=f"{loss}, autograd", **look)
            if "closed_form" in frame:
                few = frame.iloc[::10]
                dots = {"linestyle": "", "marker": looks[loss]["marker"], "markersize": 5, "markerfacecolor": "none"}
                axis.plot(
                    few["similarity"], few["closed_form"], color=look["color"], label=f"{loss}, closed form", **dots
                )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{kind} pair", xlabel="similarity of the pair", xlim=limits)
        if scores is not None:
            below = axis.twinx()
            below.hist(scores[kind], bins=40, range=limits, color="#777777", alpha=0.35, density=True)
            below.set(yticks=[], ylim=(0, 3 * below.get_ylim()[1]))
            below.grid(False)
        seen = [frame[kind].loc[frame[kind]["similarity"].between(*limits), "weight"] for frame in curves.values()]
        bottom.append(min(0, *(weights.min() for weights in seen)))
        top.append(max(0, *(weights.max() for weights in seen)))
    axes[0].set_ylabel("weight (below 0: pushed the wrong way)")
    axes[0].set_ylim(min(bottom) - 0.1, max(top) + 0.1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure, curves


@_styled
def weight_gallery(
    curves: dict[str, dict[str, pd.DataFrame]], columns: int = 4
) -> tuple[Figure, dict[str, dict[str, pd.DataFrame]]]:
    """Draw a small panel for every loss, all on the same axes: the weight of a positive and of a negative pair.

    curves: as in `weight_curves`. The weight axis is linear up to 1 and logarithmic beyond.
    """
    figure, axes = _panels(len(curves), columns, width=2.6, height=2.2)
    for axis, (loss, frames) in zip(axes, curves.items(), strict=False):
        for kind, look in PAIR_LOOK.items():
            axis.plot(frames[kind]["similarity"], frames[kind]["weight"], label=f"{kind} pair", **look)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_yscale("symlog", linthresh=1, linscale=1.5)
        axis.set_title(loss, fontsize=9)
    figure.supxlabel("similarity of the pair", fontsize=10)
    figure.supylabel("weight (below 0: the wrong way)", fontsize=10)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, curves


@_styled
def weight_maps(
    maps: dict[str, pd.DataFrame], kind: str = "negative", columns: int = 4
) -> tuple[Figure, dict[str, pd.DataFrame]]:
    """Draw a loss's weight of a positive or negative pair (`kind`) over both similarities: a panel a loss.

    maps: loss -> a frame of `weighting.weight_map`. Colours go from each loss's own largest weight (blue) over zero
    (white) to weights of the wrong sign (red); a line marks where both similarities are equal.
    """
    figure, axes = _panels(len(maps), columns, width=2.5, height=2.4)
    for axis, (loss, frame) in zip(axes, maps.items(), strict=False):
        table = frame.pivot(index="negative", columns="positive", values=f"{kind}_weight")
        largest = max(table.abs().to_numpy().max(), 1e-12)
        axis.pcolormesh(
            table.columns,
            table.index,
            table / largest,
            cmap="RdBu",
            vmin=-1,
            vmax=1,
            shading="nearest",
            rasterized=True,
        )
        axis.plot([-1, 1], [-1, 1], color="black", linewidth=0.7, linestyle=":")
        axis.set_title(f"{loss}, up to {largest:.3g}", fontsize=8)
        axis.grid(False)
    figure.supxlabel("similarity of the positive", fontsize=10)
    figure.supylabel("similarity of its negative", fontsize=10)
    return figure, maps


@_styled
def batch_weights(
    loss: Callable[..., Any], scores: Any, curves: dict[str, pd.DataFrame]
) -> tuple[Figure, pd.DataFrame]:
    """Draw a loss's weight curves and, as dots on top, the weights it gives the pairs of a batch of scores (n, n).

    curves: "positive" and "negative", frames of `weighting.weight_curve`. Negatives without weight are left out.
    """
    weights = pair_weights(loss, scores)
    pushed = weights.negative != 0
    dots = {
        "positive": (scores.diagonal(), weights.positive),
        "negative": (scores[pushed], weights.negative[pushed]),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6))
    for axis, (kind, (similarity, weight)) in zip(axes, dots.items(), strict=True):
        axis.plot(curves[kind]["similarity"], curves[kind]["weight"], label="one anchor alone", **PAIR_LOOK[kind])
        axis.plot(similarity, weight, ".", color="black", alpha=0.6, label="pairs of the batch")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=f"{kind} pairs", xlabel="similarity of the pair", ylabel="weight", xlim=(-1, 1))
        axis.legend(fontsize=8)
    frames = [
        pd.DataFrame({"pair": kind, "similarity": similarity, "weight": weight})
        for kind, (similarity, weight) in dots.items()
    ]
    return figure, pd.concat(frames, ignore_index=True)


@_styled
def convergence(experiment: Experiment, columns: int = 4) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum on the images that choose the epoch, mean over seeds: a panel a loss, all others in grey behind it."""
    lines = pd.DataFrame({
        loss: pd.concat([run.history().query("kind == 'epoch'").set_index("epoch")["dev_rsum"] for run in runs], axis=1)
        .mean(axis=1)
        for loss, runs in experiment.by_loss().items()
    })  # fmt: skip
    lines.index = lines.index.astype(int) + 1
    figure, axes = _panels(len(lines.columns), columns, width=2.5, height=2.0)
    for axis, loss in zip(axes, lines.columns, strict=False):
        axis.plot(lines.index, lines, color="#bbbbbb", linewidth=0.7)
        axis.plot(lines.index, lines[loss], color="#0072B2", marker=".")
        axis.set_title(f"{loss}: {lines[loss].iloc[-1]:.0f}", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("epochs done", fontsize=10)
    figure.supylabel(f"{experiment.runs[0].chosen_by} rsum", fontsize=10)
    return figure, lines


@_styled
def mass_by_rank(masses: dict[str, pd.DataFrame]) -> tuple[Figure, pd.DataFrame]:
    """Draw, loss by loss, how the weight of a batch's negatives is shared between hard and easy ones.

    masses: loss -> a frame of `weighting.negative_mass`.
    """
    edges, names = [0, 1, 5, 20, np.inf], ["hardest", "2nd to 5th", "6th to 20th", "the rest"]
    table = pd.DataFrame({
        loss: frame.groupby(pd.cut(frame["rank"], edges, labels=names), observed=False)["share"].sum()
        for loss, frame in masses.items()
    }).T  # fmt: skip
    table = 100 * table.div(table.sum(axis=1).replace(0, np.nan), axis=0)
    figure, axis = plt.subplots(figsize=(7.5, 0.32 * len(table) + 1.2))
    left = np.zeros(len(table))
    for name, colour, hatch in zip(
        names, ("#08306b", "#2171b5", "#6baed6", "#deebf7"), ("", "//", "..", ""), strict=True
    ):
        axis.barh(table.index, table[name], left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left = left + table[name].fillna(0).to_numpy()
    axis.invert_yaxis()
    axis.set(xlabel="share of the negatives' weight, %", xlim=(0, 100))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    return figure, table


@_styled
def models_compared(experiment: Experiment) -> tuple[Figure, pd.DataFrame]:
    """Draw rsum, model by model, a mark for each loss: the mean over seeds, with a line from worst to best."""
    found = by_model(experiment)
    rows = [
        {"model": model, "loss": loss, "seed": run.config["seed"], "rsum": run.metrics["rsum"]}
        for model, by_loss in found.items()
        for loss, runs in by_loss.items()
        for run in runs
    ]
    values = pd.DataFrame(rows)
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(found) + 1.3))
    for offset, (loss, group) in zip((-0.13, 0.13), values.groupby("loss", sort=False), strict=False):
        spread = group.groupby("model", sort=False)["rsum"].agg(["mean", "min", "max"]).loc[list(found)]
        places = np.arange(len(found)) + offset
        ends = np.abs(spread[["min", "max"]].sub(spread["mean"], axis=0).to_numpy().T)
        look = _look(loss) | {"linestyle": "none"}
        axis.errorbar(spread["mean"], places, xerr=ends, label=loss, markersize=6, **look)
    axis.set(yticks=range(len(found)), yticklabels=list(found), xlabel=f"{experiment.split} rsum")
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.4)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, values


@_styled
def sweep_panels(
    settings: pd.DataFrame, names: Sequence[str], label: str, columns: int = 3
) -> tuple[Figure, pd.DataFrame]:
    """Draw what was reached against every setting that was varied: a panel a name, a ring a setting of the sweep.

    settings: a row a setting, with its values under `names`, the mean over seeds and its std (NaN for one seed), which
    is the error bar, and whether it was chosen, which makes the ring a star. label: of the mean. Numbers lie where they
    belong, on a logarithmic axis if they span more than a factor of 20; other values stand side by side, and so do the
    settings of one such value. Returns a row a point.
    """
    rows = -(-len(names) // columns)
    across = min(columns, len(names))
    figure, axes = plt.subplots(rows, across, figsize=(3.4 * across, 3.1 * rows), sharey=True, squeeze=False)
    drawn = []
    for axis, name in zip(axes.flat, names, strict=False):
        points = settings.sort_values("setting")[["setting", "mean", "std", "chosen", name]]
        points = points.assign(name=name, value=points[name].map(json.dumps))
        if all(type(value) in (int, float) for value in settings[name]):
            points["x"] = settings[name].astype(float)
            if points["x"].min() > 0 and points["x"].max() > 20 * points["x"].min():
                axis.set_xscale("log")
        else:
            places = {value: place for place, value in enumerate(points["value"].unique())}
            same = points.groupby("value")["value"]
            beside = (same.cumcount() + 0.5) / same.transform("size") - 0.5
            points["x"] = points["value"].map(places) + 0.6 * beside
            axis.set_xticks(list(places.values()), [textwrap.shorten(value, 22) for value in places], fontsize=8)
            axis.set_xlim(-0.5, len(places) - 0.5)
        axis.errorbar(points["x"], points["mean"], points["std"], fmt="none", ecolor="#777777", elinewidth=1, capsize=3)
        for chosen, look in SWEEP_LOOK.items():
            part = points[points["chosen"] == chosen]
            axis.plot(part["x"], part["mean"], linestyle="", markeredgecolor="black", zorder=3, **look)
        axis.set_xlabel(name)
        drawn.append(points)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for row in axes:
        row[0].set_ylabel(label)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure, pd.concat(drawn, ignore_index=True)[["name", "setting", "value", "x", "mean", "std", "chosen"]]


def _panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[plt.Axes]]:
    """Small multiples on shared axes; places left over are empty."""
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, list(axes.flat)


def _look(loss: str) -> dict[str, Any]:
    if loss in LOOK:
        return LOOK[loss]
    palette = sns.color_palette("colorblind")
    return {"color": palette[sum(map(ord, loss)) % len(palette)], "linestyle": "-.", "marker": "^"}


def _mark_warmup(axis: plt.Axes, run: Run) -> None:
    epochs = run.config["warmup_epochs"]
    if epochs:
        axis.axvspan(0, epochs, color="#000000", alpha=0.05, linewidth=0)
        axis.annotate(
            "warm-up",
            (0, 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize=8,
        )


def _rectangle(axis: plt.Axes, box: np.ndarray, shape: tuple[int, ...], **style: Any) -> None:
    height, width = shape[:2]
    x1, y1, x2, y2 = box * (width, height, width, height)
    axis.add_patch(plt.Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, **style))
