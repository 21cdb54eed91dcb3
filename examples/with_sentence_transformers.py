"""The losses in sentence-transformers' trainer: anchors, positives and hard negatives.

What it replaces: `MultipleNegativesRankingLoss(model)` becomes `SentencePairsLoss(model, loss)` with any loss of the
kit. `InfoNCELoss(temperature=1 / scale)` is theirs in both directions; theirs takes one by default.

What to watch:
- Scale: there is none. The loss gets cosines, and those that need a temperature have their own.
- Coefficients: the released ones do not push negatives below 0.35, and pull those below 0.1. Those here pull positives
  and push negatives at every cosine; how well they train a real model was not measured.
- Ceiling: the polynomial loss skips positives from 1 - 1e-5 on; `positive_ceiling=None` does not.
- A column `label` says which rows are never negatives of each other, not whether a pair matches.
- On large batches the hardest negatives alone may let an untrained model collapse: `loss.dense()` looks at all.

The sentences are made up: the positive translates the anchor's four words, the negative gets one of them wrong. The
model, an embedding of each word, has to learn the dictionary. `python examples/with_sentence_transformers.py`
(10 seconds)
"""

import random
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

from uwml_lib.datasets.raw.region_models import import_vision
from uwml_lib.losses import PolynomialLoss
from uwml_lib.losses.sentence_transformers import SentencePairsLoss

import_vision("torchvision")  # also one that was built for another torch than is here

from sentence_transformers import (  # noqa: E402
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding  # noqa: E402

WORDS, LENGTH, ROWS = 60, 4, 640
LOSS = PolynomialLoss(positive=(1, -2, 1), negative=(0.25, 0.5, 0.25), positive_ceiling=None)


def sentences(seed: int, rows: int = ROWS) -> Dataset:
    """Rows of an anchor, its translation, and one with a wrong word."""
    generator, columns = random.Random(seed), {"anchor": [], "positive": [], "negative": []}
    for _ in range(rows):
        *words, wrong = generator.sample(range(WORDS), LENGTH + 1)
        for name, language, said in (
            ("anchor", "a", words),
            ("positive", "b", words),
            ("negative", "b", [wrong, *words[1:]]),
        ):
            columns[name].append(" ".join(f"{language}{word}" for word in said))
    return Dataset.from_dict(columns)


def untrained() -> SentenceTransformer:
    torch.manual_seed(0)
    vocabulary = {f"{language}{word}": word + WORDS * (language == "b") for word in range(WORDS) for language in "ab"}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32)], device="cpu")


def recall(model: SentenceTransformer) -> float:
    """In percent, how often an anchor never seen finds its translation first among 200."""
    asked = sentences(seed=1, rows=200)
    found = model.similarity(model.encode(asked["anchor"]), model.encode(asked["positive"])).argmax(dim=1)
    return 100 * (found == torch.arange(len(found))).float().mean().item()


def main(epochs: int = 10) -> tuple[float, float]:
    model = untrained()
    before = recall(model)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            learning_rate=0.05,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        loss = SentencePairsLoss(model, LOSS)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=sentences(seed=0), loss=loss).train()
    after = recall(model)
    print(f"R@1 {before:.1f} before, {after:.1f} after")
    return before, after


if __name__ == "__main__":
    main()
