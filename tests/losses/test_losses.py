"""What must hold for every loss on a score matrix, against an oracle of plain Python loops."""

import ast
import inspect
import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import uwml_lib.losses
from tests.losses.oracles import naive_loss
from uwml_lib.losses import (
    LOSSES,
    CircleLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    PolynomialAverageLoss,
    PolynomialLoss,
    PolynomialPublicVariantLoss,
    PolynomialRelativeLoss,
    SigmoidLoss,
    TripletAllLoss,
    TripletLoss,
    TripletSemihardLoss,
    TripletSoftLoss,
)
from uwml_lib.weighting import pair_weights

# Every loss as it is by default, and the forms that an option gives it.
FORMS = {
    **{name: partial(kind) for name, kind in LOSSES.items()},
    "polynomial-sum": partial(PolynomialLoss, clamp="sum"),
    "polynomial-average-sum": partial(PolynomialLoss, negatives="average", clamp="sum"),
    "polynomial_relative-average": partial(PolynomialRelativeLoss, negatives="average"),
    "triplet_soft-all": partial(TripletSoftLoss, negatives="all"),
    "multi_similarity-unmined": partial(MultiSimilarityLoss, margin=None),
}


def forms(condition=lambda form: True):
    chosen = {name: form for name, form in FORMS.items() if condition(form)}
    return pytest.mark.parametrize("form", chosen.values(), ids=chosen)


every_form = forms()
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
polynomial_forms = forms(lambda form: issubclass(form.func, PolynomialLoss))
forms_with_margin = forms(lambda form: form().margin is not None)
forms_without_margin = forms(lambda form: form().margin is None)


def with_margin(form, margin, **options):
    """The form at another margin, if it has one."""
    return form(**options) if form().margin is None else form(margin=margin, **options)


@st.composite
def batches(draw):
    """Scores (N, N) in [-1, 1], at times on a coarse grid full of ties, and image ids at times with siblings."""
    size = draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scores = 2 * torch.rand(size, size, generator=generator, dtype=torch.float64) - 1
    if draw(st.booleans()):
        scores.diagonal().add_(0.6).clamp_(max=1)
    if draw(st.booleans()):
        scores = (scores * 10).round() / 10
    image_ids = torch.randint(0, size, (size,), generator=generator) if draw(st.booleans()) else None
    return scores, image_ids


@st.composite
def masked_batches(draw):
    """Scores (N, N), and all that says who is a negative, each at times."""
    scores, image_ids = draw(batches())
    size, generator = len(scores), torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    caption_ids = torch.randint(0, 2 * size, (size,), generator=generator) if draw(st.booleans()) else None
    negatives = torch.rand(size, size, generator=generator) < 0.7 if draw(st.booleans()) else None
    return scores, {"image_ids": image_ids, "caption_ids": caption_ids, "negatives": negatives}


def value_and_gradient(loss, scores, image_ids=None, **others):
    scores = scores.detach().clone().requires_grad_()
    value = loss(scores, image_ids, **others)
    value.backward()
    return value.detach(), scores.grad


def siblings(size, image_ids):
    if image_ids is None:
        return torch.zeros(size, size, dtype=torch.bool)
    return (image_ids[:, None] == image_ids) & ~torch.eye(size, dtype=torch.bool)


# ------------------------------------------------------------------------------------------------ the values


@every_form
@given(batches(), st.sampled_from(("mean", "sum")), st.sampled_from((0.0, 0.2, 0.7)))
def test_naive_loop(form, batch, reduction, margin):
    scores, image_ids = batch
    loss = with_margin(form, margin, reduction=reduction)
    expected = naive_loss(loss, scores, image_ids)
    assert loss(scores, image_ids).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        PolynomialRelativeLoss((0.1, -0.5, 0.8), margin=0.4, negatives="average"),
        PolynomialRelativeLoss((0.1, -0.5, 0.8, 0.2)),
        TripletSoftLoss(scale=20),
        TripletSoftLoss(scale=300, negatives="all"),
        InfoNCELoss(temperature=0.01),
        InfoNCELoss(temperature=1),
        SigmoidLoss(scale=100, bias=3),
        SigmoidLoss(scale=1, bias=0),
        MultiSimilarityLoss(alpha=20, beta=5, base=-0.2, margin=0.5),
        CircleLoss(relaxation=0.25, gamma=256),
        CircleLoss(relaxation=0.0, gamma=1),
        CircleLoss(relaxation=-0.2, gamma=5),
    ],
    ids=repr,
)
@given(batches())
def test_naive_loop_of_other_options(loss, batch):
    scores, image_ids = batch
    scores = scores / 2  # so that the loop's exponentials stay in range
    expected = naive_loss(loss, scores, image_ids)
    assert loss(scores, image_ids).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@polynomial_forms
