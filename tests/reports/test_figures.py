"""Figures: the data they drew, not their pixels."""

import IPython.display
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.contour import ContourSet

from tests.made import made_runs
from uwml_lib.evaluation import compare_all
from uwml_lib.losses import LOSSES, PolynomialLoss, TripletLoss
from uwml_lib.reports import figures
from uwml_lib.weighting import anchor_curves, negative_mass, pair_weights, weight_map

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
    np.testing.assert_allclose(lines["polynomial, autograd"].get_ydata(), negative["weight"])
    np.testing.assert_allclose(lines["polynomial, closed form"].get_ydata(), negative["closed_form"][::10])
    counts = [sum(bar.get_height() for bar in axis.patches) for axis in figure.axes[2:]]
    assert counts == [3, 3]


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
    lines = [line for line in figure.axes[0].lines if line.get_label().endswith("autograd")]
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
    for panel, table in zip(panels, every, strict=True):
        colours = panel.collections[0]
        np.testing.assert_allclose(colours.get_array().reshape(7, 7), table)
        assert colours.norm.vmax == -colours.norm.vmin == abs(every).max()
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
    one = compare_all({"one seed": (base[:1], base[:1])})
    assert np.isnan(figures.intervals(one, "itself")[1]["low"][0])


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
