"""The universal weighting lens: what any loss on a score matrix does to each pair."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from uwml_lib.losses.base import PairWeights, ScoreMatrixLoss, check_loss
from uwml_lib.losses.horner import is_real

if TYPE_CHECKING:
    import pandas as pd


def pair_weights(loss: Callable[..., Tensor], scores: Tensor, **arguments: Any) -> PairWeights:
    """Return the signed weight that `loss(scores, **arguments)` gives each pair, by automatic differentiation.

    loss: any callable that returns a scalar; it acts on a network only through dL/dS. scores: (N, M), M >= N, floating
    point, positives on the diagonal. The weights have the scores' dtype; one below zero pushes its pair the wrong way.
    Raises ValueError for scores of another type, shape or dtype and for a loss that is no scalar tensor.
    """
    if not isinstance(scores, Tensor):
        raise ValueError(f"scores: found {type(scores).__name__}, expected a tensor; torch.as_tensor makes one")
    if scores.ndim != 2 or not 0 < scores.shape[0] <= scores.shape[1] or not scores.is_floating_point():
        raise ValueError(f"scores: found {scores.dtype} {tuple(scores.shape)}, expected floats (N, M) with M >= N >= 1")
    scores = scores.detach().requires_grad_(True)
    with torch.enable_grad():
        value = loss(scores, **arguments)
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"loss: returned {found}, expected a scalar tensor")
    gradient = torch.zeros_like(scores)  # of a constant, such as the release's detached zero
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, scores, torch.ones_like(value), materialize_grads=True)
    # 0 - x and not -x, which makes -0.0 of 0
    return PairWeights(0 - gradient.diagonal(), gradient.clone().fill_diagonal_(0))


def contributing(loss: ScoreMatrixLoss, scores: Tensor, above: float = 0.0, **arguments: Any) -> Tensor:
    """Count the negatives to which a loss gives each anchor any weight: (2, N), of images and then of captions.

    Bleeker and de Rijke, Do Lessons from Metric Learning Generalize to Image-Caption Retrieval?, 2022, explain by such
    counts which losses work. scores: (N, M), M >= N, and arguments as the loss takes them. above: the largest absolute
    weight that does not count, in the sum of the loss over anchors. Raises ValueError as the loss does.
    """
    if not is_real(above):
        raise ValueError(f"above: found {above!r}, expected a number")
    mask = check_loss(loss).negative_mask(scores, **arguments)
    n, counts = len(scores), []
    for side, allowed in ((scores, mask), (scores[:, :n].T, mask[:, :n].T)):
        weights = pair_weights(loss.direction, side, negative_mask=allowed).negative
        counts.append((weights.abs() > above).sum(dim=1))
    return torch.stack(counts)


def one_anchor(positive: float, negative: float, far: float = 10.0) -> Tensor:
    """Return a (2, 2) float64 score matrix in which one anchor alone is informative.

    Row 0 has the given positive and negative; the other anchors' positives and negatives are `far` apart, so that a
    loss with a margin sees nothing in them.
    """
    return torch.tensor([[positive, negative], [-far, far]], dtype=torch.float64)


def weight_curve(
    loss: Callable[..., Tensor], scores: Tensor, entry: tuple[int, int], similarities: Tensor, **arguments: Any
) -> pd.DataFrame:
    """Sweep one entry of a score matrix, hold the rest, and return the weight of that pair.

    scores: (N, N), floating point. entry: row and column to sweep; on the diagonal a positive. similarities: the
    values it takes. Returns a frame with the columns similarity and weight, and closed_form if the loss has a method
    `weights(scores)`.
    """
    import pandas as pd

    def of_pair(weights: PairWeights) -> float:
        return float(weights.positive[entry[0]] if entry[0] == entry[1] else weights.negative[entry])

    rows = []
    for similarity in similarities.tolist():
        swept = scores.clone()
        swept[entry] = similarity
        rows.append({"similarity": similarity, "weight": of_pair(pair_weights(loss, swept, **arguments))})
        if hasattr(loss, "weights"):
            with contextlib.suppress(NotImplementedError):  # a loss of one's own without a closed form
                rows[-1]["closed_form"] = of_pair(loss.weights(swept, **arguments))
    return pd.DataFrame(rows)


def anchor_curves(
    loss: Callable[..., Tensor], negative_held: float = 1.0, positive_held: float = -1.0
) -> dict[str, pd.DataFrame]:
    """Sweep the pairs of one anchor from -1 to 0.99: the positive, then its negative, the other one held.

    Held as by default, a pair stays informative to losses with a margin however the other moves. Returns frames of
    `weight_curve` under "positive" and "negative".
    """
    similarities = torch.linspace(-1, 1, 201, dtype=torch.float64)[:-1]
    return {
        "positive": weight_curve(loss, one_anchor(0.0, negative_held), (0, 0), similarities),
        "negative": weight_curve(loss, one_anchor(positive_held, 0.0), (0, 1), similarities),
    }


def weight_map(loss: Callable[..., Tensor], positives: Tensor, negatives: Tensor) -> pd.DataFrame:
    """Return loss and weights of a positive and its only negative for all pairs of similarities; see `one_anchor`.

    positives (P,), negatives (K,). A frame of P * K rows with the columns positive, negative (the similarities), loss,
    positive_weight and negative_weight. The loss must bear `torch.vmap`.
    """
    import pandas as pd

    p, n = (grid.flatten().double() for grid in torch.meshgrid(positives, negatives, indexing="ij"))
    scores = one_anchor(0.0, 0.0).repeat(len(p), 1, 1)
    scores[:, 0, 0], scores[:, 0, 1] = p, n
    gradient, values = torch.func.vmap(torch.func.grad_and_value(loss))(scores)
    columns = {
        "positive": p, "negative": n, "loss": values,
        "positive_weight": 0 - gradient[:, 0, 0], "negative_weight": gradient[:, 0, 1],
    }  # fmt: skip
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def negative_mass(loss: Callable[..., Tensor], batches: Tensor) -> pd.DataFrame:
    """Return on which negatives a loss's weight lies, in batches of scores (batches, n, n).

    A frame with a row for every negative pair of every batch: similarity, rank (1 for the hardest of its row or
    column, whichever is smaller) and share of all the weight, in absolute value, that its batch's negatives get.
    """
    import pandas as pd

    frames = []
    itself = torch.eye(batches.shape[-1], dtype=torch.bool)
    for scores in batches:
        weights = pair_weights(loss, scores).negative.abs()
        hidden = scores.masked_fill(itself, -torch.inf)
        ranks = [1 + (-hidden).argsort(dim).argsort(dim) for dim in (0, 1)]
        columns = {
            "similarity": scores, "rank": torch.minimum(*ranks),
            "share": weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny),
        }  # fmt: skip
        frames.append(pd.DataFrame({name: values[~itself].numpy() for name, values in columns.items()}))
    return pd.concat(frames, keys=range(len(batches)), names=["batch", None])


def positives_and_hardest_negatives(batches: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of positives and of each row's hardest negative, two (batches * n,), of (batches, n, n)."""
    itself = torch.eye(batches.shape[-1], dtype=torch.bool, device=batches.device)
    return batches.diagonal(dim1=1, dim2=2).flatten(), batches.masked_fill(itself, -torch.inf).amax(dim=2).flatten()


def batch_scores(scores: Tensor, captions_per_image: int, batch_size: int) -> Tensor:
    """Cut a split's scores (n_images, n_captions), image-major, into square matrices as a training batch has them.

    Returns (batches, batch_size, batch_size), of the scores' dtype, positives on the diagonal, no image twice in a
    batch; a batch is smaller only where there are fewer images than `batch_size`.
    """
    size = min(batch_size, len(scores))
    cut = []
    for start in range(0, len(scores) - size + 1, size):
        stop = (start + size) * captions_per_image
        for k in range(captions_per_image):  # the k-th caption of every image
            cut.append(scores[start : start + size, start * captions_per_image + k : stop : captions_per_image])
    return torch.stack(cut)
