"""What every model is to the training and the evaluation."""

from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.models.encoders import CaptionEncoder, ImageEncoder


class Matcher(nn.Module):
    """Embed images, embed captions, score embedded images against embedded captions: a subclass defines these three.

    Its embeddings may be of any shape whose first dimension counts images or captions. Its constructor takes the size
    of a region's feature, that of the vocabulary (or of a caption's vector), and the settings named in `settings`.
    """

    title: ClassVar[str]
    """Its name in tables."""
    settings: ClassVar[tuple[str, ...]]
    """Fields of `ExperimentConfig` that its constructor takes."""
    reads: ClassVar[Literal["words", "vectors"]] = "words"
    """What a caption is to it: words, or a vector that another model has made of it."""
    varying: ClassVar[bool] = False
    """Whether images may have unequal numbers of regions, as videos of frames."""

    @property
    def of_vectors(self) -> bool:
        """Whether its scores are the products of one vector an image and one a caption, as `scores` has them here."""
        return type(self).scores is Matcher.scores

    @classmethod
    def from_config(cls, config: ExperimentConfig, feature_dim: int, caption_size: int) -> Self:
        """Build the model that a configuration describes, for features and captions of the given sizes."""
        return cls(feature_dim, caption_size, **{name: getattr(config, name) for name in cls.settings})

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        """Embed features (n, regions, feature_dim), float, as (n, ...); counts (n,), on the CPU: regions of each image,
        None where all are full.
        """
        raise NotImplementedError

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, or vectors (n, dim), as (n, ...)."""
        raise NotImplementedError

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Score embedded images against embedded captions, (n_images, n_captions); here by their products, which are
        the cosines of vectors of length 1, and never in half precision, which would make ties of close scores.
        """
        with torch.autocast(images.device.type, enabled=False):
            images, captions = (x if x.dtype == torch.float64 else x.float() for x in (images, captions))
            return images @ captions.T

    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        lengths: Tensor = None,  # type: ignore[assignment]  # None only for a model that reads vectors
        counts: Tensor | None = None,
    ) -> Tensor:
        """Score a batch's images against its captions, (n, n)."""
        return self.scores(self.embed_images(features, counts), self.embed_captions(tokens, lengths), lengths)


class WithSCANEncoders(Matcher):
    """A model on SCAN's encoders; its embeddings are theirs, regions and words, unless it says otherwise.

    Parameters: feature_dim, vocabulary_size: of the data. embed_size, word_dim, bidirectional, weight_norm: of the
    encoders.
    """

    settings: ClassVar[tuple[str, ...]] = ("embed_size", "word_dim", "bidirectional", "weight_norm")

    def __init__(
        self,
        feature_dim: int,
        vocabulary_size: int,
        embed_size: int = 1024,
        word_dim: int = 300,
        bidirectional: bool = True,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(feature_dim, embed_size, weight_norm)
        self.caption_encoder = CaptionEncoder(vocabulary_size, word_dim, embed_size, bidirectional)

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        """Embed region features (n, regions, feature_dim), float, as (n, regions, embed_size)."""
        return self.image_encoder(features)

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, as (n, words, embed_size)."""
        return self.caption_encoder(tokens, lengths)
