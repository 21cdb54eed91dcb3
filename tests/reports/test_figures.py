"""Figures: the data they drew, not their pixels."""

import IPython.display
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.contour import ContourSet

from tests.made import made_runs
from uwml_lib.evaluation import compare_all
from uwml_lib.losses import LOSSES, PolynomialLoss, TripletLoss
from uwml_lib.reports import figures
from uwml_lib.weighting import anchor_curves, describe, negative_mass, pair_weights, weight_map

mpl.use("agg")


@pytest.fixture(autouse=True)
def close_all():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def curves():
    return {"triplet": anchor_curves(TripletLoss()), "polynomial": anchor_curves(PolynomialLoss(reduction="sum"))}


def test_weight_curves_are_those_of_the_equations(curves):
    figure, data = figures.weight_curves(curves, {"positive": np.ones(3), "negative": np.zeros(3)})
    positive, negative = data["polynomial"]["positive"], data["polynomial"]["negative"]
    np.testing.assert_allclose(positive["weight"], 0.7 - 0.4 * positive["similarity"])
    high = negative[negative["similarity"] > 0.35]
    np.testing.assert_allclose(high["weight"], 1.8 * high["similarity"] - 0.4)
    dead = negative[negative["similarity"].between(0.0956, 0.3488)]
    assert len(dead) > 3
    assert (dead["weight"] == 0).all()
    assert (negative[negative["similarity"] < 0.09]["weight"] < 0).all()
    assert (data["triplet"]["negative"]["weight"] == 1).all()
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    np.testing.assert_allclose(lines["_polynomial, autograd"].get_ydata(), negative["weight"])
    np.testing.assert_allclose(lines["_polynomial, closed form"].get_ydata(), negative["closed_form"][::10])
    counts = [sum(bar.get_height() for bar in axis.patches) for axis in figure.axes[2:]]
    assert counts == [3, 3]


def names(figure):
    """The names in a figure's legend, which stands outside all panels."""
    (legend,) = figure.legends
    return {text.get_text() for text in legend.get_texts()}


DEAD, WRONG_WAY = "dead zone: negatives are not moved", "negatives are moved the wrong way"


def test_the_legend_names_each_curve_once_and_the_shaded_zones(curves):
    own = {kind: frame.drop(columns="closed_form") for kind, frame in curves["triplet"].items()}
    zones = describe(PolynomialLoss(), (-1.0, 0.999)).zones
    figure, _ = figures.weight_curves({**curves, "own": own}, zones=zones)
    assert names(figure) == {"triplet", "polynomial", "own", DEAD, WRONG_WAY}
    assert figure.legends[0].get_title().get_text() == "lines: automatic differentiation; markers: closed form"
    drawn = {handle.get_label(): handle for handle in figure.legends[0].legend_handles}
    assert [drawn[name].get_marker() in ("", "None") for name in ("triplet", "polynomial", "own")] == [0, 0, 1]
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in figure.axes[1].patches]
    np.testing.assert_allclose(spans, [(-1, 0.0955), (0.0955, 0.3489)], atol=1e-4)
    assert not figure.axes[0].patches  # positives are moved the right way everywhere
    assert names(figures.weight_curves({"own": own})[0]) == {"own"}
    assert names(figures.weight_curves(curves, limits=(0.2, 1), zones=zones)[0]) == {"triplet", "polynomial", DEAD}


def test_cards_have_the_same_axes(curves):
    drawn = [figures.weight_card(name, {"held": curves[name], "far": curves[name]})[0] for name in curves]
    for what in ("get_xlim", "get_ylim", "get_yscale"):
        assert len({getattr(axis, what)() for figure in drawn for axis in figure.axes}) == 1
    for name, figure in zip(curves, drawn, strict=True):
        assert figure.get_suptitle() == name
        assert names(figure) == {"held", "far"}
        for axis, kind in zip(figure.axes, ("positive", "negative"), strict=True):
            np.testing.assert_allclose(axis.lines[0].get_ydata(), curves[name][kind]["weight"])
            assert axis.lines[0].get_linestyle() != axis.lines[1].get_linestyle()
    assert [figure.axes[0].get_ylabel() for figure in drawn] == ["weight", "weight\n(below 0: the wrong way)"]


