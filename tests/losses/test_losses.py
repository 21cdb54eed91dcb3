"""What must hold for every loss on a score matrix, against an oracle of plain Python loops."""

import inspect
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from uwml_lib.losses import PolynomialLoss, TripletLoss

FORMS = {
    **{f"{negatives}-{clamp}": partial(PolynomialLoss, negatives=negatives, clamp=clamp)
       for negatives in ("hardest", "average") for clamp in ("each", "sum")},
    **{f"triplet-{negatives}": partial(TripletLoss, negatives=negatives) for negatives in ("hardest", "all")},
}  # fmt: skip
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
polynomial_forms = pytest.mark.parametrize("form", list(FORMS.values())[:4], ids=list(FORMS)[:4])


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


def value_and_gradient(loss, scores, image_ids=None):
    scores = scores.detach().clone().requires_grad_()
    value = loss(scores, image_ids)
    value.backward()
    return value.detach(), scores.grad


def siblings(size, image_ids):
    if image_ids is None:
        return torch.zeros(size, size, dtype=torch.bool)
    return (image_ids[:, None] == image_ids) & ~torch.eye(size, dtype=torch.bool)


def naive_polynomial(coefficients, x):
    return sum(coefficient * x**power for power, coefficient in enumerate(coefficients))


def naive_anchor(loss, p, negatives):
    """What one anchor contributes, from numbers alone."""
    if isinstance(loss, TripletLoss):
        hinges = [max(loss.margin + n - p, 0.0) for n in negatives]
        return sum(hinges) if loss.negatives == "all" else max(hinges, default=0.0)
    informative = [n for n in negatives if n + loss.margin > p]
    if not informative or p >= loss.positive_ceiling:
        return 0.0
    if loss.negatives == "hardest":
        informative = [max(informative)]
    P = naive_polynomial(loss.positive, p)
    total = 0.0
    for n in informative:
        Q = naive_polynomial(loss.negative, n)
        total += max(P, 0.0) + max(Q, 0.0) if loss.clamp == "each" else max(P + Q, 0.0)
    return total / len(informative)


def naive_loss(loss, scores, image_ids=None):
    size = len(scores)
    ids = list(range(size)) if image_ids is None else image_ids.tolist()
    total = 0.0
    for D in (scores.tolist(), scores.T.tolist()):
        for i in range(size):
            total += naive_anchor(loss, D[i][i], [D[i][j] for j in range(size) if ids[j] != ids[i]])
    return total / size if loss.reduction == "mean" else total


# ------------------------------------------------------------------------------------------------ the values


@every_form
@given(batches(), st.sampled_from(("mean", "sum")), st.sampled_from((0.0, 0.2, 0.7)))
def test_naive_loop(form, batch, reduction, margin):
    scores, image_ids = batch
    loss = form(margin=margin, reduction=reduction)
    assert loss(scores, image_ids).item() == pytest.approx(naive_loss(loss, scores, image_ids), abs=1e-12)


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


@every_form
@pytest.mark.parametrize("value", [-0.5, 0.0, 0.05, 0.2, 0.5, 0.9, 1.0])
def test_all_scores_equal(form, value):
    loss = form()
    scores = torch.full((4, 4), value, dtype=torch.float64)
    found, gradient = value_and_gradient(loss, scores)
    assert found.item() == pytest.approx(naive_loss(loss, scores))
    assert gradient.isfinite().all()


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


