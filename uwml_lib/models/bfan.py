"""BFAN: cross attention in both directions that drops what gets less than its share (Liu et al., ACM MM 2019)."""

from typing import Self

import torch
from torch import Tensor

from uwml_lib.config import ExperimentConfig
from uwml_lib.models.cross_attention import aggregate, check_arguments, relevance
from uwml_lib.models.encoders import CaptionEncoder, ImageEncoder
from uwml_lib.models.matcher import Matcher


class BFAN(Matcher):
    """SCAN's encoders and attention, with the attention of a query below the mean over its context set to zero.

    The source's focal type "equal"; its score is the sum of the two directions' means, twice the one here, which stays
    a cosine as the losses expect it.

    Parameters: those of SCAN's encoders, and lambda_softmax; None means 20, as in the source.
    """

    title = "BFAN"

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        embed_size: int = 1024,
        word_dim: int = 300,
        bidirectional: bool = True,
        weight_norm: bool = False,
        lambda_softmax: float | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(feature_dim, embed_size, weight_norm)
        self.caption_encoder = CaptionEncoder(vocabulary_size, word_dim, embed_size, bidirectional)
        self.lambda_softmax = 20.0 if lambda_softmax is None else lambda_softmax

    @classmethod
    def from_config(cls, config: ExperimentConfig, feature_dim: int, vocabulary_size: int) -> Self:
        sizes = (config.embed_size, config.word_dim, config.bidirectional, config.weight_norm)
        return cls(feature_dim, vocabulary_size, *sizes, config.lambda_softmax)

    def embed_images(self, features: Tensor) -> Tensor:
        """Embed region features (n, regions, feature_dim), float, as (n, regions, embed_size)."""
        return self.image_encoder(features)

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, as (n, words, embed_size)."""
        return self.caption_encoder(tokens, lengths)

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        options = {"normalisation": "clipped_l2norm", "lambda_softmax": self.lambda_softmax, "focal": True}
        check_arguments(images, captions, lengths, "i2t", "clipped_l2norm", "Mean")
        words = torch.arange(captions.shape[1], device=captions.device)
        mask = words < lengths.to(captions.device, non_blocking=True)[:, None]
        captions = captions.masked_fill(~mask[:, :, None], 0)
        i2t = aggregate(relevance(images, captions, None, mask, **options), None, "Mean", 1.0).T
        t2i = aggregate(relevance(captions, images, mask, None, **options), mask, "Mean", 1.0)
        return ((i2t + t2i) / 2).to(images.dtype)
