"""Tables, sentences, figures and pages made of finished runs."""

from uwml_lib.support.lazy import names_of

__getattr__ = names_of(
    __name__,
    {
        "records": ("record",),
        "report": ("Report",),
        "site.findings": ("IN_SHORT", "answers", "findings_sentences", "findings_table"),
        "tables": (
            "COLUMNS", "compare_losses", "differences", "losses_by_model", "mean_and_std", "models_table",
            "results_table", "run_table",
        ),
        "two_losses": ("two_losses", "warmup_effect"),
    },
)  # fmt: skip
