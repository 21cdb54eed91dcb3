"""Retrieval metrics against the released code's and a plain sort, and score matrices in blocks against one shot."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import golden
from tests.tiny import write_tiny
from uwml_lib.datasets import PrecomputedDataset, build_vocabulary, pad_captions
from uwml_lib.evaluation import METRICS, RANKS, RECALL_AT, evaluate_model, fold_metrics, retrieval_metrics, score_matrix
from uwml_lib.evaluation.metrics import tied_queries
from uwml_lib.models import SCAN

DIRECTIONS = ("image_to_text", "text_to_image")


def naive_rank(scores, true):
    """0-based place of the first true item in a list sorted by score; with equal scores the wrong item comes first."""
    order = sorted(range(len(scores)), key=lambda k: (-scores[k], k in true))
    return next(place for place, k in enumerate(order) if k in true)


# ------------------------------------------------------------------------------------------------ the metrics


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_metrics_of_the_released_code(kind):
    recorded = golden("retrieval.npz")
    metrics = retrieval_metrics(kind(recorded["scores"]), captions_per_image=5, return_ranks=True)
    for direction in DIRECTIONS:
        assert metrics[f"{direction}_ranks"].tolist() == recorded[f"{direction}_ranks"].tolist()
        names = [*(f"recall_at_{k}" for k in RECALL_AT), "median_rank", "mean_rank"]
        found = [metrics[f"{direction}_{name}"] for name in names]
        assert found == pytest.approx(recorded[direction].tolist())
    assert metrics["rsum"] == pytest.approx(sum(recorded[direction][:3].sum() for direction in DIRECTIONS))


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_a_plain_sort(n_images, captions_per_image, seed, ties):
    scores = torch.rand(n_images, n_images * captions_per_image, generator=torch.Generator().manual_seed(seed))
    if ties:
        scores = (3 * scores).round() / 3
    metrics = retrieval_metrics(scores, captions_per_image, return_ranks=True)
    image_to_text = [
        naive_rank(row, range(i * captions_per_image, (i + 1) * captions_per_image))
        for i, row in enumerate(scores.tolist())
    ]
    text_to_image = [naive_rank(column, [k // captions_per_image]) for k, column in enumerate(scores.T.tolist())]
    total = 0
    for direction, ranks in zip(DIRECTIONS, (image_to_text, text_to_image), strict=True):
        assert metrics[f"{direction}_ranks"].tolist() == ranks
        for k in RECALL_AT:
            recall = 100 * sum(rank < k for rank in ranks) / len(ranks)
            assert metrics[f"{direction}_recall_at_{k}"] == pytest.approx(recall)
            total += recall
        assert metrics[f"{direction}_median_rank"] == np.floor(np.median(ranks)) + 1
        assert metrics[f"{direction}_mean_rank"] == pytest.approx(np.mean(ranks) + 1)
    assert metrics["rsum"] == pytest.approx(total)


@pytest.mark.parametrize("kind", [torch.rand, torch.randn])
def test_more_images_than_are_ranked_at_once(kind):
    scores = kind(300, 600, generator=torch.Generator().manual_seed(0)).mul(50).round().numpy()
    metrics = retrieval_metrics(scores, captions_per_image=2, return_ranks=True)
    own = np.arange(600) // 2
    for image, row in enumerate(scores):
        wrong = (row >= row[own == image].max()) & (own != image)
        assert metrics["image_to_text_ranks"][image] == wrong.sum()
    for caption, column in enumerate(scores.T):
        wrong = (column >= column[own[caption]]) & (np.arange(300) != own[caption])
        assert metrics["text_to_image_ranks"][caption] == wrong.sum()
    scores[299, 0] = np.nan
    with pytest.raises(ValueError, match="found NaN"):
        retrieval_metrics(scores, captions_per_image=2)


@given(st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_an_identical_sentence_is_right(n_images, captions_per_image, seed):
    """Naively: what is right is a table; a wrong item that scores as high as the best right one is ranked before it."""
    generator = np.random.default_rng(seed)
    n_captions = n_images * captions_per_image
    scores = generator.integers(-2, 3, (n_images, n_captions)) / 2.0
    sentences = generator.integers(0, n_captions, n_captions)
    image_of = np.arange(n_captions) // captions_per_image
    right = np.array(
        [[sentence in sentences[image_of == image] for sentence in sentences] for image in range(n_images)]
    )
    ranks = [
        [((row >= row[true].max()) & ~true).sum() for row, true in zip(table, of, strict=True)]
        for table, of in ((scores, right), (scores.T, right.T))
    ]
    found = retrieval_metrics(scores, captions_per_image, return_ranks=True, sentences=sentences)
    for name, expected in zip(RANKS, ranks, strict=True):
        np.testing.assert_array_equal(found[name], expected)


def test_sentences_are_one_for_each_caption():
    with pytest.raises(ValueError, match="sentences: found 3 numbers, expected 4, one for each caption"):
        retrieval_metrics(np.eye(2).repeat(2, axis=1), 2, sentences=[0, 1, 2])


def test_ties_are_counted():
    scores = torch.tensor(
        [[3.0, 1.0, 3.0, 0.0], [1.0, 1.0, 2.0, 2.0]]
    )  # the first image ties with a caption of the other
    assert tied_queries(scores, 2) == {"image_to_text": 1, "text_to_image": 1}  # and a caption with both images
    assert tied_queries(torch.eye(3), 1) == {"image_to_text": 0, "text_to_image": 0}


def test_the_names():
    assert tuple(retrieval_metrics(torch.rand(2, 10))) == METRICS
    with_ranks = retrieval_metrics(torch.rand(2, 10), return_ranks=True)
    assert set(with_ranks) - set(METRICS) == {f"{direction}_ranks" for direction in DIRECTIONS}
    assert all(type(value) is float for value in retrieval_metrics(torch.rand(2, 10)).values())


def test_perfect_scores():
    perfect = torch.eye(20).repeat_interleave(5, dim=1)
    metrics = retrieval_metrics(perfect)
    assert metrics["rsum"] == 600
    assert metrics["image_to_text_median_rank"] == metrics["text_to_image_mean_rank"] == 1
    assert retrieval_metrics(-perfect)["rsum"] == 0


def test_equal_scores_are_not_rewarded():
    for value in (0.0, -torch.inf, torch.inf):
        assert retrieval_metrics(torch.full((20, 100), value))["rsum"] == 0
    assert retrieval_metrics(torch.zeros(1, 5))["rsum"] == 600  # nothing else to rank
    two = retrieval_metrics(torch.zeros(2, 10))  # one wrong image, five wrong captions before the true ones
    assert [two[f"text_to_image_recall_at_{k}"] for k in RECALL_AT] == [0, 100, 100]
    assert [two[f"image_to_text_recall_at_{k}"] for k in RECALL_AT] == [0, 0, 100]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_every_dtype(dtype):
    scores = torch.randint(0, 9, (15, 45), generator=torch.Generator().manual_seed(0))
    assert retrieval_metrics(scores.to(dtype), 3) == retrieval_metrics(scores.float(), 3)


@pytest.mark.parametrize(
    ("scores", "captions_per_image", "message"),
    [
        (torch.rand(3, 14), 5, r"found shape \(3, 14\), expected .* captions_per_image = 5"),
        (torch.rand(15, 3), 5, r"found shape \(15, 3\)"),
        (torch.rand(3), 1, r"found shape \(3,\)"),
        (torch.rand(0, 0), 5, r"found shape \(0, 0\)"),
        (torch.rand(3, 0), 0, r"found shape \(3, 0\)"),
        (torch.tensor([[0.1, torch.nan], [0.2, 0.3]]), 1, "found NaN"),
        (np.full((2, 2), np.nan), 1, "found NaN"),
    ],
)
def test_bad_scores(scores, captions_per_image, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(scores, captions_per_image)


# ------------------------------------------------------------------------------------------------ the score matrix


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), {"train": 5, "dev": 13}, captions_per_image=3)
    return PrecomputedDataset(folder, "dev", build_vocabulary(folder))


@pytest.fixture(params=["i2t", "t2i"])
def model(request, dataset):
    torch.manual_seed(0)
    return SCAN(dataset.feature_dim, len(dataset.vocabulary), embed_size=8, word_dim=6, direction=request.param)


def one_shot(model, dataset, n_images=13):
    tokens, lengths = pad_captions(dataset.encoded[: 3 * n_images])
    with torch.no_grad():
        return model(dataset.images(0, n_images), tokens, lengths)


@pytest.mark.parametrize("block", [1, 4, 13, 39, 1000])
def test_blocks_give_what_one_shot_gives(model, dataset, block):
    scores = score_matrix(model, dataset, block)
    assert scores.shape == (13, 39)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    torch.testing.assert_close(scores, one_shot(model, dataset), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 5), (0, 13), (0, 99), (3, 10), (12, 13)])
def test_some_images_alone(model, dataset, start, stop):
    expected = one_shot(model, dataset)[start:stop, 3 * start : 3 * stop]
    found = score_matrix(model, dataset, 4, images=range(start, stop))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("processes", [2, 3, 20])  # of ten blocks
def test_the_parts_of_several_processes_add_up(model, dataset, processes):
    parts = [score_matrix(model, dataset, 4, part=(number, processes)) for number in range(processes)]
    assert torch.equal(torch.stack(parts).sum(dim=0), score_matrix(model, dataset, 4))
    columns = [len(part.any(dim=0).nonzero()) for part in parts]
    assert sum(columns) == 39
    assert max(columns) <= 4 * -(-10 // processes)  # each has its share


def test_attention_in_float64(model, dataset):
    """As in the release: embeddings of float32, attention and scores of float64."""
    tokens, lengths = pad_captions(dataset.encoded)
    with torch.no_grad():
        images, captions = model.embed_images(dataset.images(0, 13)), model.embed_captions(tokens, lengths)
        expected = model.scores(images.double(), captions.double(), lengths)
    found = score_matrix(model, dataset, precision="float64")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
    assert not torch.equal(found, score_matrix(model, dataset).double())


def test_products_in_bfloat16(model, dataset):
    """Coarser by what bfloat16's eight bits make of embeddings of few numbers, and no more; scores are float32."""
    exact, found = score_matrix(model, dataset), score_matrix(model, dataset, precision="bf16")
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.05


