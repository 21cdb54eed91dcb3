"""What both forms of the cross attention share: names, defaults, checks, and the last step of the equation."""

from typing import get_args

import torch
from torch import Tensor

from uwml_lib.config import Aggregation, Normalisation

DEFAULT_LAMBDA_SOFTMAX = {"i2t": 4.0, "t2i": 9.0}
DEFAULT_LAMBDA_LSE = {"i2t": 5.0, "t2i": 6.0}
NORMALISATIONS = get_args(Normalisation)
AGGREGATIONS = get_args(Aggregation)
EPSILON = 1e-8  # of the release, in the normalisation and in the cosine
SLOPE = 0.1  # of the release's LeakyReLU


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


def default_lambdas(direction: str, lambda_softmax: float | None, lambda_lse: float | None) -> tuple[float, float]:
    """Return both inverse temperatures; None means the direction's default."""
    return (
        DEFAULT_LAMBDA_SOFTMAX[direction] if lambda_softmax is None else lambda_softmax,
        DEFAULT_LAMBDA_LSE[direction] if lambda_lse is None else lambda_lse,
    )


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
    readable = lengths.device.type == "cpu" and len(lengths) and not torch.compiler.is_compiling()
    if readable and not 1 <= int(lengths.min()) <= int(lengths.max()) <= captions.shape[1]:
        raise ValueError(
            f"lengths: found {int(lengths.min())} to {int(lengths.max())}, expected 1 to {captions.shape[1]}"
        )
    for name, value, choices in (
        ("direction", direction, DEFAULT_LAMBDA_SOFTMAX),
        ("normalisation", normalisation, NORMALISATIONS),
        ("aggregation", aggregation, AGGREGATIONS),
    ):
        if value not in choices:
            raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")
