"""The score matrix of a whole split, in bounded memory."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from uwml_lib.config import Precision
from uwml_lib.datasets.precomputed import PrecomputedDataset
from uwml_lib.evaluation.metrics import retrieval_metrics
from uwml_lib.models.matcher import Matcher
from uwml_lib.support.numerics import tf32_products
from uwml_lib.support.progress import progress


@torch.no_grad()
def score_matrix(
    model: Matcher,
    dataset: PrecomputedDataset,
    block: int | None = None,
    images: range | None = None,
    precision: Precision = "float32",
    part: tuple[int, int] = (0, 1),
) -> Tensor:
    """Score every image of a split with every caption: (n_images, n_captions) on the CPU.

    Every image is embedded once; embeddings wait on the model's device, and `block` images meet `block` captions, taken
    in order of length to save padding. block: None is 128, and 512 on an accelerator, which large products keep busy.
    images: consecutive ones, with their captions; None is all. precision: of the attention and the scores, see
    `ExperimentConfig.evaluation_precision`; embeddings are those of the model, as in the released code. part: (i, n) is
    the i-th of n equal parts of the captions' blocks, from 0; other scores are zeros, so that the n matrices add up.
    """
    device = next(model.parameters()).device
    block = block or (128 if device.type == "cpu" else 512)
    dtype = torch.float64 if precision == "float64" else torch.float32
    images = images or range(len(dataset.features))
    first, last = images.start, min(images.stop, len(dataset.features))
    K = dataset.captions_per_image
    by_length = dataset.caption_lengths[first * K : last * K].argsort(kind="stable")
    scores = torch.zeros(last - first, len(by_length), dtype=dtype, device=device)
    number, parts = part
    was_training = model.training
    model.eval()
    try:
        embedded_images = []
        for start in range(first, last, block):
            rows = range(start, min(start + block, last))
            features, counts = dataset.images(rows.start, rows.stop).to(device), dataset.counts(rows)
            embedded_images.append(model.embed_images(features, counts).to(dtype))
        for start in progress(range(number * block, len(by_length), parts * block), "scoring captions"):
            chosen = by_length[start : start + block]
            tokens, lengths = dataset.read_captions((first * K + chosen).tolist())
            captions = model.embed_captions(tokens.to(device), lengths).to(dtype)
            columns = torch.from_numpy(chosen).to(device, non_blocking=True)
            for row, embedded in enumerate(embedded_images):
                with products(precision, device):
                    values = model.scores(embedded, captions, lengths)
                scores[row * block : row * block + len(values)].index_copy_(1, columns, values.to(dtype))
    finally:
        model.train(was_training)
    return scores.cpu()


@contextlib.contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute matrix products of float32 in a precision, tf32 or bf16; what is between them stays in float32."""
    in_bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with tf32_products(precision == "tf32"), in_bfloat16:
        yield


def evaluate_model(model: Matcher, dataset: PrecomputedDataset, precision: Precision = "float32") -> dict[str, float]:
    """Return `retrieval_metrics` of a model on a split."""
    return retrieval_metrics(score_matrix(model, dataset, precision=precision), dataset.captions_per_image)