def test_models_are_rows_of_quantiles_over_the_zones():
    spread = np.linspace(0, 1, 101)
    scores = {f"model {k}": {"positive": spread + k, "negative": spread - k} for k in range(3)}
    figure, table = figures.scores_of_models(scores, describe(PolynomialLoss(), (-1.0, 0.999)).zones)
    np.testing.assert_allclose(table.loc[("model 2", "negative")], np.array([0.01, 0.25, 0.5, 0.75, 0.99]) - 2)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == list(scores)
    assert names(figure) == {"positives", "hardest negatives", DEAD, WRONG_WAY}
    medians = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "s"]
    np.testing.assert_allclose(medians, [0.5, -0.5, -1.5])


def test_paths_share_their_axes_and_shade_zones_across():
    paths = {f"start {k}": pd.DataFrame({"positive": [k, 1.0], "hardest_negative": [0.2, -0.5]}) for k in range(2)}
    figure, data = figures.score_paths(paths, describe(PolynomialLoss(), (-1.0, 0.999)).zones)
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    for axis, start in zip(figure.axes, paths, strict=True):
        np.testing.assert_allclose(axis.lines[1].get_ydata(), data[start]["hardest_negative"])
        dead = axis.patches[1]
        np.testing.assert_allclose((dead.get_y(), dead.get_height()), (0.0955, 0.2534), atol=1e-4)
    assert names(figure) == {"positives, mean", "hardest negatives, mean", DEAD, WRONG_WAY}


def test_the_wrong_way_is_spoken_of_where_something_drawn_goes_it(curves):
    def labels(figure):
        return figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()

    wrong_way = "weight\n(below 0: the wrong way)"
    assert labels(figures.weight_curves(curves)[0]) == ("similarity of the pair", wrong_way)
    assert labels(figures.weight_curves(curves, limits=(0.1, 1.0))[0]) == ("similarity of the pair", "weight")
    assert figures.weight_gallery(curves)[0].get_supylabel() == wrong_way
    assert figures.weight_gallery({"triplet": curves["triplet"]})[0].get_supylabel() == "weight"


def test_every_curve_has_a_line_of_its_own(curves):
    drawn = dict.fromkeys(("polynomial", "released", "by hand", "from the scores"), curves["polynomial"])
    figure, _ = figures.weight_curves(drawn)
    lines = [line for line in figure.axes[0].lines if line.get_label() in drawn]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(drawn)
    assert len({line.get_color() for line in lines}) == len(drawn)


def test_a_gallery_has_a_panel_a_loss_on_the_same_axes(curves):
    drawn = {name: curves["polynomial" if "polynomial" in name else "triplet"] for name in list(LOSSES)[:5]}
    figure, data = figures.weight_gallery(drawn, columns=3)
    assert [axis.get_title() for axis in figure.axes] == list(drawn)
    assert len({axis.get_ylim() for axis in figure.axes}) == len({axis.get_xlim() for axis in figure.axes}) == 1
    for axis, loss in zip(figure.axes, drawn, strict=True):
        for line, kind in zip(axis.lines, ("positive", "negative"), strict=False):
            np.testing.assert_allclose(line.get_ydata(), data[loss][kind]["weight"])


@pytest.mark.parametrize(("kind", "below_zero"), [("positive", []), ("negative", ["polynomial"])])
def test_maps_share_one_scale_with_a_bar(kind, below_zero):
    axis = torch.linspace(-0.9, 0.9, 7)
    losses = {name: LOSSES[name](reduction="sum") for name in ("triplet", "polynomial", "infonce")}
    maps = {name: weight_map(loss, axis, axis) for name, loss in losses.items()}
    figure, _ = figures.weight_maps(maps, kind)
    *panels, bar = figure.axes
    tables = [frame.pivot(index="negative", columns="positive", values=f"{kind}_weight") for frame in maps.values()]
    every = np.array(tables)
    largest = max(frame[["positive_weight", "negative_weight"]].abs().max(axis=None) for frame in maps.values())
    for panel, table in zip(panels, every, strict=True):
        colours = panel.collections[0]
        np.testing.assert_allclose(colours.get_array().reshape(7, 7), table)
        assert colours.norm.vmax == -colours.norm.vmin == largest  # in the figures of both kinds
        assert colours.norm(0.0) == 0.5  # white
    dotted = [panel.get_title() for panel in panels if any(isinstance(c, ContourSet) for c in panel.collections)]
    assert dotted == below_zero
    assert bar.get_ylabel() == ("weight\n(below 0: the wrong way)" if below_zero else "weight")
    assert bar.get_ylim() == (min(every.min(), 0), every.max())


