"""A head on frozen embeddings: what to train when images and captions come as vectors of models left as they are."""

from torch import Tensor, nn

from uwml_lib.models.encoders import l2_normalise, mean_of_valid
from uwml_lib.models.matcher import Matcher


class FrozenEmbeddings(Matcher):
    """A linear map, or a network with one hidden layer, of each side into one space; scores are cosines there.

    Parameters: image_dim, caption_dim: sizes of the given vectors. embed_size: of the common space. hidden: size of the
    hidden layer (ReLU); 0 means none.
    """

    title = "Frozen embeddings"
    settings = ("embed_size", "hidden")
    reads = "vectors"
    varying = True

    def __init__(self, image_dim: int, caption_dim: int, embed_size: int = 256, hidden: int = 0) -> None:
        super().__init__()
        self.image_head, self.caption_head = (_head(dim, hidden, embed_size) for dim in (image_dim, caption_dim))

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        """Embed vectors (n, image_dim), or the mean of regions (n, regions, image_dim), as (n, embed_size)."""
        return l2_normalise(self.image_head(features if features.ndim == 2 else mean_of_valid(features, counts)))

    def embed_captions(self, vectors: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed vectors (n, caption_dim), float, as (n, embed_size)."""
        return l2_normalise(self.caption_head(vectors))


def _head(dim: int, hidden: int, embed_size: int) -> nn.Module:
    if not hidden:
        return nn.Linear(dim, embed_size)
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, embed_size))
