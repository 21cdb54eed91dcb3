"""SCAN: stacked cross attention for image-text matching (Lee et al., ECCV 2018)."""

from typing import Self

from torch import Tensor

from uwml_lib.config import ExperimentConfig
from uwml_lib.models.cross_attention import DEFAULT_LAMBDA_SOFTMAX, attention_weights, cross_attention_scores
from uwml_lib.models.encoders import CaptionEncoder, ImageEncoder
from uwml_lib.models.fused_attention import NORMALISATIONS, fused_scores
from uwml_lib.models.matcher import Matcher


class SCAN(Matcher):
    """Regions and words embedded apart, scored by cross attention.

    Parameters (the source uses, on Flickr30K): feature_dim (2048), vocabulary_size (8481 in the released vocabulary),
    embed_size (1024), word_dim (300), bidirectional (True in the SCAN i-t AVG of the PolyLoss release), weight_norm
    (False), and those of `cross_attention_scores`.
    """

    title = "SCAN"

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        embed_size: int = 1024,
        word_dim: int = 300,
        bidirectional: bool = True,
        weight_norm: bool = False,
        direction: str = "i2t",
        normalisation: str = "clipped_l2norm",
        aggregation: str = "Mean",
        lambda_softmax: float | None = None,
        lambda_lse: float | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(feature_dim, embed_size, weight_norm)
        self.caption_encoder = CaptionEncoder(vocabulary_size, word_dim, embed_size, bidirectional)
        self.attention_options = {
            "direction": direction, "normalisation": normalisation, "aggregation": aggregation,
            "lambda_softmax": lambda_softmax, "lambda_lse": lambda_lse,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: ExperimentConfig, feature_dim: int, vocabulary_size: int) -> Self:
        return cls(
            feature_dim, vocabulary_size, config.embed_size, config.word_dim, config.bidirectional, config.weight_norm,
            config.direction, config.normalisation, config.aggregation, config.lambda_softmax, config.lambda_lse,
        )  # fmt: skip

    def embed_images(self, features: Tensor) -> Tensor:
        """Embed region features (n, regions, feature_dim), float, as (n, regions, embed_size)."""
        return self.image_encoder(features)

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, as (n, words, embed_size)."""
        return self.caption_encoder(tokens, lengths)

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        """Score embedded images against embedded captions, (n_images, n_captions)."""
        fused = self.attention_options["normalisation"] in NORMALISATIONS
        return (fused_scores if fused else cross_attention_scores)(images, captions, lengths, **self.attention_options)

    def attention(self, image: Tensor, caption: Tensor) -> Tensor:
        """Attention between one embedded image (regions, dim) and one embedded caption (words, dim): (words, regions).

        For t2i each word's weights over the regions sum to 1; for i2t each region's weights over the words do.
        """
        direction, normalisation = self.attention_options["direction"], self.attention_options["normalisation"]
        lambda_softmax = self.attention_options["lambda_softmax"]
        if lambda_softmax is None:
            lambda_softmax = DEFAULT_LAMBDA_SOFTMAX[direction]
        if direction == "t2i":
            return attention_weights(caption, image, lambda_softmax, normalisation)
        return attention_weights(image, caption, lambda_softmax, normalisation).T