@pytest.mark.parametrize(("precision", "products"), [("tf32", "high"), ("float32", "highest"), ("bf16", "highest")])
def test_the_precision_of_products_is_for_the_attention_alone(model, dataset, monkeypatch, precision, products):
    scores, seen = model.scores, []
    monkeypatch.setattr(
        model, "scores", lambda *arguments: (seen.append(torch.get_float32_matmul_precision()), scores(*arguments))[1]
    )
    before = torch.get_float32_matmul_precision()
    score_matrix(model, dataset, precision=precision)
    assert set(seen) == {products}
    assert torch.get_float32_matmul_precision() == before


def test_folds_are_scored_alone_and_their_metrics_averaged():
    scores = torch.rand(10, 30, generator=torch.Generator().manual_seed(0))
    parts = [scores[start : start + 5, 3 * start : 3 * start + 15] for start in (0, 5)]
    mean, folds = fold_metrics(parts, captions_per_image=3, return_ranks=True)
    alone = [retrieval_metrics(part, 3, return_ranks=True) for part in parts]
    for name in METRICS:
        assert [fold[name] for fold in folds] == [part[name] for part in alone]
        assert mean[name] == pytest.approx((alone[0][name] + alone[1][name]) / 2)
    assert mean["rsum"] == pytest.approx(sum(mean[name] for name in METRICS if "recall" in name))
    for name in RANKS:
        assert mean[name].tolist() == [*alone[0][name], *alone[1][name]]


