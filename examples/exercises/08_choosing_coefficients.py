"""The exercises of notebook 8, computed: `python examples/exercises/08_choosing_coefficients.py`, or cell by cell."""

import torch

from uwml_lib.losses import PolynomialLoss
from uwml_lib.weighting import describe, from_scores, from_weights, one_anchor, pair_weights

# %% 1. Cosines between 0.1 and 0.3 for hard negatives: what do the released coefficients do, and what would you do?
generator = torch.Generator().manual_seed(0)
positives = 0.25 + 0.2 * torch.rand(1000, generator=generator)
negatives = 0.1 + 0.2 * torch.rand(1000, generator=generator)
ranges = [tuple(scores.quantile(torch.tensor([0.01, 0.99])).tolist()) for scores in (positives, negatives)]
print(f"1. released\n{describe(PolynomialLoss(), *ranges)}")
weights = pair_weights(PolynomialLoss(reduction="sum"), one_anchor(positive=0.3, negative=0.2))
pull, push = weights.positive[0], weights.negative[0, 1]
print(f"1. a positive at 0.3 is pulled by {pull:.2f}, its negative at 0.2 pushed by {push:.2f}")
fitted = from_scores(positives, negatives)
print(f"1. from_scores\n{describe(PolynomialLoss(*fitted, positive_ceiling=None), *ranges)}")

# %% 2. Ask from_weights for a positive weight that rises with similarity.
try:
    from_weights(positive={0.3: 0.2, 0.8: 1.0}, negative={0.3: 0.1, 0.8: 1.0}, score_range=(0.3, 0.8))
except ValueError as error:
    print(f"2. {error}")

# %% 3. A CLIP-style model has logits up to 100. Which two arguments must change?
logits = 100 * (0.2 + 0.03 * torch.randn(64, 64, generator=generator) + 0.08 * torch.eye(64)).double()
hardest = logits.masked_fill(torch.eye(64, dtype=torch.bool), -torch.inf).amax(dim=1)
print(f"3. defaults: loss {float(PolynomialLoss()(logits)):.1f}, for all positives are skipped")
no_ceiling = PolynomialLoss(margin=20.0, positive_ceiling=None)
print(f"3. without a ceiling alone: {describe(no_ceiling, (20.0, 35.0)).warnings[0]}")
fitted = from_scores(logits.diagonal(), hardest)
loss = PolynomialLoss(*fitted, margin=20.0, positive_ceiling=None, reduction="sum")
weights = pair_weights(loss, logits)
print(
    f"3. with coefficients from the scores too: loss {float(loss(logits)):.0f}, "
    f"{(weights.positive < 0).sum()} positives and {(weights.negative < 0).sum()} negatives moved the wrong way"
)
