"""The cross attention of `cross_attention.py`: the same numbers, in fewer passes over memory, its gradients by hand.

A = context @ queries^T holds all similarities of a batch. Three things make this quick, and change only the last bits:

- Captions of equal length are taken together, so that no padding is multiplied and nothing is masked.
- A cosine does not depend on the length of the attended vector, so the softmax's denominator cancels, and x = exp(z)
  takes the place of P. Here z is lambda times the L2-normalised A, so that exp cannot overflow if lambda is small.
- What follows the product A is computed in blocks that fit into a processor's cache, and computed again in the backward
  pass instead of being stored. Kept are A and what is smaller by the size of a caption or an image.

For a query q and the m vectors of a context, with their Gram matrix G,

    r  =  inner / sqrt(|q|^2 square),    inner = sum_l x_l a_l,    y = G x,    square = sum_l x_l y_l.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from uwml_lib.models.cross_attention import EPSILON, SLOPE, aggregate

Implementation = Literal["auto", "plain", "fused"]
NORMALISATIONS = ("clipped_l2norm", "l2norm")
"""Those that bound z; the others need the softmax's subtracted maximum."""
LARGEST_LAMBDA = 36.0
"""Beyond it, exp(2 lambda) times the square of a context's size could pass 3.4e38."""
BLOCK = 2**17
"""Numbers of A in a block for each thread of a CPU: half a megabyte in float32, which stays in a core's cache."""
DEVICE_BLOCK = 2**26
"""The same on an accelerator, where blocks are there to bound the memory: two gigabytes with what is made of them."""


def takes_fused(
    implementation: Implementation, images: Tensor, lengths: Tensor, normalisation: str, lambda_softmax: float
) -> bool:
    """Decide between the forms; raises ValueError for an unknown name, and for "fused" where that cannot be.

    The fused form cuts the batch by lengths, which it reads on the host: they cannot be symbols of a compiler or of a
    transform, and reading them would break the capture of a graph. On an accelerator the host would wait for them.
    """
    if implementation not in (forms := get_args(Implementation)):
        raise ValueError(f"implementation: found {implementation!r}, expected one of {', '.join(forms)}")
    if implementation == "plain":
        return False
    hindrance = None
    if torch.compiler.is_compiling():  # first, for the compiler cannot follow the other questions
        hindrance = "torch.compile at work, expected none"
        if implementation == "fused":  # without a break here, the compiler would catch the error and go on uncompiled
            torch._dynamo.graph_break("implementation='fused' cannot be compiled")
    elif torch._C._are_functorch_transforms_active():
        hindrance = "vmap or another functional transform at work, expected none"
    elif images.is_cuda and torch.cuda.is_current_stream_capturing():
        hindrance = "the capture of a CUDA graph, expected none"
    elif lengths.device.type != "cpu":
        hindrance = f"lengths on {lengths.device}, expected them on the CPU"
    elif normalisation not in NORMALISATIONS:
        hindrance = f"normalisation {normalisation!r}, expected one of {', '.join(NORMALISATIONS)}"
    elif lambda_softmax > LARGEST_LAMBDA:
        hindrance = f"lambda_softmax {lambda_softmax:g}, expected at most {LARGEST_LAMBDA:g}"
    if hindrance and implementation == "fused":
        raise ValueError(f"implementation='fused': found {hindrance}")
    return hindrance is None


