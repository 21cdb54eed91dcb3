"""Any two weight functions train with exactly these weights."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings

from tests.losses.test_losses import batches
from uwml_lib.losses import FromWeights, PolynomialLoss, TripletLoss
from uwml_lib.losses.horner import derivative, polynomial
from uwml_lib.weighting import pair_weights

TABLE = ((-0.5, 0.0), (0.2, 0.1), (0.6, 2.0))


def by_hand(score):
    if score <= -0.5:
        return 0.0
    if score <= 0.2:
        return 0.1 * (score + 0.5) / 0.7
    return 0.1 + 1.9 * (score - 0.2) / 0.4 if score <= 0.6 else 2.0


# The weights as tensors and as plain numbers; the first are the gradient of nothing: d w+/dn is not -d w-/dp.
FUNCTIONS = {
    "of both": (lambda p, n: 1 + n * n - p, lambda p, n: 2 - p * n, lambda p, n: 1 + n * n - p, lambda p, n: 2 - p * n),
    "of its own": (lambda p: 1 - p, lambda s: s * s, lambda p, n: 1 - p, lambda p, n: n * n),
    "torch's": (torch.sigmoid, torch.abs, lambda p, n: 1 / (1 + 2.718281828459045**-p), lambda p, n: abs(n)),
    "points": (TABLE, TABLE, lambda p, n: by_hand(p), lambda p, n: by_hand(n)),
    "numbers": (lambda p: 1.5, lambda n: 0.5, lambda p, n: 1.5, lambda p, n: 0.5),
}


def naive_weights(scores, image_ids, positive, negative, margin, kind):
    """Weights of every pair and the value, by loops."""
    size = len(scores)
    ids = range(size) if image_ids is None else image_ids.tolist()
    weights, value = [[0.0] * size for _ in range(size)], 0.0
    for transposed, D in ((False, scores.tolist()), (True, scores.T.tolist())):
        for i in range(size):
            p, others = D[i][i], [j for j in range(size) if ids[j] != ids[i]]
            others = [j for j in others if margin is None or D[i][j] + margin > p]
            if kind == "hardest":
                others = [j for j in others if D[i][j] == max(D[i][k] for k in others)]
            for j in others:
                n = D[i][j]
                row, column = (j, i) if transposed else (i, j)
                weights[i][i] -= positive(p, n) / len(others) / size
                weights[row][column] += negative(p, n) / len(others) / size
                value += (negative(p, n) * n - positive(p, n) * p) / len(others) / size
    return torch.tensor(weights, dtype=torch.float64), value


@pytest.mark.parametrize("functions", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("kind", ["hardest", "average"])
@pytest.mark.parametrize("margin", [None, 0.2])
@settings(max_examples=10)
@given(batches())
def test_the_gradient_is_the_weights(functions, kind, margin, batch):
    scores, image_ids = batch
    positive, negative, plain_positive, plain_negative = functions
    loss = FromWeights(positive, negative, margin, kind)
    expected, value = naive_weights(scores, image_ids, plain_positive, plain_negative, margin, kind)
    assert loss(scores, image_ids).item() == pytest.approx(value, abs=1e-12)
    for weights in (pair_weights(loss, scores, image_ids=image_ids), loss.weights(scores, image_ids)):
        torch.testing.assert_close(weights.positive, -expected.diagonal(), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(weights.negative, expected.clone().fill_diagonal_(0), atol=1e-12, rtol=1e-12)


def test_the_losses_of_the_kit_again():
    scores = torch.rand(9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    triplet = FromWeights(lambda p: torch.ones_like(p), lambda n: torch.ones_like(n), 0.2, reduction="sum")
    torch.testing.assert_close(triplet.weights(scores), pair_weights(TripletLoss(), scores))
    loss = PolynomialLoss(positive_ceiling=None)  # P and Q are positive from 0.35 on
    scores = 0.35 + 0.6 * scores
    of_polynomials = FromWeights(
        lambda p: -polynomial(p, derivative(loss.positive)), lambda n: polynomial(n, derivative(loss.negative)), 0.2
    )
    torch.testing.assert_close(pair_weights(of_polynomials, scores), pair_weights(loss, scores))


def test_what_a_weight_is_where_it_is_not_asked_does_not_matter():
    scores = torch.tensor([[0.5, -0.4], [0.4, 0.5]], dtype=torch.float64)
    loss = FromWeights(torch.sqrt, torch.sqrt, margin=0.2, check_finite=True)  # no number at -0.4
    for kind in (loss, loss.dense()):
        assert pair_weights(kind, scores).negative[1, 0].item() == pytest.approx(0.4**0.5)
        assert pair_weights(kind, scores).negative[0, 1] == 0
    images = torch.eye(2, dtype=torch.float64, requires_grad=True)
    loss.dense().from_embeddings(images, scores.T, similarity="dot").backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize(
    "weight",
    [lambda s, scale=2.0: scale * s, partial(lambda s, scale: scale * s, scale=2.0), torch.nn.Softplus(1, 99)],
    ids=["default", "partial", "module"],
)
def test_what_has_a_default_is_no_score(weight):
    scores = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = FromWeights(lambda s: weight(s), lambda s: weight(s))
    torch.testing.assert_close(FromWeights(weight, weight).weights(scores), expected.weights(scores))


def test_weights_are_constants():
    scale = torch.tensor(2.0, requires_grad=True)
    scores = torch.rand(4, 4, requires_grad=True)
    FromWeights(lambda s: scale * s, lambda s: scale * s)(scores).backward()
    assert scale.grad is None


@pytest.mark.parametrize("wrong", [lambda p: p.sum(0), lambda p: None, lambda p: "much", lambda p: torch.ones(2, 2)])
def test_weights_of_another_shape_are_refused(wrong):
    with pytest.raises(ValueError, match=r"negative: the function returned .*, expected a weight for each score"):
        FromWeights(TABLE, wrong)(torch.rand(4, 4))


def test_dense():
    assert FromWeights(TABLE, TABLE).dense().negatives == "average"


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (0.5, "found 0.5, expected a function or two points"),
        (((0, 1),), r"found \(\(0, 1\),\), expected a function or two points"),
        (((0, 1), (1, float("nan"))), "expected a function or two points"),
        (((0, 1, 2), (1, 2, 3)), "expected a function or two points"),
        ((0, 1, 2), "expected a function or two points"),
        (((0, 1), (0, 2)), "expected points in ascending order of score"),
        ("ab", "found 'ab'"),
        (lambda a, b, c: a, "which takes 3 scores, expected one or two"),
        (lambda *scores: scores[0], "which takes 0 scores, expected one or two"),
    ],
)
def test_what_is_no_weight(weight, message):
    for name, arguments in (("positive", (weight, TABLE)), ("negative", (TABLE, weight))):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            FromWeights(*arguments)
