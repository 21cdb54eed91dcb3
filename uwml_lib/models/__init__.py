"""Models by name; each is a `Matcher`. Another one is a file and a line in `MODELS`.

>>> import torch
>>> from uwml_lib.models import cross_attention_scores
>>> images, captions = torch.rand(3, 36, 8), torch.rand(5, 12, 8)  # 36 regions and 12 words, as vectors of 8 numbers
>>> scores = cross_attention_scores(images, captions, lengths=torch.tensor([12, 9, 4, 7, 12]))
>>> scores.shape  # every image with every caption
torch.Size([3, 5])
"""

from uwml_lib.config import ExperimentConfig
from uwml_lib.models.bfan import BFAN
from uwml_lib.models.cross_attention import attention_weights
from uwml_lib.models.dual_encoding import DualEncoding
from uwml_lib.models.frozen import FrozenEmbeddings
from uwml_lib.models.matcher import Matcher
from uwml_lib.models.scan import SCAN, cross_attention_scores
from uwml_lib.models.vse import VSE
from uwml_lib.models.vse_infinity import VSEInfinity
from uwml_lib.support.errors import UWMLError

MODELS: dict[str, type[Matcher]] = {
    "scan": SCAN,
    "vse": VSE,
    "vse_infinity": VSEInfinity,
    "bfan": BFAN,
    "dual_encoding": DualEncoding,
    "frozen": FrozenEmbeddings,
}


def model_class(config: ExperimentConfig) -> type[Matcher]:
    """Return the model that a configuration names; raises UWMLError for another name, or captions it cannot read."""
    if config.model not in MODELS:
        raise UWMLError(f"model: found {config.model!r}, expected one of {', '.join(MODELS)}")
    model = MODELS[config.model]
    if (config.captions == "vectors") != (model.reads == "vectors"):
        expected = "vectors" if model.reads == "vectors" else "text"
        raise UWMLError(f"captions: found {config.captions!r}, expected {expected!r}, which model {config.model} reads")
    return model


def build_model(config: ExperimentConfig, feature_dim: int, caption_size: int) -> Matcher:
    """Build the model a configuration names; caption_size: words of the vocabulary, or numbers per caption's vector."""
    return model_class(config).from_config(config, feature_dim, caption_size)


__all__ = [
    "BFAN", "MODELS", "SCAN", "VSE", "DualEncoding", "FrozenEmbeddings", "Matcher", "VSEInfinity", "attention_weights",
    "build_model", "cross_attention_scores", "model_class",
]  # fmt: skip
