"""Models by name; each is a `Matcher`. Another one is a file and a line in `MODELS`."""

from uwml_lib.config import ExperimentConfig
from uwml_lib.errors import UWMLError
from uwml_lib.models.bfan import BFAN
from uwml_lib.models.cross_attention import attention_weights, cross_attention_scores
from uwml_lib.models.matcher import Matcher
from uwml_lib.models.scan import SCAN
from uwml_lib.models.vse import VSE
from uwml_lib.models.vse_infinity import VSEInfinity

MODELS: dict[str, type[Matcher]] = {"scan": SCAN, "vse": VSE, "vse_infinity": VSEInfinity, "bfan": BFAN}


def build_model(config: ExperimentConfig, feature_dim: int, vocabulary_size: int) -> Matcher:
    """Build the model a configuration names, for features and a vocabulary of the given sizes."""
    if config.model not in MODELS:
        raise UWMLError(f"model: found {config.model!r}, expected one of {', '.join(MODELS)}")
    return MODELS[config.model].from_config(config, feature_dim, vocabulary_size)


__all__ = [
    "BFAN",
    "MODELS",
    "SCAN",
    "VSE",
    "Matcher",
    "VSEInfinity",
    "attention_weights",
    "build_model",
    "cross_attention_scores",
]
