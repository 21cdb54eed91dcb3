"""The yardstick: loss and cross attention written as the release works, pair by pair in Python.

Per caption: repeat it for every image, two batched products, a cosine; then the loss row by row. Same numbers as the
kit's, which tests/test_benchmarks.py checks.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-8


def loop_scores(images: Tensor, captions: Tensor, lengths: Tensor, direction: str = "i2t") -> Tensor:
    """Scores (n_images, n_captions) of images (n, regions, dim) and captions (n, words, dim): SCAN's Mean, clipped."""
    columns = []
    for caption, length in zip(captions, lengths.tolist(), strict=True):
        words = caption[:length].unsqueeze(0).repeat(len(images), 1, 1)
        query, context = (images, words) if direction == "i2t" else (words, images)
        attended = attend(query, context, 4.0 if direction == "i2t" else 9.0)
        cosine = (query * attended).sum(2) / (query.norm(dim=2) * attended.norm(dim=2)).clamp(min=EPSILON)
        columns.append(cosine.mean(dim=1, keepdim=True))
    return torch.cat(columns, dim=1)


def attend(query: Tensor, context: Tensor, lambda_softmax: float) -> Tensor:
    """The attended vector of every query, (batch, queries, dim)."""
    similarity = F.leaky_relu(torch.bmm(context, query.transpose(1, 2)), 0.1)
    similarity = similarity / (similarity.pow(2).sum(dim=2, keepdim=True).sqrt() + EPSILON)
    weights = (lambda_softmax * similarity.transpose(1, 2)).softmax(dim=2)
    return torch.bmm(weights, context)


def loop_loss(scores: Tensor, margin: float = 0.2) -> Tensor:
    """The released polynomial loss of scores (N, N), anchor by anchor."""
    total = scores.new_zeros(())
    for rows in (scores, scores.T):
        for i, row in enumerate(rows):
            positive, hardest = row[i], torch.cat([row[:i], row[i + 1 :]]).max()
            if hardest + margin > positive and positive < 1 - 1e-5:
                total = total + (0.5 - 0.7 * positive + 0.2 * positive**2).clamp(min=0)
                total = total + (0.03 - 0.4 * hardest + 0.9 * hardest**2).clamp(min=0)
    return total / len(scores)
