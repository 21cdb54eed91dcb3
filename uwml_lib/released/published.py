"""Every published number that the kit knows, with its source, and the settings that train its model here.

Plain data: nothing is computed. R@1, R@5, R@10 in percent; None is what the source does not give.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from uwml_lib.config import ExperimentConfig, nearest, preset
from uwml_lib.evaluation.metrics import METRICS
from uwml_lib.support.errors import UWMLError

FEATURE_SHAPE = (36, 2048)
"""Regions and numbers a region of the features that SCAN released for both data sets."""
CAPTIONS_PER_IMAGE = 5
FOLD_IMAGES = 1_000
"""Images of each of the five folds of MSCOCO's 1K numbers."""


@dataclass(frozen=True)
class Protocol:
    """What a number was measured on: a split, scored all at once or in `folds` equal parts whose mean is taken.

    images: how many each split has, in the folder that SCAN released, where that is known.
    """

    name: str
    dataset: str
    split: str
    images: Mapping[str, int]
    folds: int = 1

    @property
    def evaluation(self) -> str:
        """The split and the folds in words."""
        return f"{self.split} split" + (f", mean of {self.folds} folds of {FOLD_IMAGES:,}" if self.folds > 1 else "")


COCO_IMAGES = {"train": 113_287, "testall": 5_000}  # of dev it is not known whether 1,000 or 5,000 were released
F30K = Protocol("Flickr30K 1K", "f30k_precomp", "test", {"train": 29_000, "dev": 1_014, "test": 1_000})
COCO_1K = Protocol("COCO 1K", "coco_precomp", "testall", COCO_IMAGES, folds=5)
COCO_5K = Protocol("COCO 5K", "coco_precomp", "testall", COCO_IMAGES)
PROTOCOLS = (F30K, COCO_1K, COCO_5K)


@dataclass(frozen=True)
class PublishedRow:
    """One published result.

    numbers: R@1, R@5, R@10 of image to text, the same of text to image, and rsum. training: what differs from the data
    set's preset to train the same model here; None where the kit does not, and `not_trained` says why. n, std: of how
    many trainings it is the mean, and the standard deviations that the source gives, by the metric's name.
    """

    name: str
    protocol: Protocol
    method: str
    source: str
    numbers: tuple[float | None, ...]
    training: Mapping[str, Any] | None = None
    not_trained: str = ""
    n: int = 1
    std: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float | None]:
        """The seven numbers, named as `retrieval_metrics` names them."""
        return dict(zip((name for name in METRICS if "rank" not in name), self.numbers, strict=True))


# As in SCAN's README, where every command has --bi_gru and --max_violation. What is left out is the kit's default: a
# bidirectional GRU, lambda_softmax 4 (i2t) or 9 (t2i), lambda_lse 5 (i2t) or 6 (t2i), margin 0.2, hardest negatives.
I2T_AVG, I2T_LSE, T2I_AVG, T2I_LSE = (
    {"loss": "triplet", "direction": direction, "aggregation": aggregation}
    for direction in ("i2t", "t2i")
    for aggregation in ("Mean", "LogSumExp")
)
POLYNOMIAL = {**I2T_AVG, "loss": "polynomial"}

SCAN, AWESOME = "SCAN paper", "Awesome_Matching performance.md"
ENSEMBLE, OTHER_MODEL = "two models, scored together", "another model"
OTHER_FEATURES = "another model, on pixels"
NOT_STATED = "UWML on SCAN i-t (AVG and the epochs are assumed)"