def test_the_pairs_of_a_batch_are_those_with_weight(curves):
    scores = torch.tensor([[0.6, 0.5, 0.1], [0.2, 0.7, 0.3], [0.0, 0.1, 0.2]], dtype=torch.float64)
    loss = PolynomialLoss(reduction="sum")
    figure, pairs = figures.batch_weights(loss, scores, curves["polynomial"])
    weights = pair_weights(loss, scores)
    assert (pairs["pair"] == "negative").sum() == int((weights.negative != 0).sum())
    np.testing.assert_allclose(pairs.loc[pairs["pair"] == "positive", "weight"], weights.positive)
    assert [axis.get_title() for axis in figure.axes] == ["positive pairs", "negative pairs"]
    np.testing.assert_allclose(figure.axes[1].lines[-1].get_ydata(), pairs.loc[pairs["pair"] == "negative", "weight"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one anchor alone", "pairs of the batch"]


def test_mass_by_rank_adds_up():
    generator = torch.Generator().manual_seed(0)
    batches = torch.rand(2, 30, 30, generator=generator, dtype=torch.float64)
    masses = {name: negative_mass(LOSSES[name](), batches) for name in ("triplet", "triplet_all", "infonce")}
    figure, table = figures.mass_by_rank(masses)
    np.testing.assert_allclose(table.sum(axis=1), 100)
    assert table.loc["triplet", "hardest"] == 100
    assert table.loc["triplet_all", "hardest"] < table.loc["infonce", "hardest"] < 100
    ends = [[bar.get_x() + bar.get_width() for bar in bars] for bars in figure.axes[0].containers]
    np.testing.assert_allclose(ends, table.cumsum(axis=1).T)


def test_caption_lengths_are_shares():
    figure, shares = figures.caption_lengths({"train": [5, 5, 6, 7], "dev": [5, 9]})
    assert shares["train"].to_dict() == {5: 50.0, 6: 25.0, 7: 25.0, 9: 0.0}
    assert shares.sum().tolist() == [100.0, 100.0]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), shares["train"])
    assert len({(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines[:2]}) == 2


def test_attention_table_keeps_the_words():
    weights = np.array([[0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    figure, table = figures.attention_by_word(np.zeros((8, 8, 3), np.uint8), boxes, ["a", "red", "a"], weights)
    assert list(table.index) == ["a", "red", "a"]
    strengths = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert strengths == [pytest.approx((1 / 9) ** 2)] * 2 + [1.0] * 2  # each box has a dark edge


@pytest.mark.parametrize("unit", ["fractions", "pixels"])
def test_boxes_lie_where_they_are_on_the_picture(unit):
    fractions = np.array([[0, 0, 0.5, 1], [0.25, 0.5, 1, 1]])
    boxes = fractions * (40, 20, 40, 20) if unit == "pixels" else fractions
    picture = np.zeros((20, 40, 3), np.uint8)
    attention, _ = figures.attention_by_word(picture, boxes, ["a"], np.ones((1, 2)))
    proposals, _ = figures.pictures_with_boxes([picture], boxes[None], ["x"])
    for figure, edges in ((attention, 2), (proposals, 1)):
        drawn = [patch.get_bbox().extents.tolist() for patch in figure.axes[0].patches]
        assert drawn[::edges] == [[-0.5, -0.5, 19.5, 19.5], [9.5, 9.5, 39.5, 19.5]]


def test_a_picture_in_which_nothing_was_found_is_drawn_without_boxes():
    figure, _ = figures.pictures_with_boxes([np.zeros((4, 4, 3), np.uint8)], np.zeros((1, 0, 4)), ["x"])
    assert not figure.axes[0].patches


def test_the_true_image_has_a_thick_frame():
    pictures = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    examples = [{"query": "a red seven", "true": 2, "images": [0, 2], "rank": 2}]
    figure, _ = figures.retrieval_examples(examples, pictures, columns=2)
    words, *images = figure.axes
    assert words.get_title() == "true image at rank 2"
    assert [axis.get_title() for axis in images] == ["its image", "found 1.", "found 2."]
    assert [axis.spines["top"].get_linewidth() > 1 for axis in images] == [True, False, True]
    for axis, image in zip(images, (2, 0, 2), strict=True):
        assert np.array_equal(axis.images[0].get_array(), pictures[image])


def test_intervals_are_filled_where_both_show_a_difference():
    base = made_runs({0: 400.0, 1: 402.0, 2: 401.0})
    others = {"better": {0: 440.0, 1: 443.0, 2: 440.5}, "not decided": {0: 390.0, 1: 425.0, 2: 404.0}}
    found = compare_all({name: (made_runs(rsums), base) for name, rsums in others.items()})
    figure, data = figures.intervals(found, "the base")
    [axis] = figure.axes
    assert axis.get_xlabel() == "difference in rsum to the base"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["better", "not decided"]
    over_seeds = found["better"].over_seeds
    assert tuple(data.loc[0, ["difference", "low", "high"]]) == pytest.approx(over_seeds)
    assert axis.collections[0].get_segments()[0][:, 0].tolist() == pytest.approx(over_seeds[1:])
    drawn, filled, *_ = axis.lines
    assert drawn.get_xdata().tolist() == pytest.approx([over_seeds.difference, found["not decided"][0].difference])
    assert filled.get_xdata().tolist() == pytest.approx([over_seeds.difference])
    assert axis.get_ylim() == (1.5, -0.5)  # no mark is cut
    assert np.abs(axis.get_xlim()).max() > np.abs([over_seeds.low, found["not decided"].over_seeds.high]).max()
    one = compare_all({"one seed": (base[:1], base[:1])})
    assert np.isnan(figures.intervals(one, "itself")[1]["low"][0])


def test_an_interval_that_is_far_too_wide_ends_in_arrows():
    base = made_runs({0: 400.0, 1: 402.0, 2: 401.0})
    wide, narrow = made_runs({0: 410.0, 1: 100.0, 2: 700.0}), made_runs({0: 405.0, 1: 406.0, 2: 406.5})
    figure, data = figures.intervals(compare_all({"wide": (wide, base), "narrow": (narrow, base)}), "the base")
    [axis] = figure.axes
    frame = axis.get_xlim()[1] / 1.02
    arrows = [(line.get_marker(), *line.get_xydata()[0]) for line in axis.lines if line.get_marker() in ("<", ">")]
    assert ("<", pytest.approx(-frame), -0.15) in arrows and (">", pytest.approx(frame), -0.15) in arrows
    ends = data.set_index("compared")[["low", "high"]].abs().max(axis=1)
    assert ends["narrow"].max() < frame < ends["wide"].max() / 2


def test_a_caption_with_dollars_is_drawn_as_it_is():
    figure, _ = figures.retrieval_examples(
        [{"query": "$x_{ or $5", "true": 0, "images": [0], "rank": 1}], np.zeros((1, 4, 4, 3))
    )
    figure.canvas.draw()  # as a formula it would be none
    assert figure.axes[0].texts[0].get_text() == "$x_{ or $5"
    words = figures.attention_by_word(np.zeros((4, 4, 3)), np.array([[0, 0, 1, 1]]), ["$^{$", "$"], np.ones((2, 1)))[0]
    words.canvas.draw()


def test_show_keeps_the_alternative_text_and_the_file(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda figure, metadata: shown.append(metadata))
    figure, _ = figures.caption_lengths({"train": [5]})
    figures.show(figure, "what it shows", tmp_path / "figures" / "figure.png")
    assert shown == [{"image/png": {"alt": "what it shows"}}]
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 1000


def test_score_histograms_share_their_axes_and_count_every_pair():
    learnt = torch.tensor([[[0.9, 0.1], [0.3, 0.7]], [[0.8, 0.2], [0.0, 0.6]]], dtype=torch.float64)
    figure, data = figures.score_histograms({"learnt": learnt, "collapsed": torch.full((2, 2, 2), 0.5)})
    of = {name: group["score"].round(6).tolist() for name, group in data.groupby(["model", "pair"])}
    assert of["learnt", "positive"] == [0.9, 0.7, 0.8, 0.6]
    assert of["learnt", "negative"] == [0.1, 0.3, 0.2, 0.0]  # the hardest of each row
    assert set(of["collapsed", "positive"]) == set(of["collapsed", "negative"]) == {0.5}
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("learnt", "collapsed")
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    assert (left.get_xlabel(), left.get_ylabel()) == ("score", "pairs, %")
    heights = [max(patch.get_xy()[:, 1]) for patch in right.patches]
    assert heights == pytest.approx([100, 100])  # all in one bar
    assert [max(patch.get_xy()[:, 1]) for patch in left.patches] == pytest.approx([25, 25])


def test_maps_of_attention_share_one_scale_and_name_words_that_stand_twice():
    words = ["a", "red", "a"]
    weights = np.array([[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    maps = {"first": pd.DataFrame(weights, columns=words), "second": pd.DataFrame(1 - weights, columns=words)}
    figure, data = figures.attention_maps(maps)
    images = [axis.images[0] for axis in figure.axes[:2]]
    for image, (title, table) in zip(images, maps.items(), strict=True):
        np.testing.assert_array_equal(image.get_array(), table)
        assert image.axes.get_title() == title
        assert [label.get_text() for label in image.axes.get_xticklabels()] == words
    assert data is maps
    assert len({image.norm for image in images}) == 1 and images[0].norm.vmax == 0.9
    assert [*images[0].norm([0, 0.225, 0.9])] == pytest.approx([0, 0.5, 1])  # the root: a quarter is half as dark
    assert figure.axes[-1].get_ylabel() == "attention weight"
    assert figures.attention_maps(maps, highest=1.0)[0].axes[0].images[0].norm.vmax == 1
    long = figures.attention_maps({"long": pd.DataFrame(np.ones((2, 25)) / 25)})[0]
    assert [label.get_text() for label in long.axes[0].get_xticklabels()] != [str(n) for n in range(25)]


def test_curves_over_lambda_have_a_line_a_pair_and_mark_the_one_in_use():
    rows = [(pair, lam, lam / 10, 4 - lam) for pair in ("own", "other") for lam in (1.0, 2.0)]
    curves = pd.DataFrame(rows, columns=["pair", "lambda", "score", "entropy"])
    figure, data = figures.lambda_curves(curves, marked=2.0)
    assert data is curves
    for axis, values in zip(figure.axes, ([0.1, 0.2], [3, 2]), strict=True):
        own, other, mark = axis.lines
        assert (own.get_label(), other.get_label()) == ("own", "other")
        np.testing.assert_allclose(own.get_ydata(), values)
        assert [*mark.get_xdata()] == [2, 2]
        assert (axis.get_xlabel(), axis.get_xscale()) == ("λ", "log")


def test_boxes_have_their_numbers_only_where_asked():
    boxes = np.array([[[0, 0, 0.5, 0.5], [0.25, 0.5, 1, 1]]])
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    plain, _ = figures.pictures_with_boxes(picture, boxes, ["x"])
    numbered, _ = figures.pictures_with_boxes(picture, boxes, ["x"], numbered=True)
    assert not plain.axes[0].texts
    assert [(text.get_text(), text.get_position()) for text in numbered.axes[0].texts] == [("0", (0, 0)), ("1", (8, 8))]
    inside = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.9], [0.1, 0, 1, 1], [0, 0.1, 1, 1]]])
    figure, _ = figures.pictures_with_boxes(picture, inside, ["x"], numbered=True)
    assert len({tuple(np.round(text.get_position(), -1)) for text in figure.axes[0].texts}) == 4  # each in a corner


def test_scored_pairs_frame_true_pairs_and_hardest_negatives():
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.4, 0.3], [0.7, 0.0, 0.6]])
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    figure, table = figures.scored_pairs(scores, pictures, ["a", "b $", "c"], margin=0.2)
    assert table["positive"].tolist() == [0.9, 0.4, 0.6]
    assert table["hardest_negative"].tolist() == [0.5, 0.3, 0.7]
    assert table["its_caption"].tolist() == [2, 2, 0]
    assert table["informative"].tolist() == [False, True, True]
    frames = [
        (round(box.get_x() + 0.44), round(box.get_y() + 0.44), box.get_linestyle()) for box in figure.axes[0].patches
    ]
    assert frames == [(0, 0, "solid"), (2, 0, "--"), (1, 1, "solid"), (2, 1, "--"), (2, 2, "solid"), (0, 2, "--")]
    dashed = [box.get_edgecolor() for box in figure.axes[0].patches[1::2]]
    assert dashed[1] == dashed[2] != dashed[0]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "b $", "c"]
    assert figure.axes[1].get_ylim() == (0, 0.9)
