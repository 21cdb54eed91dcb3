"""What every model is to the training and the evaluation."""

from typing import ClassVar, Self

from torch import Tensor, nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.distributed import gather_captions
from uwml_lib.models.encoders import CaptionEncoder, ImageEncoder


class Matcher(nn.Module):
    """Embed images, embed captions, score embedded images against embedded captions.

    A subclass defines `scores`, and the embeddings if they are not those of SCAN's encoders; what they are is its own
    affair, but for their first dimension. Its further settings are arguments of its constructor, named in `settings`.

    Parameters: feature_dim, vocabulary_size: of the data. embed_size, word_dim, bidirectional, weight_norm: of SCAN's
    encoders.
    """

    title: ClassVar[str]
    """Its name in tables."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Fields of `ExperimentConfig` that it takes besides those of the encoders."""

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

    @classmethod
    def from_config(cls, config: ExperimentConfig, feature_dim: int, vocabulary_size: int) -> Self:
        """Build the model that a configuration describes, for features and a vocabulary of the given sizes."""
        names = ("embed_size", "word_dim", "bidirectional", "weight_norm", *cls.settings)
        return cls(feature_dim, vocabulary_size, **{name: getattr(config, name) for name in names})

    def embed_images(self, features: Tensor) -> Tensor:
        """Embed region features (n, regions, feature_dim), float, as (n, regions, embed_size)."""
        return self.image_encoder(features)

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, as (n, words, embed_size)."""
        return self.caption_encoder(tokens, lengths)

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        """Score embedded images against embedded captions, (n_images, n_captions)."""
        raise NotImplementedError

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Score a batch's images against its captions, (n, n); of several processes, against the captions of all."""
        images, captions = self.embed_images(features), self.embed_captions(tokens, lengths)
        return self.scores(images, *gather_captions(captions, lengths))
