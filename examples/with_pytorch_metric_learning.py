"""The losses in a training with pytorch-metric-learning: a memory of earlier batches, and two views without labels.

What it replaces: `TripletMarginLoss(...)` becomes `LabelledPairsLoss(TripletLoss(...))`, and any loss of the kit goes
there. `CrossBatchMemory` and `SelfSupervisedLoss` are imported from uwml_lib.losses.pml: the library's own refuse
losses that they do not know by name.

What to watch:
- Scale: the scores are cosines, and pairs are averaged; a loss's own reduction plays no part.
- Ceiling: the polynomial loss skips positives from 1 - 1e-5 on, such as copies; `positive_ceiling=None` does not.
- Coefficients: the released ones do not push negatives below 0.35, and pull those below 0.1. Those here pull positives
  and push negatives at every cosine.

The points are made up: what tells a class lies in a few directions, and noise that is larger in all others. The classes
that are searched were never trained on. `python examples/with_pytorch_metric_learning.py` (5 seconds)
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from uwml_lib.losses import PolynomialLoss
from uwml_lib.losses.pml import CrossBatchMemory, LabelledPairsLoss, SelfSupervisedLoss

CLASSES, PER_CLASS, SIGNAL, SIZE, WIDTH, BATCH = 100, 8, 8, 64, 16, 64
LOSS = LabelledPairsLoss(PolynomialLoss(positive=(1, -2, 1), negative=(0.25, 0.5, 0.25), positive_ceiling=None))


def made_up(seed: int) -> tuple[Tensor, Tensor]:
    """Points (CLASSES, PER_CLASS, SIZE) and labels (CLASSES, PER_CLASS)."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(CLASSES, 1, SIGNAL, generator=generator).expand(-1, PER_CLASS, -1)
    noise = 1.5 * torch.randn(CLASSES, PER_CLASS, SIZE - SIGNAL, generator=generator)
    return torch.cat([signal, noise], dim=2), torch.arange(CLASSES)[:, None].expand(-1, PER_CLASS)


def recall(network: nn.Module) -> float:
    """In percent, how often the nearest other point is of the same class."""
    points, labels = (x.flatten(0, 1) for x in made_up(seed=1))
    embeddings = normalize(network(points))
    nearest = (embeddings @ embeddings.T).fill_diagonal_(-1).argmax(dim=1)
    return 100 * (labels[nearest] == labels).float().mean().item()


def train(criterion: nn.Module, with_labels: bool, steps: int) -> tuple[float, float]:
    """The recall before and after."""
    torch.manual_seed(0)
    network = nn.Linear(SIZE, WIDTH, bias=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    points, labels = made_up(seed=0)
    with torch.no_grad():
        before = recall(network)
    for _ in range(steps):
        if with_labels:
            batch = torch.randint(CLASSES * PER_CLASS, (BATCH,))
            loss = criterion(network(points.flatten(0, 1)[batch]), labels.flatten()[batch])
        else:  # two points of each class are two views of one thing
            first, second = points[torch.randperm(CLASSES)[:BATCH]][:, torch.randperm(PER_CLASS)[:2]].unbind(1)
            loss = criterion(network(first), network(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return before, recall(network)


def main(steps: int = 200) -> dict[str, tuple[float, float]]:
    recalls = {
        "a memory of 512": train(CrossBatchMemory(LOSS, embedding_size=WIDTH, memory_size=512), True, steps),
        "two views": train(SelfSupervisedLoss(LOSS), False, steps),
    }
    for name, (before, after) in recalls.items():
        print(f"{name}: R@1 {before:.1f} before, {after:.1f} after")
    return recalls


if __name__ == "__main__":
    main()