def fused_scores(
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    direction: str,
    normalisation: str,
    aggregation: str,
    lambda_softmax: float,
    lambda_lse: float,
) -> Tensor:
    """Return the scores of `cross_attention_scores`, which has checked the arguments: (n_images, n_captions).

    The gradient of an all-zero query, whose cosine is held by EPSILON, is of another size than in the plain form.
    """
    n_images, regions, _ = images.shape
    # Captions of equal length make a group: counts[k] captions of sizes[k] words each, shortest first.
    order = torch.argsort(lengths.cpu(), stable=True)
    sizes, counts = (t.tolist() for t in torch.unique_consecutive(lengths.cpu()[order], return_counts=True))
    # Take the valid words alone, group after group. In a group of askers all first words come first, then all second
    # ones, so that the sum over an asker's queries, made for all askers at once, adds up whole stretches of
    # neighbours. The words of a context stay together.
    places = order[:, None] * captions.shape[1] + torch.arange(captions.shape[1])
    by_length = [chosen[:, :n] for chosen, n in zip(places.split(counts), sizes, strict=True)]
    places = torch.cat([(place if direction == "i2t" else place.T).flatten() for place in by_length])
    words = captions.flatten(0, 1).index_select(0, places.to(captions.device, non_blocking=True))
    of_captions, of_images = list(zip(counts, sizes, strict=True)), [(n_images, regions)]
    if direction == "i2t":
        queries, context, askers, asked = images.transpose(0, 1).flatten(0, 1), words, of_images, of_captions
    else:
        queries, context, askers, asked = words, images.flatten(0, 1), of_captions, of_images
    size = BLOCK * torch.get_num_threads() if images.device.type == "cpu" else DEVICE_BLOCK
    options = (asked, list(_blocks(asked, askers, size)), lambda_softmax, normalisation.startswith("clipped"))
    relevance = Relevance.apply(queries, context, options).split([count * n for count, n in askers], dim=1)
    # Back from the order of the queries to (contexts, askers, queries), group by group, and to the captions' own order.
    parts = [part.unflatten(1, (n, -1)).transpose(1, 2) for part, (_, n) in zip(relevance, askers, strict=True)]
    scores = torch.cat([aggregate(part, None, aggregation, lambda_lse) for part in parts], dim=1)
    scores = scores.T if direction == "i2t" else scores
    return scores.index_select(1, order.argsort().to(captions.device, non_blocking=True))


class Block(NamedTuple):
    """A rectangle of A: some contexts, of m vectors each, against a group of askers, of n queries each.

    An asker is an image or caption whose n regions or words ask; a context is one that is asked. The rows are the m
    vectors of the first context, then those of the second, and so on. The columns are query 1 of every asker, then
    query 2 of every asker, up to n. `group`: of contexts of equal m, which these are in; `part`: where in it.
    """

    group: int
    part: slice
    contexts: slice
    rows: slice
    m: int
    askers: slice
    columns: slice
    n: int

    def of(self, A: Tensor) -> Tensor:
        """View A, (context vectors, queries), as (contexts, m, n, askers)."""
        return A[self.rows, self.columns].unflatten(0, (-1, self.m)).unflatten(2, (self.n, -1))

    def of_queries(self, values: Tensor) -> Tensor:
        """View what is there for every context and query, as (contexts, 1, n, askers)."""
        return values[self.contexts, self.columns].unflatten(1, (1, self.n, -1))

    def of_askers(self, values: Tensor) -> Tensor:
        """View what is there for every context vector and asker, as (contexts, m, 1, askers)."""
        return values[self.rows, self.askers].unflatten(0, (-1, self.m)).unsqueeze(2)


