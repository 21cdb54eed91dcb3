"""Universal weighting metric learning for cross-modal matching: losses, models, data and evaluation."""

__version__ = "0.1.0"
