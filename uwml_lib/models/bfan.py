"""BFAN: cross attention in both directions that drops what gets less than its share (Liu et al., ACM MM 2019)."""

from typing import Any

from torch import Tensor

from uwml_lib.models.cross_attention import aggregate, check_arguments, relevance, without_padding
from uwml_lib.models.matcher import WithSCANEncoders


class BFAN(WithSCANEncoders):
    """SCAN's encoders and attention, with the attention of a query below the mean over its context set to zero.

    The source's focal type "equal"; its score is the sum of the two directions' means, twice the one here, which stays
    a cosine as the losses expect it.

    Parameters: those of SCAN's encoders, and lambda_softmax; None means 20, as in the source.
    """

    title = "BFAN"
    settings = (*WithSCANEncoders.settings, "lambda_softmax")

    def __init__(self, *encoders: Any, lambda_softmax: float | None = None, **options: Any) -> None:
        super().__init__(*encoders, **options)
        self.lambda_softmax = 20.0 if lambda_softmax is None else lambda_softmax

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]  # words need them
        check_arguments(images, captions, lengths, "i2t", "clipped_l2norm", "Mean")
        captions, mask = without_padding(captions, lengths)
        i2t = relevance(images, captions, None, mask, "clipped_l2norm", self.lambda_softmax, focal=True)
        t2i = relevance(captions, images, mask, None, "clipped_l2norm", self.lambda_softmax, focal=True)
        i2t, t2i = aggregate(i2t, None, "Mean", 1.0).T, aggregate(t2i, mask, "Mean", 1.0)
        return ((i2t + t2i) / 2).to(images.dtype)
