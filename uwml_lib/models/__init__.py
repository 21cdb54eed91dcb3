"""Models: `embed_images(features)`, `embed_captions(tokens, lengths)`, `scores(images, captions, lengths)`."""

from torch import nn

from uwml_lib.config import ExperimentConfig
from uwml_lib.errors import UWMLError
from uwml_lib.models.cross_attention import attention_weights, cross_attention_scores
from uwml_lib.models.scan import SCAN

MODELS: dict[str, type[nn.Module]] = {"scan": SCAN}


def build_model(config: ExperimentConfig, feature_dim: int, vocabulary_size: int) -> nn.Module:
    """Build the model a configuration names, for features and a vocabulary of the given sizes."""
    if config.model not in MODELS:
        raise UWMLError(f"model: found {config.model!r}, expected one of {', '.join(MODELS)}")
    return MODELS[config.model].from_config(config, feature_dim, vocabulary_size)


__all__ = ["MODELS", "SCAN", "attention_weights", "build_model", "cross_attention_scores"]
