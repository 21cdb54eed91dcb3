"""A loss from embeddings, one block of rows after the other: the scores of all pairs are never held.

A loss is made of its anchors' positives and of what their pairs come to (`ScoreMatrixLoss.pairs`, `gathers`). Both are
gathered from products of a few rows with all columns, in memory that is used again. The gradient of hardest negatives
goes to the chosen pairs, without a second product; that of sums is made block by block from the products again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from uwml_lib.losses.base import Ids, ScoreMatrixLoss, check_choice, log_sum_exp, widened
from uwml_lib.losses.negatives import Negatives

ROWS = 256
"""Rows of a block: enough for a product at full speed."""
GROUP = 16
"""Divides ROWS; see `_max`."""


def from_embeddings(
    loss: ScoreMatrixLoss,
    images: Tensor,
    captions: Tensor,
    image_ids: Ids,
    caption_ids: Ids,
    negatives: Tensor | None,
    similarity: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the scores of the positives (N,) and of the hardest negatives (2, N), as
    `ScoreMatrixLoss.from_embeddings` tells.
    """
    check_choice("similarity", similarity, ("cosine", "dot"))
    _check_embeddings(images, captions)
    if loss.negatives != "hardest" and type(loss).pairs is ScoreMatrixLoss.pairs:
        raise ValueError(f"{type(loss).__name__}: found no `pairs`, expected them for a loss of all negatives")
    loss.check_numbers(images, "images")
    loss.check_numbers(captions, "captions")
    if similarity == "cosine":
        images, captions = (torch.nn.functional.normalize(each, dim=1) for each in (images, captions))
    who = Negatives(len(images), len(captions), images.device, image_ids, caption_ids, negatives)
    p, gathered, hardest = Gather.apply(images, captions, loss, who)
    total = _of_hardest(loss, p, gathered) if _how(loss) == "hardest" else loss.anchors(p, gathered)
    value = (total / len(images) if loss.reduction == "mean" else total).to(images.dtype)
    loss.check_numbers(value, "the loss")
    return value, p.detach(), hardest


def _check_embeddings(images: Tensor, captions: Tensor) -> None:
    for name, each in (("images", images), ("captions", captions)):
        if not isinstance(each, Tensor) or not each.is_floating_point() or each.ndim != 2:
            found = f"{each.dtype} {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
            raise ValueError(f"{name}: found {found}, expected a tensor of floats, a row of embedding each")
    like = (images.dtype, images.device, images.shape[1])
    if (captions.dtype, captions.device, captions.shape[1]) != like or not 0 < len(images) <= len(captions):
        found = f"{captions.dtype} {tuple(captions.shape)} on {captions.device}"
        expected = f"{images.dtype} (M, {images.shape[1]}) on {images.device} with M >= N = {len(images)} >= 1"
        raise ValueError(f"captions: found {found}, expected {expected}, as the images")


def _how(loss: ScoreMatrixLoss) -> str | None:
    return loss.gathers or loss.negatives


