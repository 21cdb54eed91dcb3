"""Experiments of many runs. A new study is a file with a `Study` in it, and a line here."""

from uwml_lib.studies import compare, evidence, fidelity, models, reproduce
from uwml_lib.studies.study import Study
from uwml_lib.support.lazy import names_of

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (reproduce.STUDY, compare.STUDY, evidence.STUDY, fidelity.STUDY, models.MODELS, models.VIDEOS)
}

__getattr__ = names_of(
    __name__, {"course": ("course_table",), "engine": ("build_pages", "run_study")}
)  # which load all that executes notebooks
