"""Which tests answer for which area: the one table to adapt when test files are renamed."""

from typing import NamedTuple


class Area(NamedTuple):
    """Paths of tests, the likeliest to notice a fault first; `wider` are asked where `quick` notice nothing."""

    quick: tuple[str, ...]
    wider: tuple[str, ...] = ()


AREAS = {
    "losses": Area(
        ("tests/losses", "tests/test_weighting.py"),
        ("tests/test_pml.py", "tests/test_explorer.py"),
    ),
    "attention": Area(
        ("tests/models/test_cross_attention.py", "tests/models/test_fused_attention.py", "tests/models/test_scan.py"),
        ("tests/models/test_models.py", "tests/test_evaluation.py"),
    ),
    "models": Area(("tests/models",)),
    "metrics": Area(
        ("tests/test_evaluation.py",),
        ("tests/test_scoring.py", "tests/test_released_checkpoints.py"),
    ),
    "statistics": Area(("tests/test_statistics.py",), ("tests/test_reporting.py", "tests/test_findings.py")),
    "vocabulary": Area(("tests/datasets/test_vocabulary.py",)),
    "data": Area(("tests/datasets/test_precomputed.py",), ("tests/test_scoring.py", "tests/test_training.py")),
    "resume": Area(
        ("tests/test_checkpoints.py", "tests/test_training.py"),
        ("tests/test_released_checkpoints.py", "tests/test_scoring.py", "tests/test_distributed.py"),
    ),
    "importers": Area(
        (
            "tests/datasets/test_karpathy.py", "tests/datasets/test_caption_files.py", "tests/datasets/test_msrvtt.py",
            "tests/datasets/test_bottom_up.py", "tests/datasets/test_pictures.py",
        )
    ),
    "download": Area(("tests/datasets/test_download.py",)),
    "config": Area(("tests/test_config.py", "tests/test_released_flags.py")),
    "weights": Area(("tests/test_weighting.py", "tests/test_coefficients.py")),
    "reports": Area(("tests/test_reporting.py", "tests/test_findings.py")),
    "site": Area(("tests/test_explorer.py", "tests/test_reporting.py")),
    "files": Area(("tests/test_files.py", "tests/test_faults.py")),
}  # fmt: skip
