"""A loss from embeddings, in blocks, is the loss of the scores of all of them: value, gradient and statistics."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from tests.losses.test_losses import FORMS, with_margin
from uwml_lib.losses import FromWeights, InfoNCELoss, PolynomialLoss, ScoreMatrixLoss, TripletLoss, streaming

GIVEN = {
    "weights": partial(FromWeights, lambda p, n: 1 + n - p, lambda n: n.square(), margin=0.2),
    "weights-average": partial(
        FromWeights, lambda p, n: 1 + n - p, lambda n: n.square(), margin=0.2, negatives="average"
    ),
}
every_form = pytest.mark.parametrize("form", (FORMS | GIVEN).values(), ids=FORMS | GIVEN)
# One of each way to come together: hardest, semi-hard, average, sum, sum of exponentials with and without mining.
each_way = pytest.mark.parametrize(
    "name", ["polynomial", "triplet_semihard", "polynomial_average", "sigmoid", "infonce", "multi_similarity"]
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Three blocks or more, the last one shorter."""
    monkeypatch.setattr(streaming, "ROWS", 8)


def embeddings(n=21, m=30, seed=0, dtype=torch.float64):
    """Images (n, 6) and captions (m, 6), a pair more alike than others, and who is a sibling of whom."""
    generator = torch.Generator().manual_seed(seed)
    images, noise = (torch.randn(size, 6, generator=generator, dtype=dtype) for size in (n, m))
    captions = noise + images[torch.arange(m) % n]
    who = {"image_ids": torch.arange(n) // 2, "caption_ids": torch.randint(0, 2 * m, (m,), generator=generator)}
    return images, captions, who | {"negatives": torch.rand(n, m, generator=generator) < 0.9}


def plain(loss, images, captions, similarity="cosine", **who):
    """Value, both gradients and statistics of the scores of all pairs."""
    images, captions = (each.clone().requires_grad_() for each in (images, captions))
    made = (normalize(images), normalize(captions)) if similarity == "cosine" else (images, captions)
    scores = made[0] @ made[1].T
    value = loss(scores, **who)
    value.backward()
    return value.detach(), images.grad, captions.grad, loss.statistics(scores.detach(), **who)


def streamed(loss, images, captions, similarity="cosine", **who):
    images, captions = (each.clone().requires_grad_() for each in (images, captions))
    value, found = loss.from_embeddings(images, captions, **who, similarity=similarity, return_statistics=True)
    value.backward()
    return value.detach(), images.grad, captions.grad, found


@every_form
def test_as_from_all_scores(form):
    for loss in (form(reduction="mean"), with_margin(form, 0.5, reduction="sum").dense()):
        for n, m in ((21, 30), (16, 16), (1, 1)):
            images, captions, who = embeddings(n, m)
            for given_ in ({}, who) if n > 1 else ({},):
                expected = plain(loss, images, captions, **given_)
                found = streamed(loss, images, captions, **given_)
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


def clear(loss, scores, margin):
    """Whether no score is so near a margin, and no two hardest so near each other, that rounding decides."""
    n = len(scores)
    itself = torch.eye(*scores.shape, dtype=torch.bool)
    gaps = []
    for side, p in ((scores, itself), (scores[:, :n].T, itself[:, :n])):
        first, second = side.masked_fill(p, -torch.inf).topk(2).values.T
        gaps += [first - second, (side - side.diagonal()[:, None]).masked_fill(p, 9).abs().flatten()]
        gaps.append((side - side.diagonal()[:, None] + margin).masked_fill(p, 9).abs().flatten())
    return torch.cat(gaps).min() > 1e-5


@every_form
def test_single_precision(form):
    seed, loss = 0, form(reduction="mean")
    while True:
        images, captions, who = embeddings(seed=seed)
        if clear(loss, normalize(images) @ normalize(captions).T, loss.margin or 0):
            break
        seed += 1
    who = {"image_ids": who["image_ids"]}
    expected = plain(loss, images, captions, **who)
    found = streamed(loss, images.float(), captions.float(), **who)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert found[0].item() == pytest.approx(expected[0].item(), abs=1e-5, rel=1e-5)
    for ours, theirs in zip(found[1:3], expected[1:3], strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@each_way
def test_half_precision_sums_in_single(name):
    images, captions, _ = embeddings(40, 40)
    images, captions = images.bfloat16() / 4, captions.bfloat16() / 4  # near each other in size, as cosines are
    loss = FORMS[name](reduction="mean", check_finite=False)
    scores = (images @ captions.T).float().requires_grad_()  # the products as the streamed form has them
    value = loss(scores)
    (of_scores,) = torch.autograd.grad(value, scores)
    found = streamed(loss, images, captions, "dot")
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    assert found[0].item() == pytest.approx(value.item(), rel=1e-2)
    for ours, theirs in ((found[1], of_scores @ captions.float()), (found[2], of_scores.T @ images.float())):
        assert (ours.float() - theirs).norm() <= 2e-2 * theirs.norm()


@every_form
@settings(max_examples=3)
@given(st.integers(1, 20), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_ties_share_the_gradient(form, n, further, seed):
    """Within a block and across blocks; small dyadic numbers, so that their products are exact."""
    generator = torch.Generator().manual_seed(seed)
    images, captions = (torch.randint(-2, 3, (size, 3), generator=generator).double() / 4 for size in (n, n + further))
    ids = {"image_ids": torch.randint(0, n, (n,), generator=generator)}
    for loss in (form(), form().dense()):
        expected = plain(loss, images, captions, "dot", **ids)
        found = streamed(loss, images, captions, "dot", **ids)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_largest_and_whether_it_is_tied(m, n, seed):
    scores = torch.randint(0, 6, (m, n), generator=torch.Generator().manual_seed(seed)).float()
    for dim, lines in ((0, scores.T), (1, scores)):
        value, place, tied = streaming._largest(scores, dim)
        for i, line in enumerate(lines.tolist()):
            assert line[place[i]] == value[i] == max(line)
            assert tied[i] == (line.count(max(line)) > 1)


class Products(TorchDispatchMode):
    """Note the shape of every product of two matrices, and the largest number of elements of a result."""

    def __init__(self):
        super().__init__()
        self.shapes, self.largest = [], 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        found = operation(*arguments, **(keywords or {}))
        if operation.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.shapes.append((*arguments[0].shape, arguments[1].shape[1]))
        if isinstance(found, torch.Tensor):
            self.largest = max(self.largest, found.numel())
        return found


@each_way
def test_products_and_memory(name):
    """One product for hardest negatives; never as many numbers as there are pairs."""
    images, captions, _ = embeddings(160, 160)
    images.requires_grad_()
    loss = FORMS[name]()
    with Products() as seen:
        loss.from_embeddings(images, captions).backward()
    pairs = sum(n * m for n, d, m in seen.shapes if d == 6) / 160**2
    others = sum(n * d for n, d, m in seen.shapes if m == 6) / 160**2
    if loss.negatives == "hardest":
        assert (pairs, others) == (1, 0)
    elif loss.gathers == "hardest":
        assert (pairs, others) == (2, 0)
    else:
        assert (pairs, others) == (2 + loss.against_positive, 2)
    assert seen.largest < 160**2 / 10


@each_way
def test_nothing_is_read_from_a_device(name):
    images, captions = (torch.empty(20, 6, device="meta", requires_grad=True) for _ in range(2))
    # To read from this device is an error.
    value, found = FORMS[name]().from_embeddings(images, captions, return_statistics=True)
    value.backward()
    assert value.shape == found["positive_score"].shape == ()
    assert images.grad.shape == captions.grad.shape == (20, 6)


def test_where_ties_are_not_looked_for_the_gradient_goes_to_one_of_them(monkeypatch):
    images, captions = torch.ones(4, 2, requires_grad=True), torch.ones(4, 2).diag_embed().sum(dim=2).requires_grad_()
    cpu = streaming._keep_largest

    def as_elsewhere(scores, first, best, places, tied):
        cpu(scores, first, best, places, tied)
        tied.zero_()

    monkeypatch.setattr(streaming, "_keep_largest", as_elsewhere)
    TripletLoss().from_embeddings(images, captions, similarity="dot").backward()
    assert images.grad.sum() == captions.grad.sum() == 0  # each of the eight anchors pulls and pushes with weight 1


def test_the_way_there_is_twice_differentiated_by_nobody():
    images, captions, _ = embeddings(9, 9)
    (first,) = torch.autograd.grad(
        PolynomialLoss().from_embeddings(images.requires_grad_(), captions), images, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_loss_of_ones_own():
    class Mine(ScoreMatrixLoss):
        def direction(self, scores, negative_mask):
            return (scores.masked_fill(~negative_mask, 0).square().sum(dim=1) - scores.diagonal()).sum()

    images, captions, _ = embeddings()
    with pytest.raises(ValueError, match="Mine: found no `pairs`, expected them for a loss of all negatives"):
        Mine(0.2, "sum", None).from_embeddings(images, captions)

    class Summed(Mine):
        gathers = "all"

        def pairs(self, scores, p, negative_mask):
            return scores.square(), negative_mask

        def anchors(self, p, gathered):
            return (gathered - p).sum()

    loss = Summed(0.2, "sum", None)
    torch.testing.assert_close(streamed(loss, images, captions), plain(loss, images, captions))


def test_a_gradient_for_one_side_alone_and_for_embeddings_of_length_zero():
    images, captions, _ = embeddings(9, 12)
    images[0] = 0
    loss = TripletLoss()
    expected = plain(loss, images, captions)
    images.requires_grad_()
    loss.from_embeddings(images, captions).backward()
    torch.testing.assert_close(images.grad[1:], expected[1][1:])
    assert images.grad.isfinite().all()


IMAGES = torch.rand(3, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((IMAGES, torch.rand(2, 4)), {}, r"captions: found torch.float32 \(2, 4\) on cpu, expected .* M >= N = 3"),
        (
            (IMAGES, torch.rand(3, 5)),
            {},
            r"captions: found torch.float32 \(3, 5\) on cpu, expected torch.float32 \(M, 4\)",
        ),
        ((IMAGES, torch.rand(3, 4).double()), {}, r"captions: found torch.float64 \(3, 4\) on cpu"),
        ((torch.rand(3), IMAGES), {}, r"images: found torch.float32 \(3,\), expected a tensor of floats"),
        ((IMAGES, [1, 2, 3]), {}, "captions: found list, expected a tensor"),
        ((IMAGES.long(), IMAGES), {}, r"images: found torch.int64 \(3, 4\)"),
        ((IMAGES, torch.full((3, 4), torch.nan)), {}, "captions: found NaN or infinity"),
        ((1e30 * IMAGES, 1e30 * IMAGES), {"similarity": "dot"}, "scores: found NaN or infinity"),
        ((IMAGES, IMAGES), {"similarity": "euclid"}, "similarity: found 'euclid', expected one of 'cosine', 'dot'"),
        ((IMAGES, IMAGES), {"image_ids": [1, 2]}, r"image_ids: found shape \(2,\), expected \(3,\)"),
        ((IMAGES, IMAGES), {"negatives": torch.ones(3, 3)}, "negatives: found torch.float32"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        PolynomialLoss(positive_ceiling=None).from_embeddings(*arguments, **options)


@pytest.mark.parametrize("name", ["polynomial", "triplet", "triplet_semihard", "triplet_all", "infonce"])
def test_a_number_that_is_none_reaches_the_loss(name):
    images, captions, _ = embeddings(5, 30)
    captions[17] = torch.nan  # of a queue, and not in the last block
    value = FORMS[name](check_finite=False).from_embeddings(images, captions)
    assert value.isnan()


def test_float16_keeps_the_small_weights_of_many_negatives():
    """Each of so many has too small a weight for float16, which has none below 6e-8."""
    images, captions, _ = embeddings(600, 600)
    loss = InfoNCELoss(temperature=6.0, check_finite=False)
    images, captions = (normalize(each).half() for each in (images, captions))
    expected = plain(loss, images.double(), captions.double(), "dot")
    found = streamed(loss, images, captions, "dot")
    for ours, theirs in zip(found[1:3], expected[1:3], strict=True):
        assert (ours.double() - theirs).norm() <= 4e-3 * theirs.norm()


class Learnt(InfoNCELoss):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(5.0))


class Misspelt(InfoNCELoss):
    gathers = "mean"


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (Learnt(), {}, "Learnt: found parameters that want a gradient, expected none that are learnt"),
        (Misspelt(), {}, "Misspelt.gathers: found 'mean', expected one of 'all', 'average', 'log_sum_exp'"),
        (TripletLoss(), {"process_group": "world"}, "process_group: found 'world', expected a group of torch"),
        (TripletLoss(), {"images": torch.ones(0, 3)}, r"images: found torch.float32 \(0, 3\), expected a tensor of"),
    ],
)
def test_what_embeddings_are_not_taken_for(loss, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss.from_embeddings(**{"images": torch.rand(2, 3), "captions": torch.rand(2, 3)} | arguments)
