"""Experiments of many runs. A new study is a file with a `Study` in it, and a line here."""

from uwml_lib.studies import compare, fidelity, models, reproduce
from uwml_lib.studies.engine import build_pages, run_study
from uwml_lib.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (reproduce.STUDY, compare.STUDY, fidelity.STUDY, models.MODELS, models.VIDEOS)
}

__all__ = ["STUDIES", "Study", "build_pages", "run_study"]
