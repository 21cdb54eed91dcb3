"""A loss from embeddings, one block of rows after the other: the scores of all pairs are never held.

A loss is made of its anchors' positives and of what their pairs come to (`ScoreMatrixLoss.pairs`, `gathers`). Both are
gathered from products of a few rows with all columns, in memory that is used again. The gradient of hardest negatives
goes to the chosen pairs, without a second product; that of sums is made block by block from the products again. Where
several processes work together, the captions and what is gathered for them go round; see `ring`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from uwml_lib.losses.base import Ids, ScoreMatrixLoss, check_choice, widened
from uwml_lib.losses.embeddings import check_embeddings, check_shares, check_sums
from uwml_lib.losses.negatives import Negatives
from uwml_lib.losses.ring import Ring

ROWS = 512
"""Rows of a block: enough for a product at full speed. Sums, which pass over a block more often, take half as many."""
Both = Sequence[Tensor]
"""Something of the images and the same of the captions."""


class Asked(NamedTuple):
    """What is asked of two sides of embeddings; see `ScoreMatrixLoss.from_embeddings`."""

    loss: ScoreMatrixLoss
    who: Negatives
    similarity: str
    statistics: bool
    ring: Ring


def from_embeddings(
    loss: ScoreMatrixLoss,
    images: Tensor,
    captions: Tensor,
    image_ids: Ids,
    caption_ids: Ids,
    negatives: Tensor | None,
    similarity: str,
    statistics: bool,
    group: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and scores of positives (N,) and hardest negatives (2, N) for `ScoreMatrixLoss.describe`."""
    check_choice("similarity", similarity, ("cosine", "dot"))
    check_embeddings(images, captions)
    ring = Ring(group)
    check_shares(ring, images, captions, *(given is not None for given in (image_ids, caption_ids, negatives)))
    if loss.negatives != "hardest" and type(loss).pairs is ScoreMatrixLoss.pairs:
        raise ValueError(f"{type(loss).__name__}: found no `pairs`, expected them for a loss of all negatives")
    loss.check_numbers(images, "images")
    loss.check_numbers(captions, "captions")
    who = Negatives(len(images), len(captions), images.device, image_ids, caption_ids, negatives, ring)
    gather = Largest if loss.negatives == "hardest" or loss.gathers == "hardest" else Sums
    if gather is Sums:
        check_sums(loss)
    p, gathered, hardest = gather.apply(images, captions, Asked(loss, who, similarity, statistics, ring))
    loss.check_numbers(torch.stack((p, *gathered.clamp(min=torch.finfo(p.dtype).min))))  # -inf: there is no negative
    total = ring.total(_of_hardest(loss, p, gathered) if gather is Largest else loss.anchors(p, gathered))
    value = (total / (ring.size * len(images)) if loss.reduction == "mean" else total).to(images.dtype)
    p = p.detach()
    return value, *((ring.gather(p), ring.gather(hardest.T).T) if statistics else (p, hardest))


def _normalised(embeddings: Tensor, similarity: str) -> tuple[Tensor, Tensor | None]:
    """Return embeddings as `torch.nn.functional.normalize` makes them, and the inverse (N, 1) of what they had."""
    if similarity == "dot":
        return embeddings, None
    norms = torch.linalg.vector_norm(widened(embeddings), dim=1, keepdim=True)
    inverse = norms.clamp(min=1e-12).reciprocal()
    return (embeddings * inverse).to(embeddings.dtype), inverse


def _begin(ctx: Any, images: Tensor, captions: Tensor, asked: Asked) -> tuple[Tensor, Tensor, Tensor]:
    """Note what the backward pass is to know; return the embeddings normalised, and zeros for positives' scores."""
    (images, of_images), (captions, of_captions) = (_normalised(each, asked.similarity) for each in (images, captions))
    ctx.asked, ctx.inverse = asked, (of_images, of_captions)
    return images, captions, widened(images.new_empty(0)).new_zeros(len(images))


def _before_normalising(to: Tensor, embeddings: Tensor, inverse: Tensor | None) -> Tensor:
    """Turn the gradient of what `_normalised` returned into that of what it was given, in place."""
    if inverse is not None:
        for of, unit, scale in zip(*(each.split(ROWS) for each in (to, embeddings, inverse)), strict=True):
            of.sub_((of * unit).sum(dim=1, keepdim=True) * unit).mul_(scale)
    return to.to(embeddings.dtype)


