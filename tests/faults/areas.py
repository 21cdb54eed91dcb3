"""Which tests answer for which area: the one table to adapt when test files are renamed."""

from typing import NamedTuple


class Area(NamedTuple):
    """Paths of tests, the likeliest to notice a fault first; `wider` are asked where `quick` notice nothing."""

    quick: tuple[str, ...]
    wider: tuple[str, ...] = ()


AREAS = {
    "losses": Area(
        ("tests/losses", "tests/weighting/test_weighting.py"),
        ("tests/losses/test_pml.py", "tests/reports/test_explorer.py"),
    ),
    "attention": Area(
        ("tests/models/test_cross_attention.py", "tests/models/test_fused_attention.py", "tests/models/test_scan.py"),
        ("tests/models/test_models.py", "tests/evaluation/test_evaluation.py"),
    ),
    "models": Area(("tests/models",)),
    "metrics": Area(
        ("tests/evaluation/test_evaluation.py",),
        ("tests/runs/test_scoring.py", "tests/released/test_released_checkpoints.py"),
    ),
    "statistics": Area(
        ("tests/evaluation/test_statistics.py",),
        ("tests/reports/test_two_losses.py", "tests/runs/test_study_runs.py", "tests/studies/test_studies.py"),
    ),
    "vocabulary": Area(("tests/datasets/test_vocabulary.py",)),
    "data": Area(
        ("tests/datasets/test_precomputed.py", "tests/datasets/test_audit.py", "tests/datasets/test_sampler.py"),
        ("tests/runs/test_scoring.py", "tests/training/test_training.py"),
    ),
    "search": Area(("tests/runs/test_search.py", "tests/reports/test_found.py", "tests/datasets/test_pictures.py")),
    "resume": Area(
        ("tests/runs/test_checkpoints.py", "tests/training/test_training.py"),
        (
            "tests/released/test_released_checkpoints.py",
            "tests/runs/test_scoring.py",
            "tests/training/test_processes.py",
        ),
    ),
    "importers": Area(
        (
            "tests/datasets/test_karpathy.py",
            "tests/datasets/test_caption_files.py",
            "tests/datasets/test_msrvtt.py",
            "tests/datasets/test_bottom_up.py",
            "tests/datasets/test_pictures.py",
            "tests/datasets/test_detector.py",
        )
    ),
    "download": Area(
        ("tests/datasets/test_download.py", "tests/datasets/test_photographs.py", "tests/datasets/test_hub.py")
    ),
    "config": Area(("tests/test_config.py", "tests/released/test_released_flags.py")),
    "weights": Area(("tests/weighting/test_weighting.py", "tests/weighting/test_coefficients.py")),
    "reports": Area(
        ("tests/reports/test_two_losses.py", "tests/runs/test_study_runs.py", "tests/studies/test_studies.py")
    ),
    "site": Area(
        (
            "tests/reports/test_explorer.py",
            "tests/reports/test_findings.py",
            "tests/reports/test_playground.py",
            "tests/reports/test_reference.py",
            "tests/reports/test_sources.py",
            "tests/reports/test_two_losses.py",
            "tests/runs/test_study_runs.py",
        ),
        ("tests/reports/test_strange_names.py",),
    ),
    "files": Area(("tests/support/test_files.py", "tests/test_faults.py")),
}