def _blocks(asked: list[tuple[int, int]], askers: list[tuple[int, int]], size: int) -> Iterator[Block]:
    """Cut A into blocks of about `size` numbers; asked, askers: (items, vectors of each) of every group."""
    row = context = 0
    for group, (count, m) in enumerate(asked):
        column = asker = 0
        for width, n in askers:
            columns, of_group = slice(column, column + width * n), slice(asker, asker + width)
            step = max(1, size // (m * width * n))
            for first in range(0, count, step):
                last = min(count, first + step)
                contexts, rows = slice(context + first, context + last), slice(row + first * m, row + last * m)
                yield Block(group, slice(first, last), contexts, rows, m, of_group, columns, n)
            column, asker = column + width * n, asker + width
        row, context = row + count * m, context + count


class Relevance(torch.autograd.Function):
    """Relevance r of every context to every query, (contexts, queries).

    The letters are those at the top of this file. Besides, c is a after the LeakyReLU, |c| its norm over an asker's
    queries, and e = c / (|c| + EPSILON), so that z = lambda e and x = exp(z). grad_z is the gradient with respect to z.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, context: Tensor, options: tuple) -> Tensor:
        """Map queries (queries, dim) and context vectors (context vectors, dim) to r."""
        asked, blocks, lambda_softmax, clipped = options
        A = context @ queries.T
        grams = [part @ part.mT for part in _items(context, asked)]
        dtype = torch.promote_types(queries.dtype, torch.float32)  # below it, what follows would lose 1e-8 and more
        grams = [gram.to(dtype) for gram in grams]
        query_square = torch.linalg.vector_norm(queries, dim=-1, dtype=dtype).square_()
        inner, square = query_square.new_empty(2, blocks[-1].contexts.stop, len(queries))
        norm = query_square.new_empty(len(context), blocks[-1].askers.stop)
        with torch.autocast(A.device.type, enabled=False):
            for block in blocks:
                a = block.of(A).to(dtype).contiguous()  # copied unless it is whole rows, which are quick to pass over
                c = F.leaky_relu(a, SLOPE) if clipped else a
                norms = block.of_askers(norm)
                torch.sum(c * c, dim=2, keepdim=True, out=norms).sqrt_().add_(EPSILON)
                x = (c * (lambda_softmax / norms)).exp_()
                y = torch.bmm(grams[block.group][block.part], x.flatten(2)).view_as(x)
                torch.sum(y.mul_(x), dim=1, keepdim=True, out=block.of_queries(square))
                torch.sum(x.mul_(a), dim=1, keepdim=True, out=block.of_queries(inner))
        ctx.save_for_backward(queries, context, query_square, A, norm, inner, square, *grams)
        ctx.options = options
        kind = A.device.type
        ctx.products = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        return inner * _scale(square, query_square)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Map the gradient of r to those of the inputs; what `forward` made of A is made again."""
        if torch.is_grad_enabled():  # what once_differentiable says only where the gradient itself has one
            raise RuntimeError("the fused attention can be differentiated once; take implementation='plain' for more")
        queries, context, query_square, A, norm, inner, square, *grams = ctx.saved_tensors
        asked, blocks, lambda_softmax, clipped = ctx.options
        scale = _scale(square, query_square)
        grad_inner = grad * scale
        # With scale = (|q|^2 square)^(-1/2), r = inner scale and dr = scale (dinner + fall / 2 d(|q|^2 square)), where
        # fall = -inner scale^2, or 0 where the scale is held at 1 / EPSILON.
        fall = (-inner * scale.square()).masked_fill_(square * query_square <= EPSILON**2, 0)
        grad_query_square = 0.5 * (grad_inner * fall * square).sum(dim=0)
        ratio = fall.mul_(query_square)  # -inner / square
        grad_A, grad_grams = torch.empty_like(A), [torch.zeros_like(gram) for gram in grams]
        with torch.autocast(A.device.type, enabled=False):
            for block in blocks:
                a = block.of(A).to(norm.dtype).contiguous()
                norms, G = block.of_askers(norm), grams[block.group][block.part]
                ratios = block.of_queries(ratio)
                e = F.leaky_relu(a, SLOPE).div_(norms) if clipped else a / norms
                x = (lambda_softmax * e).exp_()
                y = torch.bmm(G, x.flatten(2)).view_as(x)
                # dinner/dx_l = a_l, dsquare/dx_l = 2 y_l and dx/dz = x
                direct = x * block.of_queries(grad_inner)
                grad_z = torch.addcmul(a, y, ratios, out=y).mul_(direct)
                # dsquare/dG = x x^T. G = C C^T hands grad_G and its transpose on to C; their sum is what is kept.
                weighted = direct * ratios
                grad_grams[block.group][block.part].baddbmm_(weighted.flatten(2), x.flatten(2).mT)
                # With norm = |c| + EPSILON, de = (dc - e <e, dc> norm / |c|) / norm: a step along e only changes the
                # norm. At c = 0 the second term is 0.
                along = torch.mul(grad_z, e, out=weighted).sum(dim=2, keepdim=True)
                along.mul_(norms / (norms - EPSILON).clamp_(min=EPSILON**2))
                grad_c = grad_z.addcmul_(e, along, value=-1).mul_(lambda_softmax / norms)
                if clipped:
                    grad_c = torch.ops.aten.leaky_relu_backward(grad_c, e, SLOPE, True)
                torch.add(grad_c, direct, out=block.of(grad_A))
        with ctx.products:  # the backward pass of an autocast is usually outside it, and the types may be mixed
            grad_queries = (grad_A.T @ context).to(queries.dtype)
            grad_context = (grad_A @ queries).to(context.dtype)
        grad_queries.addcmul_(queries, grad_query_square[:, None], value=2)
        parts, grad_parts = _items(context, asked), _items(grad_context, asked)
        for part, grad_part, grad_gram in zip(parts, grad_parts, grad_grams, strict=True):
            grad_part.baddbmm_(grad_gram.to(part.dtype), part)
        return grad_queries, grad_context, None


def _items(vectors: Tensor, groups: list[tuple[int, int]]) -> list[Tensor]:
    """View vectors, (all, dim), group by group as (items, m, dim)."""
    parts = vectors.split([count * m for count, m in groups])
    return [part.unflatten(0, group) for part, group in zip(parts, groups, strict=True)]


def _scale(square: Tensor, query_square: Tensor) -> Tensor:
    """Return 1 / sqrt(|q|^2 square), at most 1 / EPSILON."""
    return (square * query_square).clamp_(min=EPSILON**2).rsqrt_()
