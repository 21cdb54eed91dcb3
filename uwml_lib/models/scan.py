"""SCAN: stacked cross attention for image-text matching (Lee et al., ECCV 2018)."""

from typing import Any

from torch import Tensor

from uwml_lib.models.attention_common import default_lambdas
from uwml_lib.models.cross_attention import attention_weights, cross_attention_scores
from uwml_lib.models.matcher import WithSCANEncoders


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
        direction, normalisation = self.attention_options["direction"], self.attention_options["normalisation"]
        lambda_softmax, _ = default_lambdas(direction, self.attention_options["lambda_softmax"], None)
        if direction == "t2i":
            return attention_weights(caption, image, lambda_softmax, normalisation)
        return attention_weights(image, caption, lambda_softmax, normalisation).T
