"""The losses on labelled embeddings, against plain loops, against pytorch-metric-learning, and inside its trainer."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers, trainers
from torch import nn

from tests.losses.oracles import anchor
from tests.test_environment import HIDE
from uwml_lib.losses import (
    LOSSES,
    InfoNCELoss,
    PolynomialLoss,
    PolynomialPublicVariantLoss,
    ScoreMatrixLoss,
    SigmoidLoss,
    TripletAllLoss,
    TripletLoss,
)
from uwml_lib.losses.pml import CrossBatchMemory, LabelledPairsLoss, SelfSupervisedLoss

LABELS = torch.tensor([3, 1, 3, 2, 1, 3, 0, 1, 2, 3])  # one label of four, one of three, one of two, one alone
every_loss = pytest.mark.parametrize("loss", [kind() for kind in LOSSES.values()], ids=LOSSES)


def embeddings(number=10, seed=0, size=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, size, generator=generator, dtype=torch.float64)


def cosines(a, b):
    return nn.functional.normalize(a) @ nn.functional.normalize(b).T


def naive(loss, S, labels, ref_labels, own=None):
    """The mean over pairs by plain loops; `own` says which reference each anchor is, by default that of its place."""
    own = dict(enumerate(range(len(labels)) if own is None else own))
    values = []
    for i, label in enumerate(labels.tolist()):
        negatives = [S[i, k].item() for k, other in enumerate(ref_labels.tolist()) if other != label]
        for j, other in enumerate(ref_labels.tolist()):
            if other == label and j != own.get(i):
                p = S[i, j].item()
                values.append(anchor(loss, p, negatives, (p, negatives)))
    return sum(values) / max(len(values), 1)


# ---------------------------------------------------------------------------------------------------------- the values


@every_loss
@pytest.mark.parametrize("seed", range(2))
def test_naive_loop(loss, seed):
    x = embeddings(seed=seed)
    value = LabelledPairsLoss(loss)(x, LABELS)
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(naive(loss, cosines(x, x), LABELS, LABELS), rel=1e-9)


@every_loss
@pytest.mark.parametrize(("anchors", "references"), [(10, 4), (1, 10)])
def test_references(loss, anchors, references):
    x, y = embeddings(anchors), embeddings(references, seed=1)
    ref_labels = LABELS.flip(0)[:references]
    value = LabelledPairsLoss(loss)(x, LABELS[:anchors], ref_emb=y, ref_labels=ref_labels)
    expected = naive(loss, cosines(x, y), LABELS[:anchors], ref_labels, own=())
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_the_default_is_the_polynomial_loss_on_cosines():
    x = embeddings()
    torch.testing.assert_close(LabelledPairsLoss()(5 * x, LABELS), LabelledPairsLoss(PolynomialLoss())(x, LABELS))


def test_by_hand():
    """Two of a label at cosine 0.6, one of another at cosine 0.8 with the first and 0 with the second."""
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    value = LabelledPairsLoss(TripletLoss(margin=0.3))(x, labels)
    assert value.item() == pytest.approx((0.3 + 0.8 - 0.6 + 0.0) / 2)


@every_loss
def test_two_views_are_both_directions_of_a_score_matrix(loss):
    """Each view of a thing has one positive, the other view; negatives are the other things' in either view."""
    x = embeddings(12)
    S = cosines(x, x)
    things = torch.arange(6).repeat(2)
    swapped = torch.arange(12).roll(6)  # columns: the positive of row i on the diagonal
    expected = loss.direction(S[:, swapped], things[:, None] != things) / 12
    torch.testing.assert_close(LabelledPairsLoss(loss)(x, things), expected)


def test_the_same_as_pytorch_metric_learning():
    x = embeddings(10, seed=3)
    pairs = int((LABELS[:, None] == LABELS).sum()) - len(LABELS)
    torch.testing.assert_close(
        LabelledPairsLoss(InfoNCELoss(0.1))(x, LABELS), losses.NTXentLoss(0.1)(x, LABELS) / 2, check_dtype=False
    )
    summed = losses.TripletMarginLoss(0.2, distance=distances.CosineSimilarity(), reducer=reducers.SumReducer())
    torch.testing.assert_close(LabelledPairsLoss(TripletAllLoss(0.2))(x, LABELS), summed(x, LABELS) / pairs)


def test_the_reduction_plays_no_part():
    x = embeddings()
    assert LabelledPairsLoss(TripletLoss(reduction="sum"))(x, LABELS) == LabelledPairsLoss(
        TripletLoss(reduction="mean")
    )(x, LABELS)


# --------------------------------------------------------------------------------------------- who is whose positive


@every_loss
def test_labels_all_different(loss):
    x = embeddings().requires_grad_()
    value = LabelledPairsLoss(loss)(x, torch.arange(len(x)))
    value.backward()
    assert value == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@every_loss