@every_form
@pytest.mark.parametrize("image_ids", [None, torch.tensor([0, 1, 1, 2, 3])])
def test_gradcheck(form, image_ids):
    scores = 1.2 * torch.rand(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.3
    loss = form(margin=0.4)
    assert torch.autograd.gradcheck(lambda scores: loss(scores, image_ids), scores.requires_grad_())


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


@every_form
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


@every_form
@given(batches(), st.floats(-1, 1))
def test_siblings_are_never_negatives(form, batch, other):
    scores, image_ids = batch
    same = siblings(len(scores), image_ids)
    value, gradient = value_and_gradient(form(), scores, image_ids)
    assert (gradient[same] == 0).all()
    assert torch.equal(form()(scores.masked_fill(same, other), image_ids), value)


@every_form
def test_ids_all_different_are_as_none(form):
    scores = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(form()(scores, torch.tensor([7, 3, 5, 0, -1, 2])), form()(scores))


@every_form
def test_ties_share_the_gradient_equally(form):
    scores = torch.full((4, 4), 0.5, dtype=torch.float64)
    scores.diagonal().fill_(0.6)
    loss = form(reduction="sum")
    _, gradient = value_and_gradient(loss, scores)
    off_diagonal = gradient[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(off_diagonal, off_diagonal[:1].expand(12))
    # Eight anchors of weight 1 (triplet) or Q'(0.5) = 0.5; with all negatives each anchor counts its three.
    total = {"all": 24.0, "hardest": 8.0, "average": 4.0}[loss.negatives]
    if isinstance(loss, PolynomialLoss):
        total = 4.0
    assert off_diagonal.sum().item() == pytest.approx(total)


@every_form
def test_without_an_informative_pair_the_loss_is_zero_and_has_a_graph(form):
    separated = 0.9 * torch.eye(5) - 0.1
    for scores, image_ids in (
        (separated, None),
        (torch.rand(5, 5), torch.zeros(5, dtype=torch.int64)),
        (torch.rand(1, 1), None),
        (torch.rand(1, 1), torch.tensor([4])),
    ):
        scores = scores.clone().requires_grad_()
        value = form()(scores, image_ids)
        assert value.shape == ()
        assert value.dtype == scores.dtype
        assert value.requires_grad
        assert value == 0
        value.backward()
        assert (scores.grad == 0).all()


@every_form
def test_non_contiguous_scores(form):
    large = torch.rand(8, 12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = large[::2, 1::3, 0].T
    assert not scores.is_contiguous()
    value, gradient = value_and_gradient(form(), scores.contiguous())
    large.requires_grad_()
    again = form()(large[::2, 1::3, 0].T)
    again.backward()
    assert torch.equal(again, value)
    assert torch.equal(large.grad[::2, 1::3, 0].T, gradient)
    assert large.grad.count_nonzero() == gradient.count_nonzero()


@every_form
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_low_precision(form, dtype, tolerance):
    # Multiples of 1/64 are exact in every type, and keep off the margin, where the losses jump.
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(-16, 60, (32, 32), generator=generator).double() / 64
    exact, exact_gradient = value_and_gradient(form(reduction="mean"), scores)
    value, gradient = value_and_gradient(form(reduction="mean"), scores.to(dtype))
    assert value.dtype == gradient.dtype == dtype
    torch.testing.assert_close(value.double(), exact, rtol=tolerance, atol=0)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=tolerance * exact_gradient.abs().max())


# ------------------------------------------------------------------------------------------------ the contract


def test_documented_defaults():
    def defaults(kind):
        return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}

    polynomial = {
        "positive": (0.5, -0.7, 0.2), "negative": (0.03, -0.4, 0.9), "margin": 0.2, "negatives": "hardest",
        "clamp": "each", "positive_ceiling": 1 - 1e-5, "reduction": "mean", "check_finite": None,
    }  # fmt: skip
    triplet = {"margin": 0.2, "negatives": "hardest", "reduction": "sum", "check_finite": None}
    assert list(defaults(PolynomialLoss).items()) == list(polynomial.items())
    assert list(defaults(TripletLoss).items()) == list(triplet.items())
    for kind, expected in ((PolynomialLoss, polynomial), (TripletLoss, triplet)):
        assert {name: getattr(kind(), name) for name in expected} == expected


@every_form
def test_dense_changes_the_negatives_alone(form):
    options = {"margin": 0.3, "reduction": "sum", "check_finite": False}
    if form.func is PolynomialLoss:
        options |= {"positive": (1, -1), "negative": (0, 0, 1), "positive_ceiling": 0.8}
    dense = form(**options).dense()
    negatives = "all" if form.func is TripletLoss else "average"
    kept = {**form.keywords, **options, "negatives": negatives}
    for name, value in kept.items():
        assert getattr(dense, name) == value, name
    scores = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dense(scores), form.func(**kept)(scores))
    assert form.func is TripletLoss or form(positive_ceiling=None).dense().positive_ceiling == float("inf")


@every_form
def test_a_loss_is_a_plain_module(form):
    loss = pickle.loads(pickle.dumps(form()))
    assert not loss.state_dict()
    assert type(loss).__name__ in repr(loss)


@pytest.mark.parametrize(
    ("scores", "image_ids", "message"),
    [
        (torch.rand(3, 4), None, r"scores: found shape \(3, 4\), expected a square matrix"),
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
    ],
)
def test_bad_scores(scores, image_ids, message):
    for form in FORMS.values():
        for call in (form(), form().weights, form().statistics):
            with pytest.raises(ValueError, match=message):
                call(scores, image_ids)


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
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


@every_form
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (2, 1), slice(None)])
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


@pytest.mark.slow
@every_form
def test_compile_agrees_with_eager(form):
    loss = form()
    torch.compiler.reset()  # else the forms share one budget of recompilations
    compiled = torch.compile(loss, fullgraph=True)
    scores = torch.rand(7, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for image_ids in (None, torch.tensor([0, 0, 1, 2, 3, 3, 4])):
        expected = value_and_gradient(loss, scores, image_ids)
        torch.testing.assert_close(value_and_gradient(compiled, scores, image_ids), expected)


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
        loss.statistics(scores, torch.arange(6))
        loss.weights(scores)
    assert form()(torch.rand(6, 6, device="meta")).shape == ()  # off by itself where a device would have to be asked


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
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
    informative = [n is not None and n + loss.margin > p for n, p in hardest]
    assert found["informative_share"] == pytest.approx(sum(informative) / len(informative))
    assert found["positive_score"] == pytest.approx(scores.diagonal().mean().item())
    expected = sum(there) / len(there) if there else float("nan")
    assert found["hardest_negative_score"] == pytest.approx(expected, nan_ok=True)
    if isinstance(loss, PolynomialLoss):
        assert found["above_ceiling_share"] == (scores.diagonal() >= loss.positive_ceiling).double().mean().item()