ROWS = {row[0]: PublishedRow(*row) for row in (
    ("f30k_polynomial_i2t_avg", F30K, "UWML on SCAN i-t AVG (released checkpoint)", "PolyLoss README",
     (69.4, 89.9, 95.4, 47.5, 75.5, 83.1, 460.7), POLYNOMIAL),
    ("f30k_triplet_i2t_avg", F30K, "SCAN i-t AVG", SCAN, (67.9, 89.0, 94.4, 43.9, 74.2, 82.8, 452.2), I2T_AVG),
    ("f30k_triplet_i2t_lse", F30K, "SCAN i-t LSE", SCAN, (67.7, 88.9, 94.0, 44.0, 74.2, 82.6, 451.4), I2T_LSE),
    ("f30k_triplet_t2i_avg", F30K, "SCAN t-i AVG", SCAN, (61.8, 87.5, 93.7, 45.8, 74.4, 83.0, 446.2), T2I_AVG),
    ("f30k_triplet_t2i_lse", F30K, "SCAN t-i LSE", SCAN, (61.1, 85.4, 91.5, 43.3, 71.9, 80.9, 434.1), T2I_LSE),
    ("f30k_ensemble", F30K, "SCAN ensemble", SCAN, (67.4, 90.3, 95.8, 48.6, 77.7, 85.2, 465.0), None, ENSEMBLE),
    ("f30k_triplet_i2t_avg_retrained", F30K, "SCAN i-t AVG, re-trained by others",
     "repo WangFei-2019/Image-text-Retrieval", (66.2, None, None, 43.9, None, None, 447.4), I2T_AVG, "", 10,
     {"image_to_text_recall_at_1": 0.4, "text_to_image_recall_at_1": 0.75, "rsum": 2.1}),
    ("f30k_vsepp", F30K, "VSE++, ResNet-152 fine-tuned", "VSE++ paper",
     (52.9, 80.5, 87.2, 39.6, 70.1, 79.5, 409.8), None, OTHER_FEATURES),
    ("f30k_bfan_ensemble", F30K, "BFAN ensemble", "BFAN paper",
     (68.1, 91.4, None, 50.8, 78.4, None, None), None, OTHER_MODEL),
    ("f30k_vse_infinity", F30K, "VSE-infinity, same region features, BiGRU", "VSE-infinity README",
     (76.5, 94.2, None, 56.4, 83.4, None, None), None, OTHER_MODEL),
    ("f30k_clip_vit_b32", F30K, "CLIP ViT-B-32, zero-shot", "open_clip results",
     (78.9, 94.9, 98.2, 58.8, 83.6, 90.0, None), None, OTHER_FEATURES),
    ("coco1k_polynomial_i2t_avg", COCO_1K, NOT_STATED, AWESOME,
     (71.1, 93.7, 98.2, 56.8, 86.7, 93.0, 499.5), POLYNOMIAL),
    ("coco1k_triplet_i2t_avg", COCO_1K, "SCAN i-t AVG", SCAN, (69.2, 93.2, 97.5, 54.4, 86.0, 93.6, 493.9), I2T_AVG),
    ("coco1k_triplet_t2i_avg", COCO_1K, "SCAN t-i AVG", SCAN, (70.9, 94.5, 97.8, 56.4, 87.0, 93.9, 500.5), T2I_AVG),
    ("coco1k_ensemble", COCO_1K, "SCAN ensemble", SCAN, (72.7, 94.8, 98.4, 58.8, 88.4, 94.8, 507.9), None, ENSEMBLE),
    ("coco5k_polynomial_i2t_avg", COCO_5K, NOT_STATED, AWESOME,
     (46.9, 77.7, 87.6, 34.4, 64.2, 75.9, 386.7), POLYNOMIAL),
    ("coco5k_triplet_i2t_lse", COCO_5K, "SCAN i-t LSE", SCAN,
     (46.4, 77.4, 87.2, 34.4, 63.7, 75.7, 384.8), {**I2T_LSE, "lambda_lse": 20.0}),
)}  # fmt: skip
"""Name -> row, data set by data set, in the order of the tables."""


def row_config(name: str) -> ExperimentConfig:
    """Return the configuration that trains a row's model; raises UWMLError for an unknown row, or one that has none."""
    if name not in ROWS:
        raise UWMLError(f"row: found {name!r}; {nearest(name, [*ROWS])}")
    row = ROWS[name]
    if row.training is None:
        raise UWMLError(f"row: found {name!r}, which this kit does not train ({row.not_trained})")
    return preset(row.protocol.dataset, **row.training)
