"""The course: its notebooks in the order of reading, what each answers, and which trainings it reads."""

from typing import NamedTuple

import pandas as pd

from uwml_lib.reports.records import step_seconds
from uwml_lib.studies import STUDIES
from uwml_lib.support.paths import reference_folder
from uwml_lib.support.progress import duration


class Lesson(NamedTuple):
    """A notebook by its stem, the question it answers, and whether it reads the runs of its study."""

    notebook: str
    question: str
    reads_runs: bool = True

    @property
    def needs(self) -> str:
        """Name of the study that has to be run before; "" for none."""
        return next(name for name, study in STUDIES.items() if self.notebook in study.notebooks) * self.reads_runs


COURSE = (
    Lesson("00_start_here", "What was claimed, what was found, and where is what?", reads_runs=False),
    Lesson("01_data_preparation", "What is an image, and what is a caption, to a model?", reads_runs=False),
    Lesson("02_training", "What does a loss do to a pair, and to a training?"),
    Lesson("03_cross_attention", "How does SCAN score a pair, and why is that cheap?"),
    Lesson("04_evaluation", "Which loss is better, and how certain is that?"),
    Lesson("05_weight_functions", "How strongly does each loss pull and push, at which scores?"),
    Lesson("06_twelve_losses", "What do twelve losses have in common, and what not?", reads_runs=False),
    Lesson("07_loss_comparison", "Which loss is best if all are tuned alike?"),
    Lesson("08_choosing_coefficients", "How are the polynomials chosen for other scores?"),
    Lesson("09_fidelity", "What do the habits of the released code change?"),
    Lesson("10_other_models", "Does the answer depend on the model?"),
    Lesson("11_video_text", "And on videos?"),
    Lesson("12_your_own_model", "How is the loss used with vectors of one's own?", reads_runs=False),
    Lesson("13_your_own_photographs", "And with photographs of one's own?", reads_runs=False),
)
ROUGHLY = {
    "reproduce": "10 min", "compare": "3 h", "fidelity": "10 min", "models": "1 h",
    "videos": "half an hour",
}  # fmt: skip
"""How long the trainings of a study take on two cores, where nothing was measured."""


def course_table() -> pd.DataFrame:
    """Return a row for each notebook: its question, what to run before it, and how long that takes from nothing.

    The time is the one published for the study, where it was measured; else it is stated roughly.
    """
    rows = []
    for lesson in COURSE:
        study = STUDIES.get(lesson.needs)
        seconds = step_seconds(reference_folder(study.usual_dataset), study.name) if study else {}
        took = duration(sum(seconds.values())) if seconds else f"about {ROUGHLY.get(lesson.needs, '')}"
        command = f"`make {lesson.needs}`" if lesson.needs else "–"
        rows.append((lesson.notebook, lesson.question, command, took if lesson.needs else "–"))
    return pd.DataFrame(rows, columns=["notebook", "question", "run before", "that takes"])