def _of_hardest(loss: ScoreMatrixLoss, p: Tensor, n: Tensor) -> Tensor:
    """Sum over anchors of what the loss makes of (1, 2) scores each: a positive p (N,) and a negative n (2, N)."""
    there = n != -torch.inf  # NaN is there, and reaches the loss
    scores = torch.stack((p.expand_as(n), n.masked_fill(~there, 0)), dim=-1).view(-1, 1, 2)
    mask = torch.stack((torch.zeros_like(there), there), dim=-1).view(-1, 1, 2)
    return torch.vmap(loss.direction)(scores, mask).sum()


def _rows(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _blocks(images: Tensor, captions: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield `size` rows and their scores (rows, M), in memory that the next ones overwrite."""
    memory = images.new_empty(min(size, len(images)), len(captions))
    for rows in _rows(len(images), size):
        yield rows, torch.mm(images[rows], captions.T, out=memory[: rows.stop - rows.start])


def _passes(
    images: Tensor, captions: Tensor, p: Tensor, own: bool, against_positive: bool, size: int
) -> Iterator[tuple[tuple[int, ...], slice, Tensor]]:
    """Yield which sides are to look at rows and their scores; of `own` captions p is filled in.

    What looks at the positives of captions can do so once all are known, which takes the own products once more.
    """
    for sides in ((0,), (1,)) if own and against_positive else ((0, 1),):
        for rows, scores in _blocks(images, captions, size):
            if own:
                p[rows] = scores[:, rows].diagonal()
            yield sides, rows, scores


def _from_side(side: int, n: int, block: Tensor) -> Tensor:
    """A block (rows, M) as the anchors of one side see it, images (0) or captions (1): a row an anchor."""
    return block if side == 0 else block[:, :n].T


class Largest(torch.autograd.Function):
    """Positives (N,) and hardest negatives of images and of captions (2, N), of embeddings (N, d) and (M, d); third,
    without gradient, the hardest of all negatives, for statistics. All of them are float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, captions: Tensor, asked: Asked) -> tuple[Tensor, Tensor, Tensor]:
        images, captions, p = _begin(ctx, images, captions, asked)
        loss, who, _, _, ring = asked
        n, whole = len(images), loss.negatives == "hardest"
        best, of_all = p.new_full((2, 2, n), -torch.inf)
        places = torch.zeros(2, n, dtype=torch.int64, device=p.device)
        tied = torch.zeros(2, n, dtype=torch.bool, device=p.device)
        travelling = (p, best[1], of_all[1], places[1], tied[1])
        for owner, (their_captions, *theirs) in ring.rounds([captions], travelling):
            kept = [(p, best[0], of_all[0], places[0], tied[0]), theirs]
            for sides, rows, scores in _passes(images, their_captions, p, owner == ring.rank, not whole, ROWS):
                columns = slice(owner * who.m, (owner + 1) * who.m)
                if whole:
                    who.hide_others(scores, rows, columns)
                for side in sides:
                    at, S = (rows, slice(n))[side], _from_side(side, n, scores)
                    of_p, *found = (each[at] for each in kept[side])
                    if not whole:
                        allowed = _from_side(side, n, who.mask(rows, columns))
                        found[1].copy_(found[1].maximum(S.where(allowed, -torch.inf).amax(dim=1)))
                        S = torch.where(loss.pairs(S, of_p[:, None], allowed)[1], S, -torch.inf)
                    first = ring.rank * n + rows.start if side else columns.start
                    _keep_largest(S, first, found[0], *found[2:])
        ctx.save_for_backward(images, captions, p, best, places, tied)
        of_all = best.clone() if whole else of_all
        ctx.mark_non_differentiable(of_all)
        return p, best, of_all

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_p: Tensor, of_best: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        images, captions, p, best, places, tied = ctx.saved_tensors
        _, who, _, _, ring = ctx.asked
        to_images, to_captions = to = [p.new_zeros(each.shape) for each in (images, captions)]
        shared = tied if ring.size == 1 else torch.zeros_like(tied)
        weights = of_best.masked_fill(shared, 0)
        for rows in _rows(len(p), ROWS):
            to_images[rows] += of_p[rows, None] * captions[rows]
            to_captions[rows] += of_p[rows, None] * images[rows]
        fixed = [captions, weights[1].contiguous(), places[1]]
        for owner, (theirs, of_theirs, at_theirs, to_theirs) in ring.rounds(fixed, [to_captions]):
            _to_chosen((images, theirs), (to_images, to_theirs), weights[0], places[0] - owner * who.m)
            _to_chosen((theirs, images), (to_theirs, to_images), of_theirs, at_theirs - ring.rank * len(images))
        if p.device.type == "cpu":
            for side in (0, 1):
                anchors = shared[side].nonzero().squeeze(1)
                for some in anchors.split(ROWS) if len(anchors) else ():
                    _to_tied(side, some, ctx, (images, captions), to, of_best[side, some])
        return *map(_before_normalising, to, (images, captions), ctx.inverse), None


def _keep_largest(scores: Tensor, first: int, best: Tensor, places: Tensor, tied: Tensor) -> None:
    """Let anchors have the largest of these scores (n, m), and its place, if it is larger than what they have.

    Whether others equal it is looked for on a CPU alone: elsewhere nobody asks, see `Largest.backward`.
    """
    transposed = scores.stride(0) < scores.stride(1)
    value, place, again = _largest(scores.T, 0) if transposed else _largest(scores, 1)
    larger = ((value > best) | value.isnan()) & ~best.isnan()  # what is NaN stays so
    if value.device.type == "cpu":
        tied.copy_(torch.where(larger, again, tied | (value == best)) & (value.maximum(best) > -torch.inf))
    places.copy_(torch.where(larger, place + first, places))
    best.copy_(torch.where(larger, value, best))


def _largest(scores: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest scores along a dimension, their places, and whether another one equals them.

    `max` with places is slow on a CPU, without them fast: so first the largest of every group, each as large as there
    are groups, then its place within.
    """
    size = 1 << (scores.shape[dim].bit_length() // 2)
    if rest := -scores.shape[dim] % size:
        scores = torch.nn.functional.pad(scores, (0, rest) if dim else (0, 0, 0, rest), value=-torch.inf)
    by_group = scores.unflatten(dim, (size, -1))  # every size-th score is of one group: so memory is read in order
    of_groups = by_group.amax(dim)
    group = of_groups.argmax(dim, keepdim=True)
    chosen = group.unsqueeze(dim).expand(*by_group.shape[: dim + 1], 1, *by_group.shape[dim + 2 :])
    members = by_group.gather(dim + 1, chosen).squeeze(dim + 1)
    value, within = members.max(dim, keepdim=True)
    others = [
        rest.scatter_(dim, place, -torch.inf).amax(dim) for rest, place in ((of_groups, group), (members, within))
    ]
    place = within * of_groups.shape[dim] + group
    return value.squeeze(dim), place.squeeze(dim), torch.maximum(*others) == value.squeeze(dim)


def _to_chosen(embeddings: Both, to: Both, weights: Tensor, places: Tensor) -> None:
    """Add the gradient of the scores of anchors, (n, d), and their chosen negatives, of (m, d), to that of both.

    weights (n,): dL/dS. places (n,): of the negatives; those that lie elsewhere are not here.
    """
    (anchors, others), (to_anchors, to_others) = embeddings, to
    for rows in _rows(len(weights), ROWS):
        here = (places[rows] >= 0) & (places[rows] < len(others))
        at, weight = places[rows].clamp(0, len(others) - 1), weights[rows].where(here, 0)[:, None]
        to_anchors[rows] += weight * others[at]
        to_others.index_add_(0, at, weight * anchors[rows])


def _to_tied(side: int, some: Tensor, ctx: Any, embeddings: Both, to: Both, weights: Tensor) -> None:
    """Add the gradient of the hardest negatives of some anchors, which share it equally as they are tied."""
    (_, _, p, best, places, _), (loss, who, *_) = ctx.saved_tensors, ctx.asked
    own, others = embeddings[side], embeddings[1 - side][: None if side == 0 else len(p)]
    mask = who.mask(some) if side == 0 else who.mask(None, some).T
    scores = own[some] @ others.T
    if loss.negatives != "hardest":
        mask = loss.pairs(scores, p[some, None], mask)[1]
    share = ((scores == best[side, some, None]) & mask).to(p.dtype)
    share.scatter_(1, places[side, some, None], 1)  # whatever rounding does to a product made anew
    share = (share * (weights / share.sum(dim=1))[:, None]).to(own.dtype)
    to[side].index_add_(0, some, (share @ others).to(p.dtype))
    to[1 - side][: len(others)] += share.T @ own[some]


class Sums(torch.autograd.Function):
    """As `Largest`, for losses that sum over their pairs: second is what these come to."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, captions: Tensor, asked: Asked) -> tuple[Tensor, Tensor, Tensor]:
        images, captions, p = _begin(ctx, images, captions, asked)
        loss, who, _, statistics, ring = asked
        n, how = len(images), loss.gathers or loss.negatives
        gathered = p.new_full((2, n), torch.finfo(p.dtype).min if how == "log_sum_exp" else 0)
        counts, hardest = torch.zeros_like(gathered), torch.full_like(gathered, -torch.inf)
        travelling = (p, gathered[1], counts[1], hardest[1])
        for owner, (their_captions, *theirs) in ring.rounds([captions], travelling):
            kept = [(p, gathered[0], counts[0], hardest[0]), theirs]
            passes = _passes(images, their_captions, p, owner == ring.rank, loss.against_positive, ROWS // 2)
            for sides, rows, scores in passes:
                mask = who.mask(rows, slice(owner * who.m, (owner + 1) * who.m))
                for side in sides:
                    at, S, allowed = (rows, slice(n))[side], _from_side(side, n, scores), _from_side(side, n, mask)
                    of_p, sums, count, largest = (each[at] for each in kept[side])
                    pairs, counted = loss.pairs(S, of_p[:, None], allowed)
                    if how == "log_sum_exp":
                        log_sum = torch.where(counted, pairs, torch.finfo(pairs.dtype).min).logsumexp(dim=1)
                        sums.copy_(sums.logaddexp(log_sum))
                    else:
                        sums += torch.where(counted, pairs, 0).sum(dim=1, dtype=p.dtype)
                    if how == "average":
                        count += counted.sum(dim=1)
                    if statistics:
                        largest.copy_(largest.maximum(S.where(allowed, -torch.inf).amax(dim=1)))
        counts = counts.clamp(min=1) if how == "average" else torch.ones_like(counts)
        gathered /= counts
        ctx.save_for_backward(images, captions, p, gathered, counts)
        ctx.mark_non_differentiable(hardest)
        return p, gathered, hardest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_p: Tensor, of_gathered: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        images, captions, p, gathered, counts = ctx.saved_tensors
        loss, who, _, _, ring = ctx.asked
        to_images, to_captions = to = [p.new_zeros(each.shape) for each in (images, captions)]
        n, m, weights = len(p), len(captions), of_gathered / counts
        dtype = torch.float32 if images.dtype == torch.float16 else images.dtype  # float16 has no numbers so small
        wide_images = images.to(dtype)
        of_p, through_captions = of_p.clone(), torch.zeros_like(p)
        fixed = [captions, p, weights[1].contiguous(), gathered[1].contiguous()]
        for owner, (theirs, *of_theirs, to_theirs, through) in ring.rounds(fixed, [to_captions, through_captions]):
            known, wide_theirs = [(p, weights[0], gathered[0], of_p), (*of_theirs, through)], theirs.to(dtype)
            for rows, scores in _blocks(images, theirs, ROWS // 2):
                of_scores = torch.zeros_like(scores, dtype=p.dtype)
                mask = who.mask(rows, slice(owner * m, (owner + 1) * m))
                for side in (0, 1):
                    at, S, allowed = (rows, slice(n))[side], _from_side(side, n, scores), _from_side(side, n, mask)
                    of_S, of_q = _of_pairs(loss, S, allowed, *(each[at] for each in known[side][:3]))
                    _from_side(side, n, of_scores).add_(of_S)
                    if of_q is not None:
                        known[side][3][at] += of_q
                of_scores = of_scores.to(dtype)
                to_images[rows] += (of_scores @ wide_theirs).to(p.dtype)
                to_theirs += of_scores.T @ wide_images[rows]
        of_p += through_captions
        to_images += of_p[:, None] * captions[:n]
        to_captions[:n] += of_p[:, None] * images
        return *map(_before_normalising, to, (images, captions), ctx.inverse), None


def _of_pairs(
    loss: ScoreMatrixLoss, scores: Tensor, allowed: Tensor, p: Tensor, weights: Tensor, gathered: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of scores (n, m), and through the pairs that of their anchors' positives p (n,), if any."""
    with torch.enable_grad():
        S, q = widened(scores.detach()).requires_grad_(), p.detach().requires_grad_()
        pairs, counted = loss.pairs(S, q[:, None], allowed)
    each = weights[:, None]
    if loss.gathers == "log_sum_exp":
        each = (pairs.detach() - gathered[:, None]).exp_().mul_(each)
    of_S, of_q = torch.autograd.grad(pairs, (S, q), torch.where(counted, each, 0).to(pairs.dtype), allow_unused=True)
    return of_S, of_q
