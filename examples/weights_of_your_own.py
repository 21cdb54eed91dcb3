"""Train with weights that are the gradient of no loss, as Xuan and Chen 2022 (arXiv 2210.13188) do.

Their paper takes known losses apart into a weight of the triplet, which looks at both scores, and one of the pair,
which looks at its own, and combines the parts anew. What cannot be integrated to a loss is a gradient all the same.
Here: the triplet weight of NCA, a sigmoid of the gap, and linear pair weights. That this is one of the combinations
they trained, and its scale, are *unverified* as the paper's. Two linear heads learn to match two noisy views of made-up
items. `python examples/weights_of_your_own.py`
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from uwml_lib.losses import FromWeights, ScoreMatrixLoss, TripletLoss
from uwml_lib.weighting import contributing

SCALE = 10.0
ITEMS, VIEW, KNOWN, WIDTH = 400, 64, 16, 32


def pull(p: Tensor, n: Tensor) -> Tensor:
    """The positive's weight: the worse the triplet and the lower the pair, the more."""
    return torch.sigmoid(SCALE * (n - p)) * (1 - p)


def push(p: Tensor, n: Tensor) -> Tensor:
    """The negative's weight: the worse the triplet and the higher the pair, the more."""
    return torch.sigmoid(SCALE * (n - p)) * n.clamp(min=0)


LOSSES: dict[str, ScoreMatrixLoss] = {
    "weights of NCA and linear": FromWeights(pull, push),
    "triplet": TripletLoss(reduction="mean"),
}


def views(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two views (ITEMS, VIEW) of the same items, which share KNOWN numbers, mixed, under noise."""
    items = torch.randn(ITEMS, KNOWN, generator=generator)
    mixed = (items @ torch.randn(KNOWN, VIEW, generator=generator) for _ in range(2))
    first, second = (view + 2 * torch.randn(ITEMS, VIEW, generator=generator) for view in mixed)
    return first, second


def train(loss: ScoreMatrixLoss, steps: int = 150, seed: int = 0) -> tuple[float, float]:
    """Return recall at 1 of the second half of the items, in percent, after training on the first, and how many
    negatives an anchor had in the mean of the last batch.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    both, heads = views(generator), (nn.Linear(VIEW, WIDTH), nn.Linear(VIEW, WIDTH))
    optimizer = torch.optim.Adam([*heads[0].parameters(), *heads[1].parameters()], lr=3e-3)
    seen, unseen = slice(0, ITEMS // 2), slice(ITEMS // 2, None)
    for _ in range(steps):
        images, captions = (normalize(head(view[seen])) for head, view in zip(heads, both, strict=True))
        optimizer.zero_grad()
        loss(scores := images @ captions.T).backward()
        optimizer.step()
    with torch.no_grad():
        images, captions = (normalize(head(view[unseen])) for head, view in zip(heads, both, strict=True))
        right = (images @ captions.T).argmax(dim=1) == torch.arange(len(images))
    return 100 * right.float().mean().item(), contributing(loss, scores.detach()).float().mean().item()


def main(steps: int = 150) -> None:
    for name, loss in LOSSES.items():
        recall, negatives = train(loss, steps)
        print(f"{name}: R@1 {recall:.1f} of {100 * 2 / ITEMS:.1f} by chance, {negatives:.2f} negatives an anchor")


if __name__ == "__main__":
    main()