def test_labels_all_equal(loss):
    """No negatives: nothing to do, but for a loss that pulls every positive anyway."""
    x = embeddings().requires_grad_()
    labels = torch.ones(len(x))
    value = LabelledPairsLoss(loss)(x, labels)
    value.backward()
    assert value.item() == pytest.approx(naive(loss, cosines(x, x), labels, labels))
    assert (value > 0) == isinstance(loss, SigmoidLoss)
    assert x.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize(("anchors", "references"), [(0, 3), (1, 1)])
def test_nothing_to_compare(loss, anchors, references):
    x, y = embeddings(anchors).requires_grad_(), embeddings(references).requires_grad_()
    value = LabelledPairsLoss(loss)(x, torch.zeros(anchors), ref_emb=y, ref_labels=torch.ones(references))
    value.backward()
    assert value == 0
    assert x.grad.shape == x.shape
    assert y.grad.shape == y.shape


@every_loss
def test_order_is_irrelevant(loss):
    x, order = embeddings(), torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LabelledPairsLoss(loss)(x[order], LABELS[order]), LabelledPairsLoss(loss)(x, LABELS))


@pytest.mark.parametrize("named", [False, True])
def test_an_embedding_is_no_positive_of_its_own(named):
    """The loss of a pair is its positive's score here, so a single self-pair would show."""

    class Positives(ScoreMatrixLoss):
        needs_margin = False

        def direction(self, scores, negative_mask):
            seen.append(scores.diagonal())
            return scores.diagonal().sum()

    seen = []
    x = embeddings()
    references = {"ref_emb": x, "ref_labels": LABELS.clone()} if named else {}
    LabelledPairsLoss(Positives(None, "mean", None))(x, LABELS, **references)
    assert len(torch.cat(seen)) == 4 * 3 + 3 * 2 + 2 * 1
    assert (torch.cat(seen) < 1 - 1e-6).all()


def test_a_miner_chooses_the_pairs():
    x, loss = embeddings(seed=4), LabelledPairsLoss(TripletAllLoss(0.5))
    chosen = tuple(torch.tensor(part) for part in ([0, 0, 4], [2, 5, 1], [0, 4, 4, 6], [1, 3, 6, 0]))
    S = cosines(x, x)
    terms = [
        max(0.5 + S[i, n].item() - S[i, p].item(), 0.0)
        for i, p, others in ((0, 2, [1]), (0, 5, [1]), (4, 1, [3, 6]))
        for n in others
    ]
    assert loss(x, LABELS, chosen).item() == pytest.approx(sum(terms) / 3)
    assert loss(x, None, chosen) == loss(x, LABELS, chosen)
    triplets = tuple(torch.tensor(part) for part in ([0, 0, 0], [2, 2, 5], [1, 3, 1]))
    pairs = tuple(torch.tensor(part) for part in ([0, 0], [2, 5], [0, 0], [1, 3]))
    assert loss(x, LABELS, triplets) == loss(x, LABELS, pairs)
    everything = miners.BatchHardMiner()(x, LABELS)
    assert loss(x, LABELS, everything) > 0


# --------------------------------------------------------------------------- inside pytorch-metric-learning's wrappers


@every_loss
def test_cross_batch_memory(loss):
    """Four batches of four, of which a memory of ten keeps the latest rows."""
    wrapped, memory = CrossBatchMemory(LabelledPairsLoss(loss), embedding_size=3, memory_size=10), []
    for step in range(4):
        x, labels = embeddings(4, seed=step).requires_grad_(), LABELS[2 * step :][:4]
        value = wrapped(x, labels)
        memory = (memory + list(zip(x.detach(), labels, strict=True)))[-10:]
        kept, kept_labels = (torch.stack(part) for part in zip(*memory, strict=True))
        own = range(len(memory) - 4, len(memory))
        assert value.item() == pytest.approx(naive(loss, cosines(x, kept), labels, kept_labels, own), rel=1e-9)
        value.backward()
        assert x.grad.isfinite().all()


def test_cross_batch_memory_of_others():
    """What is only put into the memory is no anchor, and an anchor that is not put there meets no copy of itself."""
    loss, x, queued = TripletAllLoss(0.5), embeddings(), torch.arange(10) < 6
    value = CrossBatchMemory(LabelledPairsLoss(loss), embedding_size=3)(x, LABELS, enqueue_mask=queued)
    expected = naive(loss, cosines(x[6:], x[:6]), LABELS[6:], LABELS[:6], ())
    assert expected > 0
    assert value.item() == pytest.approx(expected)


def test_cross_batch_memory_with_a_miner():
    loss, x = LabelledPairsLoss(TripletAllLoss(0.5)), embeddings()
    value = CrossBatchMemory(loss, embedding_size=3, miner=miners.BatchHardMiner())(x, LABELS)
    torch.testing.assert_close(value, loss(x, LABELS, miners.BatchHardMiner()(x, LABELS)))


