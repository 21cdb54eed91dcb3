"""Retrieval within one modality: find images of the same number, among numbers that no training ever saw.

The images are two-digit numbers, put together from scikit-learn's handwritten digits: fine-grained, as 37 differs from
38 and 27 in one digit alone. Half of the hundred numbers are trained on, the other half, written with other digits,
are searched. Three losses of the kit through LabelledPairsLoss, two of pytorch-metric-learning as they come, all on one
small network with the same settings, tuned for none of them. `python examples/digits_retrieval.py`
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.samplers import MPerClassSampler
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from uwml_lib.evaluation import paired_interval, summarize
from uwml_lib.losses import MultiSimilarityLoss, PolynomialLoss, TripletLoss
from uwml_lib.losses.base import hardest_negatives
from uwml_lib.losses.pml import LabelledPairsLoss

RECALL_AT = (1, 2, 4, 8)
IMAGES_PER_NUMBER, NUMBERS_TRAINED = 20, 50
WIDTH, EMBEDDING, LEARNING_RATE = 256, 32, 1e-3
BATCH, PER_NUMBER = 100, 4
LOWEST_PUSHED = 0.3489  # the upper root of the released negative polynomial

Rows = dict[str, list[list[float]]]  # name -> for each seed the recalls
PIXELS, UNTRAINED, POLYNOMIAL = "pixels", "network, untrained", "polynomial"
LOSSES: dict[str, Callable[[], nn.Module]] = {
    POLYNOMIAL: lambda: LabelledPairsLoss(PolynomialLoss()),
    "triplet": lambda: LabelledPairsLoss(TripletLoss(margin=0.2)),
    "multi-similarity": lambda: LabelledPairsLoss(MultiSimilarityLoss()),
    "triplet of pytorch-metric-learning": pml_losses.TripletMarginLoss,
    "multi-similarity of pytorch-metric-learning": pml_losses.MultiSimilarityLoss,
}


def written_numbers() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (1000, 128), float32 from 0 to 1, and numbers (1000,), to train on and to search; no digit is in both."""
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    pixels, digit = torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target)
    pools = torch.randperm(len(digit), generator=generator).chunk(2)
    numbers = torch.randperm(100, generator=generator).split(NUMBERS_TRAINED)

    def write(wanted: int, pool: Tensor) -> Tensor:
        there = pool[digit[pool] == wanted]
        return pixels[there[torch.randint(len(there), (), generator=generator)]]

    splits = []
    for pool, values in zip(pools, numbers, strict=True):
        labels = values.repeat_interleave(IMAGES_PER_NUMBER)
        images = [torch.cat([write(n // 10, pool), write(n % 10, pool)], dim=1).flatten() for n in labels.tolist()]
        splits.append((torch.stack(images), labels))
    return splits[0], splits[1]


@torch.no_grad()
def recalls(embeddings: Tensor, labels: Tensor) -> list[float]:
    """Share of images, in percent, with one of the same label among the k most similar others, for every k."""
    scores = F.normalize(embeddings) @ F.normalize(embeddings).T
    nearest = scores.fill_diagonal_(-torch.inf).topk(max(RECALL_AT)).indices
    found = labels[nearest] == labels[:, None]
    return [100 * found[:, :k].any(dim=1).float().mean().item() for k in RECALL_AT]


def network(seed: int) -> nn.Module:
    """The network as it is before training."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(128, WIDTH), nn.ReLU(), nn.Linear(WIDTH, EMBEDDING))


def train(model: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor, seed: int, steps: int) -> Tensor:
    """Train on batches with the same number of images of each number; return the hardest negatives of the last tenth of
    the batches, to tell what range the scores end in.
    """
    np.random.seed(seed)  # what the sampler draws from
    order = torch.tensor(list(MPerClassSampler(labels, PER_NUMBER, BATCH, BATCH * steps)))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    hardest = []
    for batch in order.split(BATCH):
        embeddings = F.normalize(model(images[batch]))
        optimizer.zero_grad()
        loss(embeddings, labels[batch]).backward()
        optimizer.step()
        scores = embeddings.detach() @ embeddings.detach().T
        hardest.append(hardest_negatives(scores, labels[batch][:, None] != labels[batch]))
    return torch.cat(hardest[-max(steps // 10, 1) :])


def measure(seeds: Sequence[int], steps: int) -> tuple[Rows, Tensor]:
    """Recalls for each row of the table and each seed, and the polynomial loss's hardest negatives at the end."""
    seen, (images, labels) = written_numbers()
    rows = {PIXELS: [recalls(images, labels)], UNTRAINED: [recalls(network(seed)(images), labels) for seed in seeds]}
    hardest = []
    for name, loss in LOSSES.items():
        rows[name] = []
        for seed in seeds:
            model = network(seed)
            negatives = train(model, loss(), *seen, seed, steps)
            rows[name].append(recalls(model(images), labels))
            if name == POLYNOMIAL:
                hardest.append(negatives)
    return rows, torch.cat(hardest)


def table(rows: Rows) -> str:
    """The recalls as Markdown: mean ± sample standard deviation over seeds."""
    lines = ["| embedding | " + " | ".join(f"R@{k}" for k in RECALL_AT) + " |", "|:--" * (1 + len(RECALL_AT)) + "|"]
    for name, values in rows.items():
        cells = [summarize(column).mean_and_std for column in zip(*values, strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison(rows: Rows) -> str:
    """What R@1 says of the polynomial loss against each other loss."""
    ours = [values[0] for values in rows[POLYNOMIAL]]
    lines = []
    for name in LOSSES:
        if name != POLYNOMIAL:
            interval = paired_interval(ours, [values[0] for values in rows[name]])
            word = "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"
            lines.append(f"- {name}: {interval}, {word}")
    return "\n".join(lines)


def main(seeds: Sequence[int] = (0, 1, 2), steps: int = 300) -> str:
    """Train every loss with every seed; return the table and what it says, as Markdown."""
    rows, hardest = measure(seeds, steps)
    unpushed = f"{(hardest < LOWEST_PUSHED).float().mean():.0%}"
    text = f"""{table(rows)}

Recall in percent, mean ± sample standard deviation over seeds of weights and batches (n = {len(seeds)}); {steps} steps.

R@1 of the polynomial loss against the others, 95 % intervals over seeds (paired t):

{comparison(rows)}

Its hardest negatives in the last tenth of the steps: {hardest.mean():.2f} on average, {unpushed} below {LOWEST_PUSHED},
where the released coefficients do not push."""
    print(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    main(options.seeds, options.steps)
