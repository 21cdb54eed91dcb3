"""What every loss on a score matrix shares: checks, who counts as a negative, both directions, reduction."""

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from uwml_lib.losses.horner import is_real

Reduction = Literal["mean", "sum"]
Ids = Tensor | Sequence[int] | None


class PairWeights(NamedTuple):
    """Signed weights of the pairs: positive (N,) = -dL/dS_ii, negative (N, N) = dL/dS_ij with a zero diagonal."""

    positive: Tensor
    negative: Tensor


class ScoreMatrixLoss(nn.Module):
    """A loss on an (N, N) score matrix whose diagonal holds the positives: rows images, columns captions.

    A subclass implements `direction(scores, negative_mask)`, the sum of the loss over the N anchors of one direction.
    The loss is that of the matrix plus that of its transpose, divided by N for `reduction="mean"`. A loss whose source
    takes the mean of the two directions, or counts every pair once, returns half from `direction`.
    `class Variant(SomeLoss, option=value)` is `SomeLoss` with another default for that option, in its signature too.

    Parameters
        margin: how far below its positive a negative still informs; None for a loss without a margin, which says
            `needs_margin = False`.
        reduction: "mean" divides by N (not by 2N, not by the number of informative anchors), "sum" does not.
        check_finite: raise on NaN or infinite scores. None: on for eager CPU tensors, off on accelerators, where
            reading the answer would make the host wait for the device, and under compile and vmap.
        negatives: "hardest", or what the loss's `dense_negatives` says; None for a loss without this choice.
    """

    margin: Any  # a float, or None: each loss knows which
    needs_margin = True
    dense_negatives: str | None = None
    """What `negatives` is in the dense form, "all" or "average", for a loss with this choice."""
    of_hardest: Callable[[Tensor, Tensor], Tensor] | None = None
    """Sum over anchors with the positives (N,) and hardest negatives (..., N), for a loss whose `negatives="hardest"`
    sees no others: it is asked once for both directions."""

    def __init_subclass__(cls, **defaults: Any) -> None:
        super().__init_subclass__()
        if defaults:
            cls.__init__ = _with_defaults(cls.__init__, defaults)  # type: ignore[method-assign]  # the same but for them

    def __init__(
        self, margin: float | None, reduction: Reduction, check_finite: bool | None, negatives: str | None = None
    ) -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, ("mean", "sum"))
        if self.needs_margin if margin is None else not (is_real(margin) and margin >= 0):
            raise ValueError(f"margin: found {margin!r}, expected a finite number of at least 0")
        if check_finite is not None and not isinstance(check_finite, bool):
            raise ValueError(f"check_finite: found {check_finite!r}, expected True, False or None")
        if self.dense_negatives:
            check_choice("negatives", negatives, ("hardest", self.dense_negatives))
        self.margin = None if margin is None else float(margin)
        self.check_finite, self.negatives = check_finite, negatives

    def forward(
        self, scores: Tensor, image_ids: Ids = None, *, caption_ids: Ids = None, negatives: Tensor | None = None
    ) -> Tensor:
        """Return the loss as a scalar of the scores' dtype, on their device, always with a graph.

        In half precision the value, and the gradient against its largest entry, are those of float64 to within 2e-3
        (float16) and 1e-2 (bfloat16), twice that for the circle loss.
        scores: (N, N), floating point. image_ids, caption_ids: (N,) whole numbers, a tensor or what makes one; pairs of
        one image, or of one sentence, are never negatives of each other. negatives: (N, N), boolean; only what is True
        may be a negative. All three hold at once, and a positive is never a negative. Raises ValueError for another
        type, shape or dtype and, if checked, for scores that are not finite.
        """
        negative_mask = self.negative_mask(scores, image_ids, caption_ids=caption_ids, negatives=negatives)
        if self.of_hardest and self.negatives == "hardest":
            hardest = hardest_of_both(scores, negative_mask)  # before the diagonal: see `TripletSemihardLoss`
            total = self.of_hardest(scores.diagonal(), hardest)
        else:
            total = self.direction(scores, negative_mask) + self.direction(scores.T, negative_mask.T)
        return (total / len(scores) if self.reduction == "mean" else total).to(scores.dtype)

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        """Sum over the rows of (N, N) `scores`; `negative_mask` (N, N) tells which entries are negatives. There may be
        more columns than rows, all of them without a positive of their own.
        """
        raise NotImplementedError

    def direction_weights(self, scores: Tensor, negative_mask: Tensor) -> PairWeights:
        """Weights of one direction's sum in closed form, if the loss has one; see `direction`."""
        raise NotImplementedError

    @torch.no_grad()
    def weights(self, scores: Tensor, image_ids: Ids = None, **others: Any) -> PairWeights:
        """Return the pair weights in closed form, the same numbers as automatic differentiation gives; see `forward`
        for the arguments.
        """
        negative_mask = self.negative_mask(scores, image_ids, **others)
        rows = self.direction_weights(scores, negative_mask)
        columns = self.direction_weights(scores.T, negative_mask.T)
        scale = 1 / len(scores) if self.reduction == "mean" else 1
        positive = (rows.positive + columns.positive) * scale
        negative = (rows.negative + columns.negative.T) * scale
        return PairWeights(positive.to(scores.dtype), negative.to(scores.dtype))

    def dense(self) -> "ScoreMatrixLoss":
        """Return the loss over all informative negatives, for the first epochs of a training; itself if it is that."""
        if not self.dense_negatives:
            return self
        dense = copy.copy(self)
        dense.negatives = self.dense_negatives
        return dense

    def negative_mask(
        self, scores: Tensor, image_ids: Ids = None, *, caption_ids: Ids = None, negatives: Tensor | None = None
    ) -> Tensor:
        """Check the arguments of `forward`; return the (N, N) boolean mask: may the column be a negative of the row?"""
        if not isinstance(scores, Tensor):
            raise ValueError(f"scores: found {type(scores).__name__}, expected a tensor; torch.as_tensor makes one")
        if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) == 0:
            raise ValueError(f"scores: found shape {tuple(scores.shape)}, expected a square matrix (N, N) with N >= 1")
        if not scores.is_floating_point():
            raise ValueError(f"scores: found dtype {scores.dtype}, expected a floating point type")
        self.check_numbers(scores)
        named = {"image_ids": image_ids, "caption_ids": caption_ids}
        given = [_ids(name, ids, scores) for name, ids in named.items() if ids is not None]
        masks = [ids[:, None] != ids[None, :] for ids in given]
        if not masks:
            masks = [~torch.eye(len(scores), dtype=torch.bool, device=scores.device)]
        if negatives is not None:
            masks.append(_may_be(negatives, scores))
        return functools.reduce(torch.logical_and, masks)

    def check_numbers(self, scores: Tensor) -> None:
        """Raise ValueError for scores of any shape that are not finite, if `check_finite` has it so."""
        check = self.check_finite
        if check is None:
            traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(scores)
            check = scores.device.type == "cpu" and not traced
        if check and not bool(torch.isfinite(scores).all()):
            raise ValueError("scores: found NaN or infinity, expected finite numbers")

    @torch.no_grad()
    def statistics(self, scores: Tensor, image_ids: Ids = None, **others: Any) -> dict[str, Tensor]:
        """Describe a batch without reading it back: scalars on the scores' device, averaged over both directions. See
        `forward` for the arguments.

        informative_share: share of the anchors whose hardest negative comes within the margin of the positive; for a
        loss without a margin, of those whose hardest negative scores above the positive. positive_score,
        hardest_negative_score: means over the anchors, what is no negative and anchors without one left out.
        """
        hardest = hardest_of_both(scores, self.negative_mask(scores, image_ids, **others))
        positives = scores.diagonal()
        return {
            "informative_share": (hardest + (self.margin or 0) > positives).to(scores.dtype).mean(),
            "positive_score": positives.mean(),
            "hardest_negative_score": hardest.masked_fill(hardest == -torch.inf, torch.nan).nanmean(),
        }

    def extra_repr(self) -> str:
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def _ids(name: str, ids: Ids, scores: Tensor) -> Tensor:
    """Ids as a tensor (N,) on the scores' device; raises ValueError."""
    try:
        found = torch.as_tensor(ids, device=scores.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: found {ids!r:.80}, expected whole numbers, one for each pair") from None
    if found.shape != scores.shape[:1]:
        raise ValueError(f"{name}: found shape {tuple(found.shape)}, expected ({len(scores)},), one for each pair")
    if found.is_floating_point() or found.is_complex():
        raise ValueError(f"{name}: found dtype {found.dtype}, expected whole numbers")
    return found


def _may_be(negatives: Tensor, scores: Tensor) -> Tensor:
    """The mask `negatives` on the scores' device; raises ValueError."""
    try:
        found = torch.as_tensor(negatives, device=scores.device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"negatives: found {negatives!r:.80}, expected booleans {tuple(scores.shape)}") from None
    if found.shape != scores.shape or found.dtype != torch.bool:
        what = f"{found.dtype} of shape {tuple(found.shape)}"
        raise ValueError(f"negatives: found {what}, expected booleans {tuple(scores.shape)}, as the scores")
    return found


def _with_defaults(init: Callable[..., None], defaults: dict[str, Any]) -> Callable[..., None]:
    """Return a constructor that gives `init` other defaults, also where `inspect.signature` looks."""
    parameters = dict(inspect.signature(init).parameters)
    for name, value in defaults.items():
        parameters[name] = parameters[name].replace(default=value)
    signature = inspect.Signature(list(parameters.values()), return_annotation=None)

    @functools.wraps(init)
    def constructor(*arguments: Any, **named: Any) -> None:
        init(**{**defaults, **signature.bind(*arguments, **named).arguments})

    constructor.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it; mypy does not know it
    return constructor


def hardest_negatives(scores: Tensor, negative_mask: Tensor) -> Tensor:
    """Return each row's largest negative score, (N,); -inf where a row has no negative. Ties share the gradient."""
    return HardestNegatives.apply(scores, negative_mask, (1,))[0]


def hardest_of_both(scores: Tensor, negative_mask: Tensor) -> Tensor:
    """Return `hardest_negatives` of the rows and of the columns of (N, N) scores, (2, N)."""
    return torch.stack(HardestNegatives.apply(scores, negative_mask, (1, 0)))


class HardestNegatives(torch.autograd.Function):
    """`scores.masked_fill(~negative_mask, -inf).amax(dim)` for each of some `dims`; its gradient in fewer passes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, negative_mask: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, ...]:
        masked = torch.where(negative_mask, scores, -torch.inf)
        return tuple(masked.amax(dim) for dim in dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, ...]], output: tuple[Tensor, ...]) -> None:
        scores, negative_mask, ctx.dims = inputs
        ctx.save_for_backward(scores, negative_mask, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        # Negatives that tie for the hardest share its gradient equally, as those of amax do. Where there is no negative
        # nothing ties, and the gradient is zero: clamp makes it 0 / 1 instead of 0 / 0.
        scores, negative_mask, *hardest = ctx.saved_tensors
        total = None
        for dim, of_dim, value in zip(ctx.dims, grads, hardest, strict=True):
            tied = ((scores == value.unsqueeze(dim)) & negative_mask).to(of_dim.dtype)
            share = (of_dim / tied.sum(dim).clamp(min=1)).unsqueeze(dim)
            total = tied * share if total is None else total.addcmul(tied, share)
        return total, None, None


def shares(scores: Tensor, candidates: Tensor, negatives: str | None) -> Tensor:
    """Return how much each of (N, N) `candidates` counts in its row: for "all" 1, for "average" 1 / their number, for
    "hardest" 1 / the number of those that tie for the largest score and 0 for the rest.
    """
    if negatives == "hardest":
        candidates = (scores == hardest_negatives(scores, candidates)[:, None]) & candidates
    share = candidates.to(scores.dtype)
    return share if negatives == "all" else share / candidates.sum(dim=1, keepdim=True).clamp(min=1)


def log_sum_exp(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the logarithm of the sum of each row's exponentials where `mask` is set, (N,); a row without any has the
    lowest finite number, so that what follows is zero and its gradient too.
    """
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min).logsumexp(dim=1)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), also where x is large: torch's own is cut off there."""
    return -torch.nn.functional.logsigmoid(-x)


def widened(scores: Tensor) -> Tensor:
    """Return half precision scores as float32: a large scale would multiply their rounding errors."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def check_number(name: str, value: float, above: float = -torch.inf) -> float:
    """Return `value`; raise ValueError unless it is finite and above a bound."""
    if not (is_real(value) and above < value):
        bound = f" above {above:g}" if above > -torch.inf else ""
        raise ValueError(f"{name}: found {value!r}, expected a finite number{bound}")
    return value


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Return `value`; raise ValueError unless it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(map(repr, choices))}")
    return value
