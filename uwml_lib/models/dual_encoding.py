"""Dual encoding: what is there, and in which order, of a video and of a sentence (Dong et al., CVPR 2019)."""

import torch
from torch import Tensor, nn

from uwml_lib.models.encoders import l2_normalise, mean_of_valid, read_sequence
from uwml_lib.models.matcher import Matcher


class TwoLevels(nn.Module):
    """The mean of a sequence beside the mean of a bidirectional GRU's states over it, mapped linearly: the first does
    not know the order, the second does.
    """

    def __init__(self, dim: int, embed_size: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(dim, embed_size, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(dim + 2 * embed_size, embed_size)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map the first lengths (n,), on the CPU, of x (n, N, dim) to (n, embed_size), of length 1."""
        states, _ = read_sequence(self.rnn, x, lengths)
        levels = [mean_of_valid(level, lengths) for level in (x, states)]
        return l2_normalise(self.fc(torch.cat(levels, dim=1)))


class DualEncoding(Matcher):
    """The same two levels on both sides: frames (or regions) of unequal number, and words; scores are cosines.

    Of the source its first two levels: it also has convolutions over the GRU's states, and counts words where here
    their embeddings are averaged.

    Parameters (the source uses): feature_dim (2048), vocabulary_size, embed_size (2048; its GRUs 512), word_dim (500).
    """

    title = "Dual encoding, two levels"
    settings = ("embed_size", "word_dim")
    varying = True

    def __init__(self, feature_dim: int, vocabulary_size: int, embed_size: int = 1024, word_dim: int = 300) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, word_dim)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        self.video_encoder, self.caption_encoder = (TwoLevels(dim, embed_size) for dim in (feature_dim, word_dim))

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        """Embed features (n, frames, feature_dim), float, of counts (n,) frames, as (n, embed_size)."""
        counts = torch.full((len(features),), features.shape[1]) if counts is None else counts
        return self.video_encoder(features, counts)

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, as (n, embed_size)."""
        return self.caption_encoder(self.embed(tokens), lengths)
