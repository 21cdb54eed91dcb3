"""The losses as sentence-transformers' trainer calls them, against plain loops and against its own loss."""

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from tests.losses.oracles import naive_loss
from uwml_lib.datasets.raw.region_models import import_vision
from uwml_lib.losses import LOSSES, InfoNCELoss, PolynomialLoss, TripletAllLoss, TripletLoss
from uwml_lib.losses.sentence_transformers import SentencePairsLoss

losses = import_vision("sentence_transformers.sentence_transformer.losses")
MatryoshkaLoss, MultipleNegativesRankingLoss = losses.MatryoshkaLoss, losses.MultipleNegativesRankingLoss

BOTH = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}


class Given(nn.Module):
    """A model whose embeddings are its features."""

    def forward(self, features):
        return {"sentence_embedding": features["x"]}

    def get_embedding_dimension(self):
        return 6


def columns(number, rows=7, dtype=torch.float64):
    """Anchors, positives and hard negatives, each (rows, 6), as features."""
    generator = torch.Generator().manual_seed(number)
    anchors = torch.randn(rows, 6, generator=generator, dtype=dtype)
    others = [anchors + torch.randn(rows, 6, generator=generator, dtype=dtype) for _ in range(number - 1)]
    return [{"x": x.requires_grad_()} for x in (anchors, *(x.detach() for x in others))]


def similarities(features):
    anchors, *candidates = (normalize(column["x"]) for column in features)
    return anchors @ torch.cat(candidates).T


@pytest.mark.parametrize("loss", [kind() for kind in LOSSES.values()], ids=LOSSES)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_naive_loop(loss, number):
    features = columns(number)
    value = SentencePairsLoss(Given(), loss)(features, None)
    assert value.item() == pytest.approx(naive_loss(loss, similarities(features).detach()), rel=1e-9)


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_info_nce_is_their_ranking_loss_in_both_directions(number, similarity):
    """Value and gradient; with its own defaults theirs is one direction, for which ours counts twice."""
    features = columns(number)
    ours = SentencePairsLoss(Given(), InfoNCELoss(temperature=1 / 20), similarity=similarity)(features)
    dot = {"similarity_fct": lambda a, b: a @ b.T} if similarity == "dot" else {}
    theirs = MultipleNegativesRankingLoss(Given(), scale=20, **BOTH, **dot)(features, None)
    torch.testing.assert_close(ours, theirs)
    inputs = [column["x"] for column in features]
    torch.testing.assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs))


def test_their_default_is_one_direction():
    features = columns(3)
    scores, loss = similarities(features), InfoNCELoss(temperature=1 / 20)
    one = 2 * loss.direction(scores, loss.negative_mask(scores)) / len(scores)
    torch.testing.assert_close(one, MultipleNegativesRankingLoss(Given(), scale=20)(features, None))


def test_rows_of_one_label_are_no_negatives_of_each_other():
    features, labels, loss = columns(3), torch.tensor([4, 4, 1, 0, 1, 4, 2]), TripletAllLoss(margin=1.0)
    value = SentencePairsLoss(Given(), loss)(features, labels)
    assert value.item() == pytest.approx(naive_loss(loss, similarities(features).detach(), labels), rel=1e-9)
    assert value < SentencePairsLoss(Given(), loss)(features)


def test_inside_their_matryoshka_loss():
    features, inner = columns(2), SentencePairsLoss(model := Given(), TripletLoss())
    value = MatryoshkaLoss(model, inner, matryoshka_dims=[6, 3])(features, None)
    short = [{"x": column["x"][:, :3]} for column in features]
    torch.testing.assert_close(value, inner(features) + inner(short))


def test_under_autocast():
    features = columns(3, dtype=torch.float32)
    criterion = SentencePairsLoss(Given(), InfoNCELoss())
    with torch.autocast("cpu", torch.bfloat16):
        value = criterion(features)
    assert value.item() == pytest.approx(criterion(features).item(), rel=1e-2)
    assert torch.autograd.grad(value, features[0]["x"])[0].isfinite().all()


def test_alone_there_is_nobody_to_gather_from():
    features = columns(2)
    alone, asked = (SentencePairsLoss(Given(), TripletLoss(), gather_across_devices=flag) for flag in (False, True))
    assert alone(features) == asked(features)


def test_what_the_card_of_a_model_says():
    card = SentencePairsLoss(Given(), TripletLoss(margin=0.3)).get_config_dict()
    assert card["loss"].startswith("TripletLoss(margin=0.3")
    assert card["similarity"] == "cosine"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SentencePairsLoss(Given(), nn.CosineSimilarity()), "loss: found CosineSimilarity"),
        (lambda: SentencePairsLoss(Given(), PolynomialLoss(), similarity="euclidean"), "similarity: found 'euclidean'"),
        (lambda: SentencePairsLoss(Given(), PolynomialLoss())(columns(1)), "sentence_features: found 1, expected 2"),
        (lambda: SentencePairsLoss(Given(), PolynomialLoss())([]), "sentence_features: found 0, expected 2"),
        (lambda: SentencePairsLoss(Given(), PolynomialLoss())(columns(2), torch.rand(7)), "image_ids: found dtype"),
        (lambda: SentencePairsLoss(Given(), PolynomialLoss())([{"x": torch.ones(2, 3) / 0}] * 2), "found NaN"),
    ],
)
def test_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