def test_sentences_of_folds():
    scores, sentences = torch.rand(6, 12, generator=torch.Generator().manual_seed(0)), [0, 1] * 6
    folds = [scores[:3, :6], scores[3:, 6:]]
    mean, found = fold_metrics(folds, 2, sentences=[*range(6), 1, 1, 1, 1, 2, 2])
    assert found[0] == retrieval_metrics(folds[0], 2)
    assert found[1] == retrieval_metrics(folds[1], 2, sentences=[1, 1, 1, 1, 2, 2]) != retrieval_metrics(folds[1], 2)
    assert fold_metrics(folds, 2, sentences=sentences)[0]["rsum"] == 600  # every image has both sentences


def test_one_fold_is_the_whole():
    scores = torch.rand(6, 12, generator=torch.Generator().manual_seed(1))
    assert fold_metrics([scores], 2)[0] == retrieval_metrics(scores, 2)


def test_everything_is_embedded_once(model, dataset, monkeypatch):
    seen = {"embed_images": [], "embed_captions": []}
    for name, rows in seen.items():
        embed = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda x, *rest, embed=embed, rows=rows: (rows.append(len(x)), embed(x, *rest))[1]
        )
    score_matrix(model, dataset, block=4)
    assert seen == {"embed_images": [4, 4, 4, 1], "embed_captions": [*[4] * 9, 3]}


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_restored(model, dataset, training, monkeypatch):
    model.train(training)
    during = []
    scores = model.scores
    monkeypatch.setattr(model, "scores", lambda *arguments: (during.append(model.training), scores(*arguments))[1])
    score_matrix(model, dataset)
    assert model.training == training
    assert not any(during)
    monkeypatch.setattr(model, "scores", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score_matrix(model, dataset)
    assert model.training == training


def test_evaluate_model(model, dataset):
    assert evaluate_model(model, dataset) == retrieval_metrics(one_shot(model, dataset), 3)
