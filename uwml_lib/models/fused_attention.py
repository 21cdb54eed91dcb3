"""The cross attention of `cross_attention.py`: the same numbers, in fewer passes over memory, its gradients by hand.

With A = context @ queries^T over all words of a batch, what makes it quick and changes no more than the last bits:

- captions are taken by length, so that no padding is multiplied and nothing is masked;
- the cosine of a query with its attended vector does not see that vector's length. So the softmax's denominator
  cancels and x = exp(lambda e) does for P, where e is A after the L2 normalisation, so that nothing can overflow;
- what follows the matrix product is done block by block, small enough for a processor's cache, and is done again in
  the backward pass instead of being stored.

For a query q and the m vectors of a context, with their Gram matrix G,

    r  =  inner / sqrt(|q|^2 square),    inner = sum_l x_l a_l,    y = G x,    square = sum_l x_l y_l.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from uwml_lib.models.cross_attention import EPSILON, SLOPE, aggregate, check_arguments, default_lambdas

NORMALISATIONS = ("clipped_l2norm", "l2norm")
"""Those that bound e; the others need the softmax's subtracted maximum."""
BLOCK = 2**17
"""Numbers of A in a block on a CPU: half a megabyte in float32, so that what is made of it stays in a core's cache."""


def fused_scores(
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    direction: str = "i2t",
    normalisation: str = "clipped_l2norm",
    aggregation: str = "Mean",
    lambda_softmax: float | None = None,
    lambda_lse: float | None = None,
) -> Tensor:
    """Return the scores of `cross_attention_scores`, whose arguments and errors these are, (n_images, n_captions).

    normalisation: one of `NORMALISATIONS`, else ValueError. Lengths on an accelerator are waited for. Can be
    differentiated once. The gradient of an all-zero query, whose cosine is held by EPSILON, is of another size.
    """
    check_arguments(images, captions, lengths, direction, normalisation, aggregation)
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation: found {normalisation!r}, expected one of {', '.join(NORMALISATIONS)}")
    lambda_softmax, lambda_lse = default_lambdas(direction, lambda_softmax, lambda_lse)
    n_images, regions, _ = images.shape
    order = torch.argsort(lengths.cpu(), stable=True)
    words, counts = (t.tolist() for t in torch.unique_consecutive(lengths.cpu()[order], return_counts=True))
    order = order.to(captions.device, non_blocking=True)
    groups = [captions[chosen, :n] for chosen, n in zip(order.split(counts), words, strict=True)]
    if direction == "i2t":
        # Regions before images: a sum over an image's regions then runs along whole rows.
        queries, context = images.transpose(0, 1).flatten(0, 1), torch.cat([group.flatten(0, 1) for group in groups])
        spans, contexts = [(slice(0, len(queries)), regions)], groups
    else:
        queries, context = torch.cat([group.transpose(0, 1).flatten(0, 1) for group in groups]), images.flatten(0, 1)
        ends = list(accumulate(n * count for n, count in zip(words, counts, strict=True)))
        spans = [(slice(start, end), n) for start, end, n in zip([0, *ends], ends, words, strict=False)]
        contexts = [images]
    dtype = torch.promote_types(images.dtype, torch.float32)
    query_square = queries.square().sum(dim=-1, dtype=dtype)
    grams = [(part @ part.transpose(1, 2)).to(dtype) for part in contexts]
    blocks = list(_blocks(grams, spans, BLOCK if images.device.type == "cpu" else images.shape[0] * len(queries)))
    options = blocks, lambda_softmax, normalisation.startswith("clipped")
    relevance = Relevance.apply(queries, context, query_square, options, *grams)
    parts = [relevance[:, columns].unflatten(1, (n, -1)).transpose(1, 2) for columns, n in spans]
    scores = torch.cat([aggregate(part, None, aggregation, lambda_lse) for part in parts], dim=1)
    return (scores.T if direction == "i2t" else scores).index_select(1, order.argsort()).to(images.dtype)


class Block(NamedTuple):
    """Some contexts, of m vectors each, against the queries of some askers, n each."""

    contexts: slice
    rows: slice
    m: int
    columns: slice
    n: int
    gram: int
    """Which tensor of Gram matrices has those of these contexts, and in which part."""
    part: slice

    def of(self, A: Tensor) -> Tensor:
        """View A, (context vectors, queries), as (contexts, m, n, askers)."""
        return A[self.rows, self.columns].unflatten(0, (-1, self.m)).unflatten(2, (self.n, -1))

    def of_relevance(self, relevance: Tensor) -> Tensor:
        """View relevance, (contexts, queries), as (contexts, n, askers)."""
        return relevance[self.contexts, self.columns].unflatten(1, (self.n, -1))

    def of_queries(self, values: Tensor) -> Tensor:
        """View a value of every query as (n, askers)."""
        return values[self.columns].unflatten(0, (self.n, -1))


