"""SCAN: stacked cross attention for image-text matching (Lee et al., ECCV 2018)."""

from typing import Any

from torch import Tensor

from uwml_lib.config import Direction
from uwml_lib.models.cross_attention import attention_weights, check_arguments, plain_scores
from uwml_lib.models.fused_attention import Implementation, fused_scores, takes_fused
from uwml_lib.models.matcher import WithSCANEncoders

DEFAULT_LAMBDA_SOFTMAX = {"i2t": 4.0, "t2i": 9.0}
DEFAULT_LAMBDA_LSE = {"i2t": 5.0, "t2i": 6.0}


class SCAN(WithSCANEncoders):
    """Regions and words embedded apart, scored by cross attention.

    Parameters (the source uses, on Flickr30K): feature_dim (2048), vocabulary_size (8481 in the released vocabulary),
    embed_size (1024), word_dim (300), bidirectional (True in the SCAN i-t AVG of the PolyLoss release), weight_norm
    (False), and those of `cross_attention_scores`.
    """

    title = "SCAN"
    settings = (
        *WithSCANEncoders.settings, "direction", "normalisation", "aggregation", "lambda_softmax", "lambda_lse",
    )  # fmt: skip

    def __init__(
        self,
        *encoders: Any,
        direction: str = "i2t",
        normalisation: str = "clipped_l2norm",
        aggregation: str = "Mean",
        lambda_softmax: float | None = None,
        lambda_lse: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*encoders, **options)
        self.attention_options: dict[str, Any] = {
            "direction": direction, "normalisation": normalisation, "aggregation": aggregation,
            "lambda_softmax": lambda_softmax, "lambda_lse": lambda_lse,
        }  # fmt: skip

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]  # words need them
        """Score embedded images against embedded captions, (n_images, n_captions)."""
        return cross_attention_scores(images, captions, lengths, **self.attention_options)

    def attention(self, image: Tensor, caption: Tensor) -> Tensor:
        """Attention between one embedded image (regions, dim) and one embedded caption (words, dim): (words, regions).

        For t2i each word's weights over the regions sum to 1; for i2t each region's weights over the words do.
        """
        options = self.attention_options
        t2i = options["direction"] == "t2i"
        queries, context = (caption, image) if t2i else (image, caption)
        lambda_softmax = options["lambda_softmax"]
        if lambda_softmax is None:
            lambda_softmax = DEFAULT_LAMBDA_SOFTMAX[options["direction"]]
        weights = attention_weights(queries, context, lambda_softmax, options["normalisation"])
        return weights if t2i else weights.T


def cross_attention_scores(
    images: Tensor,
    captions: Tensor,
    lengths: Tensor,
    direction: Direction = "i2t",
    normalisation: str = "clipped_l2norm",
    aggregation: str = "Mean",
    lambda_softmax: float | None = None,
    lambda_lse: float | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Return the score of every image with every caption, (n_images, n_captions), of the inputs' dtype.

    images: (n_images, regions, dim). captions: (n_captions, words, dim), floating point. lengths: (n_captions,)
    integer, on any device (the CPU avoids a wait); positions at and past a caption's length have no influence and
    get gradient zero. direction: who asks, regions ("i2t") or words ("t2i"). normalisation: of a over the queries.
    aggregation: of r over the queries. lambda_softmax: None means 4 (i2t) or 9 (t2i). lambda_lse: None means 5 or 6.
    implementation: "plain" is the equation as `cross_attention.py` has it; "fused" is faster, within 1e-5 of it, and
    can be differentiated once, not twice and not in forward mode. "auto" is fused for the normalisations
    "clipped_l2norm" and "l2norm", lambda_softmax up to 36 and lengths on the CPU, outside torch.compile, transforms
    such as vmap, and the capture of a CUDA graph; elsewhere it is plain.
    Raises ValueError for shapes that do not fit, lengths outside 1..words, unknown names, and for "fused"
    where it cannot be.
    """
    check_arguments(images, captions, lengths, direction, normalisation, aggregation)
    lambda_softmax = DEFAULT_LAMBDA_SOFTMAX[direction] if lambda_softmax is None else lambda_softmax
    lambda_lse = DEFAULT_LAMBDA_LSE[direction] if lambda_lse is None else lambda_lse
    form = fused_scores if takes_fused(implementation, images, lengths, normalisation, lambda_softmax) else plain_scores
    scores = form(images, captions, lengths, direction, normalisation, aggregation, lambda_softmax, lambda_lse)
    return scores.to(images.dtype)