@given(
    batches(),
    st.sampled_from((None, 0.3, 1 - 1e-5)),
    st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    st.lists(st.floats(-2, 2), min_size=1, max_size=4),
)
def test_naive_loop_of_other_polynomials_and_ceilings(form, batch, ceiling, positive, negative):
    scores, image_ids = batch
    loss = form(positive=positive, negative=negative, positive_ceiling=ceiling)
    assert loss(scores, image_ids).item() == pytest.approx(naive_loss(loss, scores, image_ids), abs=1e-12)


def test_two_pairs_by_hand():
    scores = torch.tensor([[0.5, 0.4], [0.1, 0.8]], dtype=torch.float64)
    # Rows: 0.4 informs 0.5, nothing informs 0.8. Columns: nothing informs 0.5 or 0.8.
    P, Q = 0.5 - 0.7 * 0.5 + 0.2 * 0.25, 0.03 - 0.4 * 0.4 + 0.9 * 0.16
    assert PolynomialLoss()(scores).item() == pytest.approx((P + Q) / 2)
    assert TripletLoss()(scores).item() == pytest.approx(0.1)


def test_infonce_is_the_mean_of_two_cross_entropies():
    scores, target = torch.rand(6, 6, dtype=torch.float64), torch.arange(6)
    rows, columns = (torch.nn.functional.cross_entropy(logits / 0.07, target) for logits in (scores, scores.T))
    torch.testing.assert_close(InfoNCELoss()(scores), (rows + columns) / 2)


def test_sigmoid_is_the_sum_of_binary_cross_entropies_over_n():
    scores = torch.rand(6, 6, dtype=torch.float64)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = cross_entropy(10 * scores - 10, torch.eye(6, dtype=torch.float64), reduction="sum") / 6
    torch.testing.assert_close(SigmoidLoss()(scores), expected)


def test_a_named_variant_is_the_loss_with_other_defaults():
    scores = torch.rand(6, 6, dtype=torch.float64)
    for variant, loss in (
        (PolynomialAverageLoss(), PolynomialLoss(negatives="average")),
        (PolynomialPublicVariantLoss(), PolynomialLoss(negative=(0.03, -0.3, 1.2), clamp="sum")),
        (TripletAllLoss(), TripletLoss(negatives="all")),
        (PolynomialRelativeLoss(), PolynomialRelativeLoss((0.2**2, 2 * 0.2, 1.0))),
        (PolynomialRelativeLoss(margin=0.5), PolynomialRelativeLoss((0.25, 1.0, 1.0), margin=0.5)),
    ):
        assert torch.equal(variant(scores), loss(scores))


def test_semihard_skips_an_anchor_whose_negatives_all_reach_their_positive():
    scores = torch.tensor([[0.5, 0.5, 0.6], [0.1, 0.75, 0.6], [-0.5, -0.5, 0.9]], dtype=torch.float64)
    value, gradient = value_and_gradient(TripletSemihardLoss(), scores)
    # Only the second row has a negative below its positive and within the margin: 0.6 against 0.75.
    assert value.item() == pytest.approx(0.05)
    assert gradient[1].tolist() == [0, -1, 1]
    assert not gradient[::2].any()


