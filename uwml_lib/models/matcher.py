"""What every model is to the training and the evaluation."""

from typing import Self

from torch import Tensor, nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.distributed import gather_captions


class Matcher(nn.Module):
    """Embed images, embed captions, score embedded images against embedded captions.

    A subclass defines the four methods below; what its embeddings are is its own affair, but their first dimension.
    """

    title: str
    """Its name in tables."""

    @classmethod
    def from_config(cls, config: ExperimentConfig, feature_dim: int, vocabulary_size: int) -> Self:
        """Build the model that a configuration describes, for features and a vocabulary of the given sizes."""
        raise NotImplementedError

    def embed_images(self, features: Tensor) -> Tensor:
        """Embed region features (n, regions, feature_dim), float."""
        raise NotImplementedError

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU."""
        raise NotImplementedError

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        """Score embedded images against embedded captions, (n_images, n_captions)."""
        raise NotImplementedError

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Score a batch's images against its captions, (n, n); of several processes, against the captions of all."""
        images, captions = self.embed_images(features), self.embed_captions(tokens, lengths)
        return self.scores(images, *gather_captions(captions, lengths))
