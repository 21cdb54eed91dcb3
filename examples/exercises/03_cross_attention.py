"""The exercises of notebook 3, computed: `python examples/exercises/03_cross_attention.py`, or cell by cell."""

import torch
from torch import Tensor
from torch.nn import functional as F

from uwml_lib.models import cross_attention_scores

noise = torch.Generator().manual_seed(0)


def unit_vectors(*shape: int) -> Tensor:
    """Return random vectors of length 1."""
    return F.normalize(torch.randn(shape, generator=noise), dim=-1)


def relevance(Q: Tensor, K: Tensor, lam: float) -> Tensor:
    """Return how well each query (queries, dim) agrees with what it reads in the context (context, dim): (queries,)."""
    C = F.leaky_relu(Q @ K.T, 0.1)  # (queries, context)
    E = C / (C.norm(dim=0, keepdim=True) + 1e-8)
    return F.cosine_similarity(Q, (lam * E).softmax(dim=1) @ K, dim=1)


V, W = unit_vectors(12, 32), unit_vectors(9, 32)  # (regions, dim), (words, dim)

# %% 1. What does the i2t score become for lambda = 0, and for lambda to infinity?
mean_word = W.mean(dim=0)  # (dim,)
print(
    f"1. lambda 0: {relevance(V, W, 0).mean():.5f}, by the mean word {(F.cosine_similarity(V, mean_word)).mean():.5f}"
)
A = V @ W.T  # (regions, words)
C = F.leaky_relu(A, 0.1)
favourite = (C / C.norm(dim=0)).argmax(dim=1)  # (regions,): the largest normalised similarity
best = A.gather(1, favourite[:, None])[:, 0]  # (regions,): what it is before
print(f"1. lambda 100,000: {relevance(V, W, 1e5).mean():.5f}, by the favourite word {best.mean():.5f}")
print(f"1. regions whose favourite is not their most similar word: {int((favourite != A.argmax(dim=1)).sum())} of 12")

# %% 2. Zero words are added. Does the score change without a mask?
for added in (0, 1, 5):
    padded = torch.cat([W, torch.zeros(added, 32)])  # (words + added, dim)
    regions_ask, words_ask = relevance(V, padded, 4.0).mean(), relevance(padded, V, 9.0).mean()
    factor = len(W) / len(padded)
    back = words_ask / factor  # as it would be if the zero words were not counted
    print(f"2. {added} zero words, no mask: i2t {regions_ask:.5f}, t2i {words_ask:.5f}, over {factor:.3f} {back:.5f}")
masked = [cross_attention_scores(V[None], padded[None], torch.tensor([9]), way).item() for way in ("i2t", "t2i")]
print(f"2. 5 zero words, with the mask: i2t {masked[0]:.5f}, t2i {masked[1]:.5f}")


# %% 3. What does the place of the clamp do to the gradient, where a region is zero?
def cheap_score(V: Tensor, W: Tensor, clamp_first: bool) -> Tensor:
    """Return the i2t score of one pair without attended vectors, lambda 4."""
    A = V @ W.T
    C = F.leaky_relu(A, 0.1)
    x = (4.0 * C / (C.norm(dim=0, keepdim=True) + 1e-8)).exp()  # (regions, words)
    square = V.square().sum(dim=1) * ((x @ (W @ W.T)) * x).sum(dim=1)  # (regions,)
    root = square.clamp(min=1e-16).sqrt() if clamp_first else square.sqrt().clamp(min=1e-8)
    return ((x * A).sum(dim=1) / root).mean()


with_zero = torch.cat([V[:11], torch.zeros(1, 32)]).requires_grad_()
for clamp_first in (True, False):
    score = cheap_score(with_zero, W, clamp_first)
    (gradient,) = torch.autograd.grad(score, with_zero)
    order = "before" if clamp_first else "behind"
    bad = int(gradient.isnan().any(dim=1).sum())
    print(f"3. clamp {order} the root: score {score:.5f}, regions with NaN in their gradient: {bad}")

# %% 4. How large may a batch be before the attended vectors, or the similarities, exceed 16 GiB?
limits = {}
for name, numbers_a_pair in {"attended vectors": 36 * 1024, "similarities": 36 * 24}.items():
    limits[name] = int((16 * 2**30 / (4 * numbers_a_pair)) ** 0.5)
    print(f"4. {name}: a batch of at most {limits[name]:,}")
ratio = limits["similarities"] / limits["attended vectors"]
print(f"4. ratio of the limits: {ratio:.2f}, root of 1024 / 24: {(1024 / 24) ** 0.5:.2f}")