def _pairs(loss: ScoreMatrixLoss, scores: Tensor, p: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return (scores, mask) if loss.negatives == "hardest" else loss.pairs(scores, p, mask)


def _of_hardest(loss: ScoreMatrixLoss, p: Tensor, n: Tensor) -> Tensor:
    """Sum over anchors of what the loss makes of (1, 2) scores each: a positive p (N,) and a negative n (2, N)."""
    there = n > -torch.inf
    scores = torch.stack((p.expand_as(n), n.masked_fill(~there, 0)), dim=-1).view(-1, 1, 2)
    mask = torch.stack((torch.zeros_like(there), there), dim=-1).view(-1, 1, 2)
    return torch.vmap(loss.direction)(scores, mask).sum()


class Gather(torch.autograd.Function):
    """Positives (N,) and what the pairs of images and of captions come to, (2, N), of embeddings (N, d) and (M, d).

    Third, without gradient: the hardest negatives (2, N), as statistics take them. All of them at least float32.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, captions: Tensor, loss: ScoreMatrixLoss, who: Negatives
    ) -> tuple[Tensor, ...]:
        n, how = len(images), _how(loss)
        p = widened(images.new_empty(0)).new_zeros(n)
        lowest = {"hardest": -torch.inf, "log_sum_exp": torch.finfo(p.dtype).min}.get(how or "", 0.0)
        gathered, hardest = p.new_full((2, n), lowest), p.new_full((2, n), -torch.inf)
        counts, places = (torch.zeros(2, n, dtype=torch.int64, device=p.device) for _ in range(2))
        tied = torch.zeros(2, n, dtype=torch.bool, device=p.device)
        # What looks at the positives of captions can do so once all are known, which takes the products once more.
        sweeps = ((0,), (1,)) if loss.against_positive and loss.negatives != "hardest" else ((0, 1),)
        for directions in sweeps:
            for rows, scores, mask in _blocks(images, captions, who):
                p[rows] = scores[:, rows].diagonal()
                for side in directions:
                    at, first, S, allowed = _from_side(side, rows, scores, mask, len(p))
                    pairs, counted = _pairs(loss, S, p[at, None], allowed)
                    if how == "hardest":
                        _keep_largest(pairs, counted, first, gathered[side, at], places[side, at], tied[side, at])
                    elif how == "log_sum_exp":
                        gathered[side, at] = gathered[side, at].logaddexp(log_sum_exp(pairs, counted))
                    else:
                        gathered[side, at] += pairs.masked_fill(~counted, 0).sum(dim=1, dtype=p.dtype)
                        counts[side, at] += counted.sum(dim=1)
                    if loss.negatives != "hardest":
                        found = S.masked_fill(~allowed, -torch.inf).amax(dim=1)
                        hardest[side, at] = hardest[side, at].maximum(found)
        if how == "average":
            gathered /= counts.clamp(min=1)
        if loss.negatives == "hardest":
            hardest = gathered.clone()
        ctx.loss, ctx.who = loss, who
        ctx.save_for_backward(images, captions, p, gathered, counts, places, tied)
        ctx.mark_non_differentiable(hardest)
        return p, gathered, hardest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_p: Tensor, of_gathered: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        images, captions, p, gathered, counts, places, tied = ctx.saved_tensors
        to = tuple(p.new_zeros(each.shape) for each in (images, captions))
        if _how(ctx.loss) == "hardest":
            _to_chosen(ctx.loss, ctx.who, (images, captions), to, p, gathered, of_gathered, places, tied)
        else:
            if _how(ctx.loss) == "average":
                of_gathered = of_gathered / counts.clamp(min=1)
            of_p = of_p + _to_all(ctx.loss, ctx.who, (images, captions), to, p, gathered, of_gathered)
        itself = torch.arange(len(p), device=p.device)
        _to_places((images, captions), to, of_p, itself, itself)
        wanted = zip(to, (images, captions), ctx.needs_input_grad, strict=False)
        return (*(gradient.to(each.dtype) if needed else None for gradient, each, needed in wanted), None, None)


Both = tuple[Tensor, Tensor]
"""Something of the images and the same of the captions."""


def _blocks(images: Tensor, captions: Tensor, who: Negatives) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows, their scores (rows, M), in memory that the next ones overwrite, and who may be their negatives."""
    memory = images.new_empty(min(ROWS, len(images)), len(captions))
    for start in range(0, len(images), ROWS):
        rows = slice(start, min(start + ROWS, len(images)))
        scores = torch.mm(images[rows], captions.T, out=memory[: rows.stop - start])
        yield rows, scores, who.mask(rows)


def _from_side(side: int, rows: slice, scores: Tensor, mask: Tensor, n: int) -> tuple[slice, int, Tensor, Tensor]:
    """A block as the anchors of one side see it, images (0) or captions (1): which they are, the number of their first
    partner, scores and mask, a row an anchor.
    """
    if side == 0:
        return rows, 0, scores, mask
    return slice(n), rows.start, scores[:, :n].T, mask[:, :n].T


def _keep_largest(scores: Tensor, counted: Tensor, first: int, best: Tensor, places: Tensor, tied: Tensor) -> None:
    """Let anchors have the largest of these scores (n, m), and its place, if it is larger than what they have.

    Whether others equal it is looked for on a CPU alone: elsewhere the host would have to wait for the answer.
    """
    scores = scores.masked_fill(~counted, -torch.inf)
    value, place = _max(scores) if scores.stride(1) > 1 else scores.max(dim=1)
    larger = value > best
    if value.device.type == "cpu":
        again = scores.scatter_(1, place[:, None], -torch.inf).amax(dim=1) == value
        tied.copy_(torch.where(larger, again, tied | (value == best)) & (value.maximum(best) > -torch.inf))
    places.copy_(torch.where(larger, place + first, places))
    best.copy_(torch.where(larger, value, best))


def _max(scores: Tensor) -> tuple[Tensor, Tensor]:
    """`scores.max(dim=1)`, several times as fast on a CPU where the numbers of a row lie far apart."""
    if rest := -scores.shape[1] % GROUP:
        scores = torch.nn.functional.pad(scores, (0, rest), value=-torch.inf)
    groups = scores.unflatten(1, (-1, GROUP))
    group = groups.amax(dim=2).argmax(dim=1)
    value, within = groups.take_along_dim(group[:, None, None], dim=1).squeeze(1).max(dim=1)
    return value, group * GROUP + within


def _to_places(embeddings: Both, to: Both, weights: Tensor, image_places: Tensor, caption_places: Tensor) -> None:
    """Add the gradient of the scores of some pairs, (K,) weights each, to that of images and captions."""
    (images, captions), (to_images, to_captions) = embeddings, to
    for weight, i, j in zip(*(each.split(ROWS) for each in (weights, image_places, caption_places)), strict=True):
        to_images.index_add_(0, i, weight[:, None] * captions[j])
        to_captions.index_add_(0, j, weight[:, None] * images[i])


def _to_chosen(
    loss: ScoreMatrixLoss, who: Negatives, embeddings: Both, to: Both, p: Tensor, hardest: Tensor, weights: Tensor,
    places: Tensor, tied: Tensor,
) -> None:  # fmt: skip
    """Add the gradient (2, N) of the hardest negatives to that of images and captions."""
    anchors = torch.arange(len(p), device=p.device)
    alone = weights.masked_fill(tied, 0)
    _to_places(embeddings, to, alone[0], anchors, places[0])
    _to_places(embeddings, to, alone[1], places[1], anchors)
    if p.device.type != "cpu":
        return
    for side in (0, 1):
        own, others, to_own, to_others = embeddings[side], embeddings[1 - side], to[side], to[1 - side]
        for some in tied[side].nonzero().squeeze(1).split(ROWS):
            mask = who.mask(some) if side == 0 else who.mask(None, some).T
            pairs, counted = _pairs(loss, own[some] @ others.T, p[some, None], mask)
            share = ((pairs == hardest[side, some, None]) & counted).to(p.dtype)
            share.scatter_(1, places[side, some, None], 1)  # whatever rounding does to the product made anew
            share *= (weights[side, some] / share.sum(dim=1))[:, None]
            share = share.to(own.dtype)
            to_own.index_add_(0, some, (share @ others).to(p.dtype))
            to_others += share.T @ own[some]


def _to_all(
    loss: ScoreMatrixLoss, who: Negatives, embeddings: Both, to: Both, p: Tensor, gathered: Tensor, weights: Tensor
) -> Tensor:
    """Add the gradient (2, N) of sums over pairs to that of images and captions; return that of the positives."""
    (images, captions), (to_images, to_captions) = embeddings, to
    of_p = torch.zeros_like(p)
    for rows, scores, mask in _blocks(images, captions, who):
        of_scores = torch.zeros_like(scores)
        for side in (0, 1):
            at, _, S, allowed = _from_side(side, rows, scores, mask, len(p))
            with torch.enable_grad():
                S, q = S.detach().requires_grad_(), p[at].detach().requires_grad_()
                pairs, counted = loss.pairs(S, q[:, None], allowed)
            each = weights[side, at, None].expand_as(pairs)
            if loss.gathers == "log_sum_exp":
                each = (pairs.detach() - gathered[side, at, None]).exp() * each
            of_S, of_q = torch.autograd.grad(pairs, (S, q), each.masked_fill(~counted, 0), allow_unused=True)
            seen = of_scores[:, : len(p)].T if side else of_scores
            seen += of_S
            of_p[at] += 0 if of_q is None else of_q
        to_images[rows] = of_scores @ captions
        to_captions += of_scores.T @ images[rows]
    return of_p
