"""A head on frozen embeddings: what to train when images and captions come as vectors of models left as they are."""

from torch import Tensor, nn

from uwml_lib.models.encoders import l2_normalise


class FrozenEmbeddings(nn.Module):
    """A linear map, or a network with one hidden layer, of each side into one space; scores are cosines there.

    Parameters: image_dim, caption_dim: sizes of the given vectors. embed_size: of the common space. hidden: size of the
    hidden layer (ReLU); 0 means none.
    """

    def __init__(self, image_dim: int, caption_dim: int, embed_size: int = 256, hidden: int = 0) -> None:
        super().__init__()
        self.image_head, self.caption_head = (_head(dim, hidden, embed_size) for dim in (image_dim, caption_dim))

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Score images (n, image_dim) against captions (m, caption_dim), float: (n, m)."""
        return l2_normalise(self.image_head(images)) @ l2_normalise(self.caption_head(captions)).T


def _head(dim: int, hidden: int, embed_size: int) -> nn.Module:
    if not hidden:
        return nn.Linear(dim, embed_size)
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, embed_size))
