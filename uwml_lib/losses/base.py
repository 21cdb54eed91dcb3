"""What every loss on a score matrix shares: checks, both directions, reduction."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from uwml_lib.losses.horner import is_real
from uwml_lib.losses.negatives import Ids, Negatives

Reduction = Literal["mean", "sum"]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of scores."""


class PairWeights(NamedTuple):
    """Signed weights of the pairs: positive (N,) = -dL/dS_ii, negative (N, M) = dL/dS_ij with a zero diagonal."""

    positive: Tensor
    negative: Tensor


class ScoreMatrixLoss(nn.Module):
    """A loss on an (N, M) score matrix, M >= N, whose diagonal holds the positives: rows images, columns captions.

    A subclass implements `direction(scores, negative_mask)`, the sum of the loss over the N anchors of one direction.
    The loss is that of the matrix plus that of the transpose of its first N columns, divided by N for
    `reduction="mean"`: columns beyond N (a queue, another process's captions) are negatives of the images and nothing
    else. A loss whose source takes the mean of the two directions, or counts every pair once, returns half from
    `direction`.
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

    gathers: str | None = None
    """How an anchor's pairs come together: "hardest", "all" (their sum), "average" or "log_sum_exp"; by default what
    `negatives` is."""
    against_positive = True
    """Whether `pairs` looks at the positive."""

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
        scores: (N, M), floating point, M >= N. image_ids (N,), caption_ids (M,): whole numbers, a tensor or what makes
        one; pairs of one image, or of one sentence, are never negatives of each other. Where columns beyond N have
        known images, put these into caption_ids. negatives: (N, M), boolean; only what is True may be a negative. All
        three hold at once, and a positive is never a negative. Raises ValueError for another type, shape or dtype and,
        if checked, for scores that are not finite.
        """
        negative_mask = self.negative_mask(scores, image_ids, caption_ids=caption_ids, negatives=negatives)
        if self.of_hardest and self.negatives == "hardest":
            hardest = hardest_of_both(scores, negative_mask)  # before the diagonal: see `TripletSemihardLoss`
            total = self.of_hardest(scores.diagonal(), hardest)
        else:
            total = self.direction(scores, negative_mask) + self.direction(*_of_captions(scores, negative_mask))
        return (total / len(scores) if self.reduction == "mean" else total).to(scores.dtype)

    def from_embeddings(
        self,
        images: Tensor,
        captions: Tensor,
        image_ids: Ids = None,
        *,
        caption_ids: Ids = None,
        negatives: Tensor | None = None,
        similarity: Literal["cosine", "dot"] = "cosine",
        process_group: Any = None,
        return_statistics: bool = False,
    ) -> Any:
        """Return the loss of the cosines, or dot products, of all pairs without ever holding these.

        images: (N, d), captions: (M, d), M >= N, of one floating point type; other arguments and value are those of
        `forward`. Memory grows with (N + M) d, and so does the gradient's cost for hardest negatives; sums make the
        scores once more in the backward pass, or twice. Products are made in the embeddings' precision, sums in float32
        at least. Tied hardest negatives share the gradient on a CPU; elsewhere the first of them has it, for counting
        them would make the host wait; scores tie if their products are rounded to the same number. return_statistics:
        return the pair of the loss and its `statistics`. There is no second derivative. Raises ValueError as `forward`
        does, for hardest negatives if embeddings or the chosen products are not finite; and for a loss without `pairs`,
        or with parameters that it would learn through them.

        process_group: a group of torch.distributed, such as torch.distributed.group.WORLD, whose P processes each pass
        their own pairs, as many each. Captions travel round it, so that no process holds more scores than alone. All
        return the loss of the P N pairs together; the gradient of each process's embeddings is P times that, which the
        mean over processes that torch's data-parallel wrapper takes makes right. image_ids and caption_ids are those of
        the own pairs, negatives (N, P M) says which captions of all, process after process, may be negatives of the own
        images. Of tied hardest negatives the first met has the gradient.
        """
        from uwml_lib.losses import streaming  # it knows this class

        value, p, hardest = streaming.from_embeddings(
            self, images, captions, image_ids, caption_ids, negatives, similarity, return_statistics, process_group
        )
        return (value, self.describe(p, hardest)) if return_statistics else value

    def direction(self, scores: Tensor, negative_mask: Tensor) -> Tensor:
        """Sum over the rows of (N, M) `scores`; `negative_mask` (N, M) tells which entries are negatives. There may be
        more columns than rows, all of them without a positive of their own.
        """
        if self.gathers != "log_sum_exp":
            raise NotImplementedError
        p = scores.diagonal()
        return self.anchors(p, log_sum_exp(*self.pairs(scores, p[:, None], negative_mask)))

    def pairs(self, scores: Tensor, p: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each pair (n, m) adds to its anchor, whose positive p is (n, 1), and which pairs count, boolean (n, m).
        `from_embeddings` asks it block by block, unless `negatives="hardest"`, and gathers it as `gathers` says.
        """
        raise NotImplementedError

    def anchors(self, p: Tensor, gathered: Tensor) -> Tensor:
        """Sum over anchors, from the scores of their positives p (N,) and what their pairs came to, (..., N)."""
        return gathered.sum()

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
        columns = self.direction_weights(*_of_captions(scores, negative_mask))
        scale = 1 / len(scores) if self.reduction == "mean" else 1
        positive = (rows.positive + columns.positive) * scale
        beyond = (0, scores.shape[1] - len(scores))
        negative = (rows.negative + nn.functional.pad(columns.negative.T, beyond)) * scale
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
        """Check the arguments of `forward`; return the (N, M) boolean mask: may the column be a negative of the row?"""
        if not isinstance(scores, Tensor):
            raise ValueError(f"scores: found {type(scores).__name__}, expected a tensor; torch.as_tensor makes one")
        if scores.ndim != 2 or not 0 < scores.shape[0] <= scores.shape[1]:
            expected = "(N, M) with M >= N >= 1, the positives on the diagonal"
            raise ValueError(f"scores: found shape {tuple(scores.shape)}, expected {expected}")
        if scores.dtype not in DTYPES or scores.layout != torch.strided:
            found = f"dtype {scores.dtype}" if scores.dtype not in DTYPES else f"layout {scores.layout}"
            raise ValueError(f"scores: found {found}, expected a floating point type of 16 bits or more, dense")
        self.check_numbers(scores)
        return Negatives(len(scores), scores.shape[1], scores.device, image_ids, caption_ids, negatives).mask()

    def check_numbers(self, scores: Tensor, name: str = "scores") -> None:
        """Raise ValueError for scores of any shape that are not finite, if `check_finite` has it so."""
        check = self.check_finite
        if check is None:
            traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(scores)
            check = scores.device.type == "cpu" and not traced
        if check and not bool(torch.isfinite(scores).all()):
            raise ValueError(f"{name}: found NaN or infinity, expected finite numbers")

    @torch.no_grad()
    def statistics(self, scores: Tensor, image_ids: Ids = None, **others: Any) -> dict[str, Tensor]:
        """Describe a batch without reading it back: scalars on the scores' device, averaged over both directions. See
        `forward` for the arguments.

        informative_share: share of the anchors whose hardest negative comes within the margin of the positive; for a
        loss without a margin, of those whose hardest negative scores above the positive. positive_score,
        hardest_negative_score: means over the anchors, what is no negative and anchors without one left out.
        """
        hardest = hardest_of_both(scores, self.negative_mask(scores, image_ids, **others))
        return self.describe(scores.diagonal(), hardest)

    def describe(self, p: Tensor, n: Tensor) -> dict[str, Tensor]:
        """Return `statistics`, from the scores of positives p (N,) and hardest negatives n (2, N)."""
        return {
            "informative_share": (n + (self.margin or 0) > p).to(p.dtype).mean(),
            "positive_score": p.mean(),
            "hardest_negative_score": n.masked_fill(n == -torch.inf, torch.nan).nanmean(),
        }

    def extra_repr(self) -> str:
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def _of_captions(scores: Tensor, negative_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same from the captions' side: the first N columns of (N, M), transposed."""
    return scores[:, : len(scores)].T, negative_mask[:, : len(scores)].T


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
    """Return `hardest_negatives` of the rows and of the first N columns of (N, M) scores, (2, N)."""
    rows, columns = HardestNegatives.apply(scores, negative_mask, (1, 0))
    return torch.stack((rows, columns[: len(scores)]))


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
    """Return how much each of (N, M) `candidates` counts in its row: for "all" 1, for "average" 1 / their number, for
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


def check_loss(loss: Any) -> ScoreMatrixLoss:
    """Return `loss`; raise ValueError unless it is one on a score matrix."""
    if not isinstance(loss, ScoreMatrixLoss):
        raise ValueError(f"loss: found {loss!r}, expected a ScoreMatrixLoss, such as PolynomialLoss()")
    return loss


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
