"""VSE-infinity's pooling: a learnt weight for every rank (Chen et al., CVPR 2021)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from uwml_lib.models.encoders import l2_normalise, read_sequence, valid
from uwml_lib.models.vse import VSE


class GPO(nn.Module):
    r"""Generalised pooling operator: sort every dimension by size and take a weighted sum of the ranks.

        v_d = sum_k theta_k max_k({x_1d, ..., x_Nd}),    theta = softmax_k(w^T BiGRU(p_1, ..., p_N)_k / temperature)

    with max_k the k-th largest and p_k a sinusoidal encoding of k: mean, maximum and what lies between are special
    cases, and theta depends on N alone.

    Parameters: positions, hidden: sizes of p and of the GRU; the source uses 32 and 32. temperature: 0.1 in the source.
    """

    def __init__(self, positions: int = 32, hidden: int = 32, temperature: float = 0.1) -> None:
        super().__init__()
        self.positions, self.temperature = positions, temperature
        self.rnn = nn.GRU(positions, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(hidden, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Pool the first lengths (n,), on the CPU, of x (n, N, dim) to (n, dim); the others have no influence."""
        mask = valid(lengths, x.shape[1]).to(x.device, non_blocking=True)[:, :, None]
        ranked = x.masked_fill(~mask, -torch.inf).sort(dim=1, descending=True).values.masked_fill(~mask, 0)
        return (self.weights(lengths, x.shape[1]).to(x.dtype)[:, :, None] * ranked).sum(dim=1)

    def weights(self, lengths: Tensor, longest: int) -> Tensor:
        """Return theta for every length (n,), on the CPU: (n, longest), zero past a length; rows sum to 1."""
        sizes, which = torch.unique(lengths, return_inverse=True)  # items of one length share their weights
        device = self.linear.weight.device
        encoded = positional_encoding(longest, self.positions).to(device, non_blocking=True)
        states, _ = read_sequence(self.rnn, encoded.expand(len(sizes), -1, -1), sizes)
        logits = self.linear(states.unflatten(-1, (2, -1)).mean(dim=-2)).squeeze(-1) / self.temperature
        mask = valid(sizes, longest).to(device, non_blocking=True)
        theta = logits.masked_fill(~mask, -torch.inf).softmax(dim=1)
        return theta.index_select(0, which.to(device, non_blocking=True))


class VSEInfinity(VSE):
    """VSE++ with GPO in place of the mean of the regions and of the GRU's last state.

    Of the source its pooling alone: it also has a residual network beside the linear map of the regions, and trains
    with a warm-up and dropped regions and words of its own.
    """

    title = "VSE∞ pooling"

    def __init__(self, *encoders: Any, **options: Any) -> None:
        super().__init__(*encoders, **options)
        self.image_pooling, self.caption_pooling = GPO(), GPO()

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        regions = self.image_encoder.fc(features)
        counts = torch.full((len(regions),), regions.shape[1]) if counts is None else counts
        return l2_normalise(self.image_pooling(regions, counts))

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        words, _ = self.caption_encoder.read(tokens, lengths)
        return l2_normalise(self.caption_pooling(words, lengths.cpu()))


def positional_encoding(length: int, dim: int) -> Tensor:
    """Return the sinusoidal encoding of 0 to length - 1 (Vaswani et al. 2017), (length, dim); dim is even."""
    frequencies = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000) / dim))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
