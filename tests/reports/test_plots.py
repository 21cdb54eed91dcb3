"""Figures: the data they drew, not their pixels."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from uwml_lib.losses import LOSSES, PolynomialLoss, TripletLoss
from uwml_lib.reports import figures
from uwml_lib.weighting import anchor_curves, negative_mass, pair_weights, weight_map

mpl.use("agg")


def test_weight_curves_are_those_of_the_equations():
    drawn = {"triplet": anchor_curves(TripletLoss()), "polynomial": anchor_curves(PolynomialLoss(reduction="sum"))}
    figure, data = figures.weight_curves(drawn, {"positive": np.ones(3), "negative": np.zeros(3)})
    positive, negative = data["polynomial"]["positive"], data["polynomial"]["negative"]
    np.testing.assert_allclose(positive["weight"], 0.7 - 0.4 * positive["similarity"])
    high = negative[negative["similarity"] > 0.35]
    np.testing.assert_allclose(high["weight"], 1.8 * high["similarity"] - 0.4)
    dead = negative[negative["similarity"].between(0.0956, 0.3488)]
    assert len(dead) > 3
    assert (dead["weight"] == 0).all()
    assert (negative[negative["similarity"] < 0.09]["weight"] < 0).all()
    assert (data["triplet"]["negative"]["weight"] == 1).all()
    assert figure.axes[0].get_xlabel() == "similarity of the pair"
    line = figure.axes[1].lines[2]  # polynomial: the line of automatic differentiation
    np.testing.assert_allclose(line.get_ydata(), negative["weight"])


def test_caption_lengths_are_shares():
    _, shares = figures.caption_lengths({"train": [5, 5, 6, 7], "dev": [5, 9]})
    assert shares["train"].to_dict() == {5: 50.0, 6: 25.0, 7: 25.0, 9: 0.0}
    assert shares.sum().tolist() == [100.0, 100.0]


def test_attention_table_keeps_the_words():
    weights = np.array([[0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    figure, table = figures.attention_by_word(np.zeros((8, 8, 3), np.uint8), boxes, ["a", "red", "a"], weights)
    assert list(table.index) == ["a", "red", "a"]
    strengths = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert strengths == [pytest.approx((1 / 9) ** 2)] * 2 + [1.0] * 2  # each box has a dark edge


def test_show_keeps_the_alternative_text_and_the_file(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.append(metadata))
    figure, _ = figures.caption_lengths({"train": [5]})
    figures.show(figure, "what it shows", tmp_path / "figures" / "figure.png")
    assert shown == [{"image/png": {"alt": "what it shows"}}]
    assert (tmp_path / "figures" / "figure.png").stat().st_size > 1000


def test_a_gallery_has_a_panel_a_loss_on_the_same_axes():
    drawn = {name: anchor_curves(kind(reduction="sum")) for name, kind in list(LOSSES.items())[:5]}
    figure, data = figures.weight_gallery(drawn, columns=3)
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == list(drawn)
    assert len({axis.get_ylim() for axis in panels}) == len({axis.get_xlim() for axis in panels}) == 1
    for axis, loss in zip(panels, drawn, strict=True):
        for line, kind in zip(axis.lines, ("positive", "negative"), strict=False):
            np.testing.assert_allclose(line.get_ydata(), data[loss][kind]["weight"])


@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_a_map_shows_the_weights_of_its_frame(kind):
    axis = torch.linspace(-0.9, 0.9, 7)
    frame = weight_map(PolynomialLoss(reduction="sum"), axis, axis)
    figure, _ = figures.weight_maps({"polynomial": frame}, kind)
    drawn = figure.axes[0].collections[0].get_array().reshape(7, 7)
    expected = frame.pivot(index="negative", columns="positive", values=f"{kind}_weight").to_numpy()
    np.testing.assert_allclose(drawn, expected / abs(expected).max())
    assert f"up to {abs(expected).max():.3g}" in figure.axes[0].get_title()


def test_the_pairs_of_a_batch_are_those_with_weight():
    scores = torch.tensor([[0.6, 0.5, 0.1], [0.2, 0.7, 0.3], [0.0, 0.1, 0.2]], dtype=torch.float64)
    loss = PolynomialLoss(reduction="sum")
    figure, pairs = figures.batch_weights(loss, scores, anchor_curves(loss))
    weights = pair_weights(loss, scores)
    assert (pairs["pair"] == "negative").sum() == int((weights.negative != 0).sum())
    np.testing.assert_allclose(pairs.loc[pairs["pair"] == "positive", "weight"], weights.positive)
    assert {axis.get_title() for axis in figure.axes} == {"positive pairs", "negative pairs"}


def test_mass_by_rank_adds_up():
    generator = torch.Generator().manual_seed(0)
    batches = torch.rand(2, 30, 30, generator=generator, dtype=torch.float64)
    masses = {name: negative_mass(LOSSES[name](), batches) for name in ("triplet", "triplet_all", "infonce")}
    _, table = figures.mass_by_rank(masses)
    np.testing.assert_allclose(table.sum(axis=1), 100)
    assert table.loc["triplet", "hardest"] == 100
    assert table.loc["triplet_all", "hardest"] < table.loc["infonce", "hardest"] < 100


def test_every_curve_has_a_line_of_its_own():
    drawn = {name: anchor_curves(PolynomialLoss()) for name in ("polynomial", "released", "by hand", "from the scores")}
    figure, _ = figures.weight_curves(drawn)
    lines = [line for line in figure.axes[0].lines if line.get_label().endswith("autograd")]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(drawn)
    assert len({line.get_color() for line in lines}) == len(drawn)
