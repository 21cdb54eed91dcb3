"""Stacked cross attention of SCAN (Lee et al. 2018): exact, without ever forming the attended vectors.

For a query q (a region for i2t, a word for t2i) and the other side's context vectors c_l, with a_l = <q, c_l>,

    P_l  =  softmax_l(lambda_softmax * normalised(a)_l)         attention
    v    =  sum_l P_l c_l                                       attended vector
    r    =  <q, v> / (|q| |v|)                                  relevance of the context to this query

The release forms v for every image, caption and query. But <q, v> = sum_l P_l a_l, and |v|^2 = P^T G P with the Gram
matrix G_lm = <c_l, c_m> of one caption's words or one image's regions: the scores need nothing of size
images x captions x queries x dim, and one of the two large matrix products goes.

This is the plain form. `fused_attention.py` computes the same with fewer passes over memory; `cross_attention_scores`
takes it where it can.
"""

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from uwml_lib.config import Aggregation, Direction, Normalisation

NORMALISATIONS, AGGREGATIONS = get_args(Normalisation), get_args(Aggregation)
EPSILON = 1e-8  # of the release, in the normalisation and in the cosine
SLOPE = 0.1  # of the release's LeakyReLU


def plain_scores(
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    direction: str,
    normalisation: str,
    aggregation: str,
    lambda_softmax: float,
    lambda_lse: float,
) -> Tensor:
    """Return the scores of `cross_attention_scores`, which has checked the arguments: (n_images, n_captions)."""
    captions, word_mask = without_padding(captions, lengths)
    if direction == "i2t":
        r = relevance(images, captions, None, word_mask, normalisation, lambda_softmax)
        return aggregate(r, None, aggregation, lambda_lse).T
    r = relevance(captions, images, word_mask, None, normalisation, lambda_softmax)
    return aggregate(r, word_mask, aggregation, lambda_lse)


def without_padding(captions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return captions (n, words, dim) with zeros at and past their lengths (n,), and which words are theirs."""
    words = torch.arange(captions.shape[1], device=captions.device)
    word_mask = words < lengths.to(captions.device, non_blocking=True)[:, None]
    return captions.masked_fill(~word_mask[:, :, None], 0), word_mask


def relevance(
    queries: Tensor,
    context: Tensor,
    query_mask: Tensor | None,
    context_mask: Tensor | None,
    normalisation: str,
    lambda_softmax: float,
    focal: bool = False,
) -> Tensor:
    """Return r for every query, (K, Q, n): queries (Q, n, dim), context (K, m, dim), masks (Q, n) and (K, m).

    focal: attention below the mean of the m is nothing, as in BFAN.
    """
    Q, n, _ = queries.shape
    K, m, _ = context.shape
    a = (queries.flatten(0, 1) @ context.flatten(0, 1).T).view(Q, n, K, m).permute(2, 0, 1, 3)
    a = a.to(torch.promote_types(a.dtype, torch.float32))  # below it, what follows would lose 1e-8 and more
    logits = lambda_softmax * _normalise(a, query_mask, normalisation)
    if context_mask is not None:
        logits = logits.masked_fill(~context_mask[:, None, None, :], -torch.inf)
    P = torch.softmax(logits, dim=-1)
    if focal:  # the cosine does not see that what is left no longer sums to 1
        mean = 1 / (torch.tensor(m, device=a.device) if context_mask is None else context_mask.sum(dim=-1))
        P = P.masked_fill(torch.minimum(mean.view(-1, 1, 1, 1), P.amax(dim=-1, keepdim=True)) > P, 0)
    inner = (P * a).sum(dim=-1)
    gram = context @ context.transpose(1, 2)
    attended_square = ((P.flatten(1, 2).to(gram.dtype) @ gram).view(K, Q, n, m) * P).sum(dim=-1)
    query_square = queries.square().sum(dim=-1, dtype=a.dtype)
    # One square root of the product, clamped before it: at an all-zero position the root's slope would be infinite.
    return inner / (query_square * attended_square).clamp(min=EPSILON**2).sqrt()


def _normalise(a: Tensor, query_mask: Tensor | None, normalisation: str) -> Tensor:
    """Normalise similarities (K, Q, n, m) over the n queries; masked queries do not count."""
    if normalisation.startswith("clipped"):
        a = F.leaky_relu(a, SLOPE)
    if normalisation.endswith("l2norm"):  # a masked query's similarities are zero
        return a / (torch.linalg.vector_norm(a, dim=2, keepdim=True) + EPSILON)
    if normalisation == "softmax":
        if query_mask is not None:
            a = a.masked_fill(~query_mask[None, :, :, None], -torch.inf)
        return torch.softmax(a, dim=2)
    return a


def aggregate(relevance: Tensor, query_mask: Tensor | None, aggregation: str, lambda_lse: float) -> Tensor:
    """Aggregate r (K, Q, n) over the queries to (K, Q); masked queries do not count."""
    mask = torch.ones((), dtype=torch.bool, device=relevance.device) if query_mask is None else query_mask
    if aggregation == "Max":
        return relevance.masked_fill(~mask, -torch.inf).amax(dim=-1)
    if aggregation == "LogSumExp":
        return torch.logsumexp(lambda_lse * relevance.masked_fill(~mask, -torch.inf), dim=-1) / lambda_lse
    total = relevance.masked_fill(~mask, 0).sum(dim=-1)
    if aggregation == "Sum":
        return total
    return total / (relevance.shape[-1] if query_mask is None else query_mask.sum(dim=-1))


def attention_weights(
    queries: Tensor, context: Tensor, lambda_softmax: float, normalisation: str = "clipped_l2norm"
) -> Tensor:
    """Return the attention of one item's queries (n, dim) over another's context (m, dim): (n, m), rows sum to 1."""
    similarity = _normalise((queries @ context.T)[None, None], None, normalisation)
    return torch.softmax(lambda_softmax * similarity, dim=-1)[0, 0]


def check_arguments(
    images: Tensor, captions: Tensor, lengths: Tensor, direction: str, normalisation: str, aggregation: str
) -> None:
    """Raise ValueError for shapes that do not fit, lengths outside 1..words and unknown names."""
    for name, tensor in (("images", images), ("captions", captions)):
        if tensor.ndim != 3 or not tensor.is_floating_point():
            raise ValueError(f"{name}: found {tensor.dtype} {tuple(tensor.shape)}, expected floats (items, parts, dim)")
    if images.shape[2] != captions.shape[2]:
        raise ValueError(f"captions: found dim {captions.shape[2]}, expected {images.shape[2]} as of the images")
    if lengths.shape != captions.shape[:1]:
        raise ValueError(f"lengths: found shape {tuple(lengths.shape)}, expected ({len(captions)},)")
    if lengths.device.type == "cpu" and len(lengths) and not torch.compiler.is_compiling():  # where they can be read
        shortest, longest, words = int(lengths.min()), int(lengths.max()), captions.shape[1]
        if not 1 <= shortest <= longest <= words:
            raise ValueError(f"lengths: found {shortest} to {longest}, expected 1 to {words}")
    for name, value, choices in (
        ("direction", direction, get_args(Direction)),
        ("normalisation", normalisation, NORMALISATIONS),
        ("aggregation", aggregation, AGGREGATIONS),
    ):
        if value not in choices:
            raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")