@every_form
@pytest.mark.parametrize("value", [0.2, 0.9])
def test_all_scores_equal(form, value):
    loss = form()
    scores = torch.full((4, 4), value, dtype=torch.float64)
    found, gradient = value_and_gradient(loss, scores)
    assert found.item() == pytest.approx(naive_loss(loss, scores))
    assert gradient.isfinite().all()
    off_diagonal = gradient[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(off_diagonal, off_diagonal[:1].expand(12))
    torch.testing.assert_close(gradient.diagonal(), gradient[:1, 0].expand(4))


@polynomial_forms
def test_a_positive_at_the_ceiling_is_skipped_whole(form):
    scores = torch.full((3, 3), 0.9, dtype=torch.float64)
    scores.diagonal().copy_(torch.tensor([0.85, 1 - 1e-5, 1.0], dtype=torch.float64))
    scores[1:, 0], scores[0, 1:] = -1, -1  # the first anchor has no informative negative, the others no right to one
    value, gradient = value_and_gradient(form(), scores)
    assert value == 0
    assert (gradient == 0).all()
    assert form(positive_ceiling=None)(scores) > 0


def test_the_released_negative_polynomial_has_a_dead_zone_and_pushes_low_scores_up():
    for n, weight in [
        (0.5, 0.5),
        (0.35, 0.23),
        (0.34, 0),
        (0.2, 0),
        (0.1, 0),
        (0.09, -0.238),
        (0.0, -0.4),
        (-0.3, -0.94),
    ]:
        scores = torch.tensor([[n, n], [-10.0, 10.0]], dtype=torch.float64)  # one informative anchor: row 0
        _, gradient = value_and_gradient(PolynomialLoss(reduction="sum"), scores)
        assert gradient[0, 1].item() == pytest.approx(weight, abs=1e-12)
        assert gradient[0, 0].item() == pytest.approx(0.4 * n - 0.7)
        assert (gradient[1] == 0).all()


# ------------------------------------------------------------------------------------------------ the gradients


@forms(lambda form: form.func is not CircleLoss)
@pytest.mark.parametrize("image_ids", [None, torch.tensor([0, 1, 1, 2, 3])])
def test_gradcheck(form, image_ids):
    scores = 1.2 * torch.rand(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.3
    loss = with_margin(form, 0.4)
    assert torch.autograd.gradcheck(lambda scores: loss(scores, image_ids), scores.requires_grad_())


@pytest.mark.parametrize("image_ids", [None, torch.tensor([0, 1, 1, 2, 3])])
def test_the_gradient_of_circle_takes_its_factors_as_constants(image_ids):
    scores = 1.2 * torch.rand(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.3
    loss, step = CircleLoss(gamma=4), 1e-6
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for place in torch.cartesian_prod(torch.arange(5), torch.arange(5)).tolist():
        moved = [scores.clone(), scores.clone()]
        for matrix, by in zip(moved, (step, -step), strict=True):
            matrix[tuple(place)] += by
        up, down = (naive_loss(loss, matrix, image_ids, frozen=scores) for matrix in moved)
        expected[tuple(place)] = (up - down) / (2 * step)
    _, gradient = value_and_gradient(loss, scores, image_ids)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


@every_form
@given(batches(), st.integers(0, 2**32 - 1))
def test_permuting_the_batch_permutes_the_gradient(form, batch, seed):
    scores, image_ids = batch
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    value, gradient = value_and_gradient(form(), scores, image_ids)
    permuted = value_and_gradient(form(), scores[order][:, order], None if image_ids is None else image_ids[order])
    torch.testing.assert_close(permuted[0], value)
    torch.testing.assert_close(permuted[1], gradient[order][:, order])


@every_form
@given(batches())
def test_transposing_leaves_the_value_and_transposes_the_gradient(form, batch):
    scores, image_ids = batch
    value, gradient = value_and_gradient(form(), scores, image_ids)
    transposed = value_and_gradient(form(), scores.T, image_ids)
    torch.testing.assert_close(transposed[0], value)
    torch.testing.assert_close(transposed[1], gradient.T)


@forms_with_margin
@given(batches(), st.floats(0, 3))
def test_lowering_uninformative_negatives_changes_nothing(form, batch, by):
    scores, image_ids = batch
    loss = form()
    p = scores.diagonal()
    idle = (scores + loss.margin < p) & (scores + loss.margin < p[:, None])
    value, gradient = value_and_gradient(loss, scores, image_ids)
    assert (gradient[idle] == 0).all()
    lowered = value_and_gradient(loss, scores - by * idle, image_ids)
    assert torch.equal(lowered[0], value)
    assert torch.equal(lowered[1], gradient)


@forms_without_margin
def test_without_a_margin_the_weight_of_a_negative_falls_to_nothing(form):
    scores = torch.full((3, 3), 0.4, dtype=torch.float64)
    weights = []
    for score in (0.4, 0.2, 0.0, -0.3, -1.0, -100.0):
        scores[0, 1] = score
        weights.append(value_and_gradient(form(), scores)[1][0, 1].item())
    falling = [weight for weight in weights if form.func is not CircleLoss]  # its factor a lets it rise on the way
    assert falling == sorted(falling, reverse=True)
    assert weights[0] > 0
    assert weights[-1] == pytest.approx(0, abs=1e-12)


@every_form
@given(batches(), st.floats(-1, 1))
def test_siblings_are_never_negatives(form, batch, other):
    scores, image_ids = batch
    same = siblings(len(scores), image_ids)
    value, gradient = value_and_gradient(form(), scores, image_ids)
    assert (gradient[same] == 0).all()
    assert torch.equal(form()(scores.masked_fill(same, other), image_ids), value)


@every_form
@settings(max_examples=15)
@given(masked_batches())
def test_who_is_a_negative(form, batch):
    """In the loss, its dense form, its weights and its statistics alike."""
    scores, who = batch
    excluded = torch.eye(len(scores), dtype=torch.bool)
    for ids in filter(lambda ids: ids is not None, (who["image_ids"], who["caption_ids"])):
        excluded |= ids[:, None] == ids
    if who["negatives"] is not None:
        excluded |= ~who["negatives"]
    for loss in (form(), form().dense()):
        value, gradient = value_and_gradient(loss, scores, **who)
        assert value.item() == pytest.approx(naive_loss(loss, scores, **who), rel=1e-12, abs=1e-12)
        assert (gradient[excluded & ~torch.eye(len(scores), dtype=torch.bool)] == 0).all()
        torch.testing.assert_close(
            loss.weights(scores, **who), pair_weights(loss, scores, **who), rtol=1e-12, atol=1e-12
        )
    alike = form().statistics(scores, negatives=~excluded)
    torch.testing.assert_close(form().statistics(scores, **who), alike, equal_nan=True)


def test_ids_may_be_lists():
    scores = torch.rand(4, 4)
    for ids in ([0, 0, 1, 2], np.array([0, 0, 1, 2]), torch.tensor([0, 0, 1, 2], dtype=torch.int32)):
        of_images, of_captions = (PolynomialLoss()(scores, **{name: ids}) for name in ("image_ids", "caption_ids"))
        assert of_images == of_captions == PolynomialLoss()(scores, torch.tensor([0, 0, 1, 2]))


@every_form
def test_ids_all_different_are_as_none(form):
    scores = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(form()(scores, torch.tensor([7, 3, 5, 0, -1, 2])), form()(scores))


# Eight anchors, p = 0.55 and n = 0.5: of weight 1 (triplet), Q'(0.5) = 0.5 (released) or 0.9 (public variant) or
# 2 (0.2 - 0.05) (relative); with all negatives each anchor counts its three. For the rest the closed forms speak.
TIED = {
    "polynomial": 4.0, "polynomial_average": 4.0, "polynomial_public_variant": 7.2, "polynomial_relative": 2.4,
    "polynomial-sum": 4.0, "polynomial-average-sum": 4.0, "polynomial_relative-average": 2.4,
    "triplet": 8.0, "triplet_all": 24.0, "triplet_semihard": 8.0,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_ties_share_the_gradient_equally(name):
    scores = torch.full((4, 4), 0.5, dtype=torch.float64)
    scores.diagonal().fill_(0.55)
    _, gradient = value_and_gradient(FORMS[name](reduction="sum"), scores)
    off_diagonal = gradient[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(off_diagonal, off_diagonal[:1].expand(12))
    assert off_diagonal.sum().item() > 0
    if name in TIED:
        assert off_diagonal.sum().item() == pytest.approx(TIED[name])


def without_negatives():
    return [
        (torch.rand(5, 5), torch.zeros(5, dtype=torch.int64)),
        (torch.rand(1, 1), None),
        (torch.rand(1, 1), torch.tensor([4])),
    ]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@forms(lambda form: form.func is not SigmoidLoss)
def test_without_an_informative_pair_the_loss_is_zero_and_has_a_graph(form):
    separated = [] if form().margin is None else [(0.9 * torch.eye(5) - 0.1, None)]
    for scores, image_ids in separated + without_negatives():
        scores = scores.clone().requires_grad_()
        value = form()(scores, image_ids)
        assert value.shape == ()
        assert value.dtype == scores.dtype
        assert value.requires_grad
        assert value == 0
        with torch.autograd.detect_anomaly(check_nan=True):
            value.backward()
        assert (scores.grad == 0).all()


def test_without_negatives_sigmoid_still_pulls_its_positives():
    for scores, image_ids in without_negatives():
        value, gradient = value_and_gradient(SigmoidLoss(), scores, image_ids)
        expected = torch.nn.functional.softplus(10 - 10 * scores.diagonal()).mean()
        torch.testing.assert_close(value, expected)
        assert (gradient.diagonal() < 0).all()
        assert (gradient - gradient.diagonal().diag() == 0).all()


@every_form
@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_batches(form, size):
    for seed in range(20):
        scores = torch.rand(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        value, gradient = value_and_gradient(form(), scores)
        assert value.item() == pytest.approx(naive_loss(form(), scores))
        assert gradient.isfinite().all()


@every_form
def test_when_every_pair_is_informative_every_anchor_has_a_weight(form):
    scores = 0.5 + 0.4 * torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores.diagonal().mul_(0).add_(0.49)
    if form.func is TripletSemihardLoss:  # the one that leaves out what is too hard
        scores.diagonal().fill_(0.91)
    loss = with_margin(form, 1.0, reduction="sum")
    weights = loss.weights(scores)
    assert (weights.positive > 0).all()
    assert (weights.negative >= 0).all()
    assert ((weights.negative > 0).any(dim=0) & (weights.negative > 0).any(dim=1)).all()


@every_form
def test_non_contiguous_scores(form):
    large = torch.rand(8, 12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = large[::2, 1::3, 0].T
    assert not scores.is_contiguous()
    value, gradient = value_and_gradient(form(), scores.contiguous())
    large.requires_grad_()
    again = form()(large[::2, 1::3, 0].T)
    again.backward()
    torch.testing.assert_close(again.detach(), value)
    torch.testing.assert_close(large.grad[::2, 1::3, 0].T, gradient)
    assert large.grad.count_nonzero() == gradient.count_nonzero()


@every_form
@pytest.mark.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_low_precision(form, dtype, tolerance, device):
    # Multiples of 1/64 are exact in every type, and keep off the margin, where the losses jump.
    if form.func is CircleLoss:
        tolerance *= 2  # its exponents are in the hundreds
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(-16, 60, (32, 32), generator=generator).double() / 64
    exact, exact_gradient = value_and_gradient(form(reduction="mean"), scores)
    value, gradient = value_and_gradient(form(reduction="mean"), scores.to(device, dtype))
    assert value.dtype == gradient.dtype == dtype
    torch.testing.assert_close(value.double().cpu(), exact, rtol=tolerance, atol=0)
    torch.testing.assert_close(
        gradient.double().cpu(), exact_gradient, rtol=0, atol=tolerance * exact_gradient.abs().max()
    )


# ------------------------------------------------------------------------------------------------ the contract


DEFAULTS = {
    "polynomial": {
        "positive": (0.5, -0.7, 0.2), "negative": (0.03, -0.4, 0.9), "margin": 0.2, "negatives": "hardest",
        "clamp": "each", "positive_ceiling": 1 - 1e-5, "reduction": "mean", "check_finite": None,
    },
    "polynomial_average": {
        "positive": (0.5, -0.7, 0.2), "negative": (0.03, -0.4, 0.9), "margin": 0.2, "negatives": "average",
        "clamp": "each", "positive_ceiling": 1 - 1e-5, "reduction": "mean", "check_finite": None,
    },
    "polynomial_public_variant": {
        "positive": (0.5, -0.7, 0.2), "negative": (0.03, -0.3, 1.2), "margin": 0.2, "negatives": "hardest",
        "clamp": "sum", "positive_ceiling": 1 - 1e-5, "reduction": "mean", "check_finite": None,
    },
    "polynomial_relative": {
        "coefficients": None, "margin": 0.2, "negatives": "hardest", "reduction": "mean", "check_finite": None,
    },
    "triplet": {"margin": 0.2, "negatives": "hardest", "reduction": "sum", "check_finite": None},
    "triplet_all": {"margin": 0.2, "negatives": "all", "reduction": "sum", "check_finite": None},
    "triplet_semihard": {"margin": 0.2, "reduction": "sum", "check_finite": None},
    "triplet_soft": {"scale": 1.0, "negatives": "hardest", "reduction": "sum", "check_finite": None},
    "infonce": {"temperature": 0.07, "reduction": "mean", "check_finite": None},
    "sigmoid": {"scale": 10.0, "bias": -10.0, "reduction": "mean", "check_finite": None},
    "multi_similarity": {
        "alpha": 2.0, "beta": 50.0, "base": 0.5, "margin": 0.1, "reduction": "mean", "check_finite": None,
    },
    "circle": {"relaxation": 0.4, "gamma": 80.0, "reduction": "mean", "check_finite": None},
}  # fmt: skip
every_name = pytest.mark.parametrize("name", LOSSES)


def varied(kind):
    """The loss of which another one only changes defaults, or None."""
    return kind.__base__ if kind.__base__ in LOSSES.values() else None


def documented_parameters(kind):
    """Name and text of each parameter of a docstring; a variant's names those whose default it changes."""
    section = re.split(r"^Parameters.*\n", inspect.getdoc(kind), flags=re.M)[1]
    entries = re.findall(r"^    (\w+): ((?:.+\n?)(?:^ {8}.+\n?)*)", section, re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def written(value):
    """A default as the documentation writes it."""
    if value == 1 - 1e-5:
        return "1 - 1e-5"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


@every_name
def test_documented_defaults(name):
    kind, expected = LOSSES[name], DEFAULTS[name]
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    assert list(defaults.items()) == list(expected.items())
    assert {name: getattr(kind(), name) for name in expected} == expected
    texts = documented_parameters(kind)
    if parent := varied(kind):
        assert f"Parameters are those of `{parent.__name__}`, with another default for" in inspect.getdoc(kind)
        usual = inspect.signature(parent).parameters
        assert list(texts) == [name for name in expected if usual[name].default != expected[name]]
    else:
        assert list(texts) == list(expected)
        assert texts.pop("check_finite") == "see `ScoreMatrixLoss`."
    for parameter, text in texts.items():
        assert " use" in text, f"{parameter}: what does the source use?"
        assert written(expected[parameter]) in text, f"{parameter}: {text!r} does not say its default"


@every_name
def test_a_loss_names_its_equation_and_its_source(name):
    text = inspect.getdoc(LOSSES[name])
    assert re.search(r"\b20[12]\d\b|TPAMI|a public TensorFlow re-implementation", text), "no source"
    assert re.search(r"^    .*(\]_\+|log\()", text, re.M), "no equation"


@every_name
def test_a_loss_is_a_small_file_named_as_it_is(name):
    """A variant, which only changes defaults, stands in the file of the loss that it varies."""
    kind = LOSSES[name]
    file = Path(inspect.getfile(kind))
    assert LOSSES[file.stem] is (varied(kind) or kind)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node if len(node.body) == 1 else node.body[0]  # of a variant there is nothing else
            docstrings.update(range(first.lineno, node.body[0].end_lineno + 1))
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
    assert len([line for number, line in lines if line.strip() and number not in docstrings]) <= 60


def test_every_file_and_every_class_is_in_the_table():
    files = {path.stem for path in Path(uwml_lib.losses.__file__).parent.glob("*.py")}
    shared = {"__init__", "base", "embeddings", "horner", "negatives", "ring", "streaming"}
    others = {"from_weights", "open_clip", "pml", "sentence_transformers"}  # no loss of its own, or an adapter
    assert files - shared - others == {name for name in LOSSES if not varied(LOSSES[name])}
    assert set(uwml_lib.losses.__all__) == {
        "LOSSES", "FromWeights", "PairWeights", "ScoreMatrixLoss", *(kind.__name__ for kind in LOSSES.values())
    }  # fmt: skip
    assert set(LOSSES) == set(DEFAULTS)


def test_a_variant_is_its_loss_but_for_a_default():
    loss = TripletAllLoss(0.3, "hardest", reduction="mean")
    assert repr(loss) == "TripletAllLoss(margin=0.3, negatives='hardest', reduction='mean', check_finite=None)"

    class Softer(PolynomialPublicVariantLoss, margin=0.1):
        pass

    assert (Softer().margin, Softer().clamp, Softer(clamp="each").clamp) == (0.1, "sum", "each")
    for wrong in (lambda: TripletAllLoss(margins=1), lambda: TripletAllLoss(0.2, "all", "sum", None, 1)):
        with pytest.raises(TypeError, match="argument"):
            wrong()
    with pytest.raises(KeyError, match="scale"):
        type("Wrong", (TripletLoss,), {}, scale=1)


OPTIONS = {
    PolynomialLoss: {"positive": (1, -1), "negative": (0, 0, 1), "positive_ceiling": 0.8, "margin": 0.3},
    PolynomialRelativeLoss: {"coefficients": (0.1, 0.2), "margin": 0.3},
    TripletLoss: {"margin": 0.3},
    TripletSemihardLoss: {"margin": 0.3},
    TripletSoftLoss: {"scale": 3.0},
}


@every_form
def test_dense_changes_the_negatives_alone(form):
    base = next((kind for kind in OPTIONS if issubclass(form.func, kind)), None)
    loss = form(**OPTIONS.get(base, {}), reduction="sum", check_finite=False)
    dense = loss.dense()
    if base is None:
        assert dense is loss
        return
    negatives = "average" if base in (PolynomialLoss, PolynomialRelativeLoss) else "all"
    kept = {**form.keywords, **OPTIONS[base], "reduction": "sum", "check_finite": False, "negatives": negatives}
    for name, value in kept.items():
        assert getattr(dense, name) == value, name
    scores = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    kind = TripletLoss if base is TripletSemihardLoss else form.func
    assert torch.equal(dense(scores), kind(**kept)(scores))
    assert base is not PolynomialLoss or form(positive_ceiling=None).dense().positive_ceiling == float("inf")
    assert torch.equal(dense.dense()(scores), dense(scores))


@every_form
def test_a_loss_is_a_plain_module(form):
    loss = pickle.loads(pickle.dumps(form()))
    assert not loss.state_dict()
    assert type(loss).__name__ in repr(loss)
    assert f"reduction={loss.reduction!r}" in repr(loss)


def test_a_mean_is_finite_where_half_precision_cannot_hold_the_sum():
    scores = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    loss = TripletLoss(negatives="all", reduction="mean")
    assert loss(scores.half()).item() == pytest.approx(loss(scores).item(), rel=2e-3)


@pytest.mark.parametrize(
    ("scores", "image_ids", "message"),
    [
        (torch.rand(4, 3), None, r"scores: found shape \(4, 3\), expected \(N, M\) with M >= N >= 1"),
        (torch.rand(3), None, r"scores: found shape \(3,\)"),
        (torch.rand(2, 3, 3), None, r"scores: found shape \(2, 3, 3\)"),
        (torch.rand(0, 0), None, r"scores: found shape \(0, 0\)"),
        (torch.ones(3, 3, dtype=torch.int64), None, "scores: found dtype torch.int64, expected a floating point type"),
        (torch.ones(3, 3, dtype=torch.complex64), None, "scores: found dtype torch.complex64"),
        (torch.full((3, 3), torch.nan), None, "scores: found NaN or infinity"),
        (torch.full((3, 3), -torch.inf), None, "scores: found NaN or infinity"),
        (torch.rand(3, 3), torch.arange(2), r"image_ids: found shape \(2,\), expected \(3,\)"),
        (torch.rand(3, 3), torch.zeros(3, 1), r"image_ids: found shape \(3, 1\)"),
        (torch.rand(3, 3), torch.tensor(0), r"image_ids: found shape \(\)"),
        (torch.rand(3, 3), ["a", "b", "c"], r"image_ids: found \['a', 'b', 'c'\], expected whole numbers"),
        (torch.rand(3, 3), torch.rand(3), "image_ids: found dtype torch.float32, expected whole numbers"),
        (torch.rand(3, 3), [True, True, False], "image_ids: found dtype torch.bool, expected whole numbers"),
        (
            torch.rand(3, 3).to(torch.float8_e4m3fn),
            None,
            "scores: found dtype torch.float8_e4m3fn, expected a floating",
        ),
        (torch.rand(3, 3).to_sparse(), None, "scores: found layout torch.sparse_coo, expected .*, dense"),
        (np.zeros((3, 3)), None, "scores: found ndarray, expected a tensor; torch.as_tensor makes one"),
    ],
)
def test_bad_scores(scores, image_ids, message):
    for form in FORMS.values():
        for call in (form(), form().weights, form().statistics):
            with pytest.raises(ValueError, match=message):
                call(scores, image_ids)


@pytest.mark.parametrize(
    ("who", "message"),
    [
        ({"caption_ids": torch.arange(2)}, r"caption_ids: found shape \(2,\), expected \(3,\)"),
        (
            {"negatives": torch.ones(3, 3)},
            r"negatives: found torch.float32 of shape \(3, 3\), expected booleans \(3, 3\)",
        ),
        ({"negatives": torch.ones(3, dtype=torch.bool)}, r"negatives: found torch.bool of shape \(3,\)"),
        ({"negatives": "mask"}, r"negatives: found 'mask', expected booleans \(3, 3\)"),
        ({"negatives": [[None] * 3] * 3}, r"negatives: found \[\[None, None, None\].*, expected booleans"),
        ({"negatives": [[True], [True, False]]}, r"negatives: found \[\[True\], .*, expected booleans"),
    ],
)
def test_bad_masks(who, message):
    for call in (PolynomialLoss(), PolynomialLoss().weights, PolynomialLoss().statistics):
        with pytest.raises(ValueError, match=message):
            call(torch.rand(3, 3), **who)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PolynomialLoss, {"negatives": "all"}, "negatives: found 'all', expected one of 'hardest', 'average'"),
        (PolynomialLoss, {"clamp": "both"}, "clamp: found 'both'"),
        (PolynomialLoss, {"reduction": "none"}, "reduction: found 'none'"),
        (PolynomialLoss, {"margin": -0.1}, "margin: found -0.1"),
        (PolynomialLoss, {"margin": float("nan")}, "margin: found nan"),
        (PolynomialLoss, {"positive": ()}, r"positive: found \(\)"),
        (PolynomialLoss, {"positive": 0.5}, "positive: found 0.5"),
        (PolynomialLoss, {"negative": (0.1, float("inf"))}, "negative: found"),
        (PolynomialLoss, {"negative": ("a",)}, "negative: found"),
        (PolynomialLoss, {"positive_ceiling": float("nan")}, "positive_ceiling: found nan"),
        (TripletLoss, {"negatives": "average"}, "negatives: found 'average', expected one of 'hardest', 'all'"),
        (TripletLoss, {"margin": float("inf")}, "margin: found inf"),
        (TripletLoss, {"reduction": None}, "reduction: found None"),
        (PolynomialRelativeLoss, {"coefficients": ()}, r"coefficients: found \(\)"),
        (PolynomialRelativeLoss, {"negatives": "all"}, "negatives: found 'all', expected one of 'hardest', 'average'"),
        (PolynomialRelativeLoss, {"margin": -1}, "margin: found -1"),
        (TripletAllLoss, {"negatives": "average"}, "negatives: found 'average'"),
        (TripletSemihardLoss, {"margin": -1}, "margin: found -1"),
        (PolynomialAverageLoss, {"margin": None}, "margin: found None"),
        (PolynomialRelativeLoss, {"margin": None}, "margin: found None"),
        (TripletAllLoss, {"margin": None}, "margin: found None"),
        (TripletSemihardLoss, {"margin": None}, "margin: found None"),
        (TripletSoftLoss, {"scale": 0}, "scale: found 0, expected a finite number above 0"),
        (TripletSoftLoss, {"negatives": "average"}, "negatives: found 'average'"),
        (InfoNCELoss, {"temperature": 0.0}, "temperature: found 0.0, expected a finite number above 0"),
        (InfoNCELoss, {"temperature": float("nan")}, "temperature: found nan"),
        (SigmoidLoss, {"scale": -1}, "scale: found -1"),
        (SigmoidLoss, {"bias": float("inf")}, "bias: found inf, expected a finite number$"),
        (MultiSimilarityLoss, {"alpha": 0}, "alpha: found 0"),
        (MultiSimilarityLoss, {"beta": float("inf")}, "beta: found inf"),
        (MultiSimilarityLoss, {"base": float("nan")}, "base: found nan"),
        (MultiSimilarityLoss, {"margin": -0.1}, "margin: found -0.1"),
        (CircleLoss, {"relaxation": float("nan")}, "relaxation: found nan"),
        (CircleLoss, {"gamma": 0}, "gamma: found 0"),
        (CircleLoss, {"reduction": "none"}, "reduction: found 'none'"),
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


@every_form
@pytest.mark.parametrize("place", [(0, 0), (2, 1)])
def test_nan_reaches_the_loss_if_it_is_not_looked_for(form, place):
    scores = 0.9 * torch.eye(3) - 0.1  # no pair is informative
    scores[place] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        form()(scores)
    assert form(check_finite=False)(scores).isnan()


# ------------------------------------------------------------------------------------------------ the way it runs


@every_form
@given(batches())
def test_vmap_agrees_with_eager(form, batch):
    scores, image_ids = batch
    stack = torch.stack([scores, scores.T, scores.flip(0)])
    loss = form() if image_ids is None else partial(form(), image_ids=image_ids)
    torch.testing.assert_close(vmap(loss)(stack), torch.stack([loss(item) for item in stack]))
    torch.testing.assert_close(vmap(grad(loss))(stack), torch.stack([grad(loss)(item) for item in stack]))


@every_form
def test_vmap_over_image_ids(form):
    stack = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image_ids = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [3, 3, 3, 3, 3]])
    expected = torch.stack([form()(*pair) for pair in zip(stack, image_ids, strict=True)])
    torch.testing.assert_close(vmap(form())(stack, image_ids), expected)


@every_form
def test_vmap_does_not_look_for_nan(form):
    stack = torch.rand(3, 4, 4)
    stack[1, 2, 3] = torch.nan
    assert vmap(form())(stack).isnan().tolist() == [False, True, False]


@pytest.mark.slow
@every_form
def test_compile_agrees_with_eager(form):
    loss = form()
    torch.compiler.reset()  # else the forms share one budget of recompilations
    compiled = torch.compile(loss, fullgraph=True)
    scores = torch.rand(7, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ids = torch.tensor([0, 0, 1, 2, 3, 3, 4])
    for who in (
        {},
        {"image_ids": ids},
        {"image_ids": ids, "caption_ids": ids, "negatives": ids[:, None] < 4 + 0 * ids},
    ):
        expected = value_and_gradient(loss, scores, **who)
        torch.testing.assert_close(value_and_gradient(compiled, scores, **who), expected)
    scores[2, 3] = torch.nan
    assert compiled(scores).isnan()  # not looked for


class Operations(TorchDispatchMode):
    """Note the name of every operation."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.names.append(operation.name())
        return operation(*arguments, **(keywords or {}))


@every_form
def test_no_loop_over_rows(form):
    def operations(size):
        scores = torch.rand(size, size, requires_grad=True)
        with Operations() as seen:
            form(check_finite=False)(scores, torch.arange(size) // 2).backward()
        return seen.names

    assert operations(4) == operations(40)


@every_form
def test_nothing_is_read_from_the_device(form):
    with FakeTensorMode():  # where reading a value, or a shape that depends on one, is an error
        scores = torch.rand(6, 6, requires_grad=True)
        loss = form(check_finite=False)
        loss(scores, torch.arange(6)).backward()
        loss(scores).backward()
        assert scores.grad.shape == (6, 6)
        loss.statistics(scores, torch.arange(6), negatives=torch.ones(6, 6, dtype=torch.bool))
        loss.weights(scores)
    assert form()(torch.rand(6, 6, device="meta")).shape == ()  # off by itself where a device would have to be asked


@needs_cuda
@every_form
def test_no_wait_for_cuda(form):
    scores = torch.rand(6, 6, device="cuda", requires_grad=True)
    image_ids = torch.arange(6, device="cuda")
    expected = form()(scores.detach().cpu(), image_ids.cpu())
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = form()(scores, image_ids)
        value.backward()
        form().statistics(scores, image_ids)
        form().weights(scores, image_ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.detach().cpu(), expected)


# ------------------------------------------------------------------------------------------------ the statistics


@every_form
@given(batches())
def test_statistics_describe_the_batch(form, batch):
    scores, image_ids = batch
    loss = form()
    size = len(scores)
    ids = list(range(size)) if image_ids is None else image_ids.tolist()
    hardest = [
        (max((D[i][j] for j in range(size) if ids[j] != ids[i]), default=None), D[i][i])
        for D in (scores.tolist(), scores.T.tolist())
        for i in range(size)
    ]
    there = [n for n, _ in hardest if n is not None]
    found = {name: value.item() for name, value in loss.statistics(scores, image_ids).items()}
    informative = [n is not None and n + (loss.margin or 0) > p for n, p in hardest]
    assert found["informative_share"] == pytest.approx(sum(informative) / len(informative))
    assert found["positive_score"] == pytest.approx(scores.diagonal().mean().item())
    expected = sum(there) / len(there) if there else float("nan")
    assert found["hardest_negative_score"] == pytest.approx(expected, nan_ok=True)
    if isinstance(loss, PolynomialLoss):
        assert found["above_ceiling_share"] == (scores.diagonal() >= loss.positive_ceiling).double().mean().item()
