"""The exercises of notebook 12, computed: `python examples/exercises/12_your_own_model.py`, or cell by cell.

On the vectors of `scenes`, which are built the first time.
"""

import torch

from uwml_lib.config import preset
from uwml_lib.datasets import load_split, prepare_data
from uwml_lib.datasets.embeddings import Embeddings, example_embeddings
from uwml_lib.evaluation import retrieval_metrics, summarize
from uwml_lib.losses import PolynomialLoss, ScoreMatrixLoss, TripletLoss
from uwml_lib.models.frozen import FrozenEmbeddings
from uwml_lib.weighting import batch_scores, from_scores, positives_and_hardest_negatives

SEEDS = 3

# %% The notebook's data and training, with what the exercises change as arguments
config = preset("scenes")
prepare_data(config)
parts = example_embeddings(*(load_split(config, split) for split in ("train", "dev", "test")))
train, dev, test = (part.standardised(by=parts[0]) for part in parts)
K = train.captions_per_image


def train_head(
    loss: ScoreMatrixLoss,
    seed: int,
    learning_rate: float = 1e-3,
    hidden: int = 0,
    dense_epochs: int = 2,
    temperature: float = 1.0,
) -> FrozenEmbeddings:
    """Train a head as the notebook does."""
    torch.manual_seed(seed)
    model = FrozenEmbeddings(train.images.shape[1], train.captions.shape[1], embed_size=128, hidden=hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for epoch in range(12):
        for batch in torch.randperm(len(train.captions)).split(128):
            scores = model(train.images[batch // K], train.captions[batch]) / temperature
            value = (loss.dense() if epoch < dense_epochs else loss)(scores, image_ids=batch // K)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return model


@torch.no_grad()
def rsum(model: FrozenEmbeddings, part: Embeddings) -> float:
    """Rank a part's images and captions."""
    return retrieval_metrics(model(part.images, part.captions), K)["rsum"]


@torch.no_grad()
def scores_of(model: FrozenEmbeddings, temperature: float = 1.0) -> list[torch.Tensor]:
    """Scores of dev's positives and hardest negatives."""
    batches = batch_scores(model(dev.images, dev.captions) / temperature, K, 128)
    return list(positives_and_hardest_negatives(batches))


def reached(loss: ScoreMatrixLoss, part: Embeddings = test, **changes: float) -> str:
    """The rsum of several seeds."""
    return summarize([rsum(train_head(loss, seed, **changes), part) for seed in range(SEEDS)]).mean_and_std


fitted = from_scores(*scores_of(train_head(TripletLoss(), seed=0)))
losses = {
    "triplet": TripletLoss(),
    "polynomial, released": PolynomialLoss(),
    "polynomial, fitted": PolynomialLoss(*fitted, positive_ceiling=None),
}

# %% 1. Two learning rates: which loss is ahead at which?
for learning_rate in (1e-3, 3e-3):
    for name, loss in losses.items():
        print(f"1. learning rate {learning_rate:g}, {name}: test rsum {reached(loss, learning_rate=learning_rate)}")

# %% 2. A hidden layer of 256: does dev improve more than train?
for hidden in (0, 256):
    heads = [train_head(losses["polynomial, fitted"], seed, hidden=hidden) for seed in range(SEEDS)]
    means = {name: sum(rsum(head, part) for head in heads) / SEEDS for name, part in (("train", train), ("dev", dev))}
    print(f"2. hidden {hidden}: rsum {means['train']:.1f} on train, {means['dev']:.1f} on dev")

# %% 3. Train without the first two dense epochs: which loss minds most?
for name, loss in losses.items():
    print(f"3. {name}: test rsum {reached(loss)} with dense epochs, {reached(loss, dense_epochs=0)} without")

# %% 4. The scores divided by a temperature: what must change?
temperature = 0.1
for_logits = from_scores(*scores_of(train_head(TripletLoss(), seed=0), temperature))
changed = PolynomialLoss(*for_logits, margin=0.2 / temperature, positive_ceiling=None)
for name, loss in (("defaults", PolynomialLoss()), ("margin, coefficients and ceiling changed", changed)):
    print(f"4. {name}: test rsum {reached(loss, temperature=temperature)}")
