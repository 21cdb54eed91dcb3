"""SCAN's encoders, which the other models share: image regions and caption words into one space."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as weight_normalised
from torch.nn.utils.rnn import PackedSequence

from uwml_lib.models.quick_gru import quick_gru, takes_quick

EPSILON = 1e-8  # of the release's L2 normalisation


class ImageEncoder(nn.Module):
    """Linear map of every region's feature, then L2 normalisation (SCAN's `EncoderImagePrecomp`).

    Xavier-uniform weights, zero bias; `weight_norm` gives SCAN's weight-normalised variant.
    """

    def __init__(self, feature_dim: int, embed_size: int, weight_norm: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(feature_dim, embed_size)
        if weight_norm:
            self.fc = weight_normalised(self.fc, dim=None)  # type: ignore[arg-type]  # None: one norm for all of it
        else:
            bound = math.sqrt(6 / (feature_dim + embed_size))
            nn.init.uniform_(self.fc.weight, -bound, bound)
            nn.init.zeros_(self.fc.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map float features (n, regions, feature_dim) to (n, regions, embed_size), every region of length 1."""
        return l2_normalise(self.fc(features))


class CaptionEncoder(nn.Module):
    """Word embedding, GRU, mean of the two directions, L2 normalisation (SCAN's `EncoderText`)."""

    def __init__(self, vocabulary_size: int, word_dim: int, embed_size: int, bidirectional: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, word_dim)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        self.rnn = nn.GRU(word_dim, embed_size, batch_first=True, bidirectional=bidirectional)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Map int64 token ids (n, words), lengths (n,), to (n, words, embed_size); zero past a caption's length."""
        return l2_normalise(self.read(tokens, lengths)[0])

    def read(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the GRU's states at every word, (n, words, embed_size), zero past a caption's length, and after the
        whole caption, (n, embed_size): means of the two directions, of any length.
        """
        words, last = read_sequence(self.rnn, self.embed(tokens), lengths)
        if self.rnn.bidirectional:
            words = words.unflatten(-1, (2, -1)).mean(dim=-2)
        return words, last.mean(dim=0)


def read_sequence(rnn: nn.GRU, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run a GRU over the first lengths (n,) of x (n, N, dim): its states (n, N, hidden), of both directions side by
    side, zero past a length, and after the whole, (directions, n, hidden). Raises ValueError for other lengths.
    """
    # Packed here, by one index there and back: torch packs step by step, with a gradient of the whole for every step.
    sorted_lengths, order = torch.sort(lengths.cpu(), descending=True)
    least, most = sorted_lengths[[-1, 0]].tolist() if len(lengths) else (0, 0)
    if len(lengths) != len(x) or not 1 <= least <= most <= x.shape[1]:
        found = f"{len(lengths)} of {least} to {most}"
        raise ValueError(f"lengths: found {found}, expected {len(x)} of 1 to {x.shape[1]}")
    step = torch.arange(most, device="cpu")[:, None]
    there = step < sorted_lengths
    places = (order * x.shape[1] + step)[there].to(x.device, non_blocking=True)
    packed = PackedSequence(x.flatten(0, 1).index_select(0, places), there.sum(dim=1))
    if takes_quick(rnn, x):
        states, last = quick_gru(rnn, packed)
    else:
        (states, *_), last = rnn(packed)
    states = states.new_zeros(len(x) * x.shape[1], states.shape[1]).index_copy(0, places, states)
    back = order.argsort().to(x.device, non_blocking=True)
    return states.unflatten(0, x.shape[:2]), last.index_select(1, back)


def valid(lengths: Tensor, longest: int) -> Tensor:
    """True where there is something: (n, longest) for lengths (n,), where these are."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def mean_of_valid(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Average the first lengths (n,), on the CPU, of x (n, N, dim), or all N without lengths: (n, dim)."""
    if lengths is None:
        return x.mean(dim=1)
    mask = valid(lengths, x.shape[1])[:, :, None].to(x.device, non_blocking=True)
    return x.masked_fill(~mask, 0).sum(dim=1) / lengths[:, None].to(x.device, non_blocking=True)


def l2_normalise(x: Tensor) -> Tensor:
    """Scale the last dimension to length 1; an all-zero vector stays zero, with gradient finite."""
    return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + EPSILON)
