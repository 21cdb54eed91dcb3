"""From a configuration to a trained run: reproducible, resumable, in one process or several.

>>> from uwml_lib.config import preset
>>> from uwml_lib.training import build_loss
>>> config = preset("scenes", loss="polynomial", loss_options={"margin": 0.1})
>>> loss = build_loss(config)
>>> loss.margin
0.1
"""

from uwml_lib.runs.scoring import dev_batches
from uwml_lib.training.runner import check_config, check_model_fits, train, with_batch_that_fits
from uwml_lib.training.short import model_to_look_at
from uwml_lib.training.trainer import Trainer, build_loss, computing, learning_rate

__all__ = [
    "Trainer", "build_loss", "check_config", "check_model_fits", "computing", "dev_batches", "learning_rate",
    "model_to_look_at", "train", "with_batch_that_fits",
]  # fmt: skip