@every_loss
@pytest.mark.parametrize("symmetric", [True, False])
def test_self_supervised(loss, symmetric):
    x, y = embeddings(5), embeddings(5, seed=1)
    value = SelfSupervisedLoss(LabelledPairsLoss(loss), symmetric=symmetric)(x, y)
    both, of_both = torch.cat([x, y]), torch.arange(5).repeat(2)
    if symmetric:
        expected = naive(loss, cosines(both, both), of_both, of_both)
    else:
        expected = naive(loss, cosines(x, y), torch.arange(5), torch.arange(5), ())
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("wrapper", [partial(CrossBatchMemory, embedding_size=3), SelfSupervisedLoss])
def test_the_wrappers_take_and_refuse_what_they_did(wrapper):
    wrapper(losses.TripletMarginLoss())
    with pytest.raises(Exception, match="not supported for FastAPLoss"):
        wrapper(losses.FastAPLoss())


# ------------------------------------------------------------------------------------------------ as part of a training


@pytest.mark.parametrize("loss", [PolynomialPublicVariantLoss(), TripletAllLoss(), InfoNCELoss(0.5), SigmoidLoss()])
@pytest.mark.parametrize("references", [None, 6])
def test_gradcheck(loss, references):
    x, y = embeddings().requires_grad_(), embeddings(6, seed=1).requires_grad_()
    wrapped = LabelledPairsLoss(loss)
    if references is None:
        assert torch.autograd.gradcheck(lambda a: wrapped(a, LABELS), (x,))
    else:
        assert torch.autograd.gradcheck(lambda a, b: wrapped(a, LABELS, ref_emb=b, ref_labels=LABELS[:6]), (x, y))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(loss, dtype):
    x = embeddings().to(dtype)
    value = LabelledPairsLoss(loss)(x, LABELS)
    assert value.dtype == dtype
    # The scores themselves are rounded, and a steep loss multiplies that.
    assert value.item() == pytest.approx(LabelledPairsLoss(loss)(x.double(), LABELS).item(), rel=0.1)


def test_many_pairs_do_not_overflow_half_precision():
    class Thousand(ScoreMatrixLoss):
        needs_margin = False

        def direction(self, scores, negative_mask):
            return (1000 * scores.diagonal()).sum()

    x = torch.ones(40, 3, dtype=torch.float16)
    value = LabelledPairsLoss(Thousand(None, "mean", None))(x, torch.zeros(40))
    assert value.item() == pytest.approx(1000, rel=2e-3)


def test_inside_a_trainer():
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(8)
    points = nn.functional.one_hot(labels, 5).float() + 0.6 * torch.randn(32, 5)
    network = nn.Linear(5, 3)
    loss = LabelledPairsLoss(TripletAllLoss())
    before = loss(network(points), labels).item()
    trainer = trainers.MetricLossOnly(
        models={"trunk": network},
        optimizers={"trunk_optimizer": torch.optim.Adam(network.parameters(), 0.02)},
        batch_size=16,
        loss_funcs={"metric_loss": loss},
        dataset=torch.utils.data.TensorDataset(points, labels),
        mining_funcs={"tuple_miner": miners.MultiSimilarityMiner(0.5)},
        dataloader_num_workers=0,
    )
    trainer.train(num_epochs=10)
    assert loss(network(points), labels).item() < before / 2


def test_with_a_regularizer():
    x = embeddings()
    loss = LabelledPairsLoss(embedding_regularizer=regularizers.LpRegularizer(), embedding_reg_weight=0.5)
    torch.testing.assert_close(loss(x, LABELS), LabelledPairsLoss()(x, LABELS) + 0.5 * x.norm(dim=1).mean())


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: LabelledPairsLoss()(x / 0, LABELS), "scores: found NaN"),
        (lambda x: LabelledPairsLoss()(x), "labels: found None"),
        (lambda x: LabelledPairsLoss()(x, LABELS, ref_emb=x.clone()), "ref_labels: found None"),
        (lambda x: LabelledPairsLoss(losses.TripletMarginLoss()), "loss: found TripletMarginLoss"),
        (lambda x: LabelledPairsLoss(distance=distances.LpDistance()), "distance: found LpDistance"),
        (lambda x: LabelledPairsLoss(reducer=reducers.SumReducer()), "reducer: found SumReducer"),
    ],
)
def test_error(call, words):
    with pytest.raises(ValueError, match=words):
        call(embeddings())


def test_without_the_package():
    program = HIDE + "import uwml_lib.losses.pml"
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    result = run([sys.executable, "-c", program, "pytorch_metric_learning"])
    assert result.returncode != 0
    *_, last = result.stderr.splitlines()
    assert last.startswith(
        "ModuleNotFoundError: uwml_lib.losses.pml needs pytorch-metric-learning, which the kit's extra [pml]"
    )