def _blocks(grams: list[Tensor], spans: list[tuple[slice, int]], size: int) -> Iterator[Block]:
    """Cut A into blocks of about `size` numbers: contexts in order, each against every span of queries."""
    row = context = 0
    for number, gram in enumerate(grams):
        count, m, _ = gram.shape
        for columns, n in spans:
            step = max(1, size // (m * (columns.stop - columns.start)))
            for first in range(0, count, step):
                last = min(count, first + step)
                contexts, rows = slice(context + first, context + last), slice(row + first * m, row + last * m)
                yield Block(contexts, rows, m, columns, n, number, slice(first, last))
        row, context = row + count * m, context + count


class Relevance(torch.autograd.Function):
    """Relevance r of every context to every query, (contexts, queries)."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, context: Tensor, query_square: Tensor, options: tuple, *grams: Tensor
    ) -> Tensor:
        """Map queries (queries, dim), context (context vectors, dim), |q|^2 (queries,) and Gram matrices to r."""
        blocks, lambda_softmax, clipped = options
        A = (context @ queries.T).to(query_square.dtype)
        relevance = A.new_empty(sum(map(len, grams)), len(queries))
        with torch.autocast(A.device.type, enabled=False):
            for block in blocks:
                a, G = block.of(A), grams[block.gram][block.part]
                x = _attention(a, lambda_softmax, clipped)[2]
                square = (G @ x.flatten(2)).view_as(x).mul_(x).sum(dim=1)
                inner = x.mul_(a).sum(dim=1)
                block.of_relevance(relevance).copy_(inner.mul_(_scale(square, block.of_queries(query_square))))
        ctx.save_for_backward(queries, context, query_square, A, *grams)
        ctx.options = options
        return relevance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Map the gradient of r to those of the inputs; what `forward` made of A is made again."""
        queries, context, query_square, A, *grams = ctx.saved_tensors
        blocks, lambda_softmax, clipped = ctx.options
        grad_A, grad_query_square = torch.empty_like(A), torch.zeros_like(query_square)
        grad_grams = [torch.zeros_like(gram) for gram in grams]
        for block in blocks:
            a, G, q2 = block.of(A), grams[block.gram][block.part], block.of_queries(query_square)
            norm, e, x = _attention(a, lambda_softmax, clipped)
            y = (G @ x.flatten(2)).view_as(x)
            square, inner = (x * y).sum(dim=1), (x * a).sum(dim=1)
            scale = _scale(square, q2)
            grad_inner = block.of_relevance(grad) * scale
            # r = inner * scale with scale = (|q|^2 square)^(-1/2), but constant where it is held at 1 / EPSILON
            common = (-0.5 * grad_inner * inner * scale**2).masked_fill_(square * q2 <= EPSILON**2, 0)
            block.of_queries(grad_query_square).add_((common * square).sum(dim=0))
            grad_square, grad_inner = (common * q2)[:, None], grad_inner[:, None]
            weighted = x * grad_square
            grad_grams[block.gram][block.part].baddbmm_(weighted.flatten(2), x.flatten(2).transpose(1, 2))
            grad_e = y.mul_(2 * grad_square).addcmul_(a, grad_inner).mul_(x).mul_(lambda_softmax)
            # e = c / (|c| + EPSILON), whose slope at c = 0 is taken as that of a constant |c|
            along = torch.mul(grad_e, e, out=weighted).sum(dim=2, keepdim=True)
            along.mul_(norm / (norm - EPSILON).clamp_(min=EPSILON**2))
            grad_c = grad_e.addcmul_(e, along, value=-1).div_(norm)
            grad_a = torch.ops.aten.leaky_relu_backward(grad_c, a, SLOPE, False) if clipped else grad_c
            block.of(grad_A).copy_(grad_a.addcmul_(x, grad_inner))
        grad_queries = (grad_A.T.to(context.dtype) @ context).to(queries.dtype)  # autocast may have mixed the types
        grad_context = (grad_A.to(queries.dtype) @ queries).to(context.dtype)
        return grad_queries, grad_context, grad_query_square, None, *grad_grams


def _attention(a: Tensor, lambda_softmax: float, clipped: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return |c| + EPSILON over the queries, e = c / that, and x = exp(lambda e)."""
    c = F.leaky_relu(a, SLOPE) if clipped else a
    norm = torch.linalg.vector_norm(c, dim=2, keepdim=True).add_(EPSILON)
    e = c / norm
    return norm, e, (lambda_softmax * e).exp_()


def _scale(square: Tensor, query_square: Tensor) -> Tensor:
    """Return 1 / sqrt(|q|^2 square), at most 1 / EPSILON."""
    return (square * query_square).clamp_(min=EPSILON**2).rsqrt_()
