"""The figures of notebooks and reports; every function returns the figure and the data it drew."""

from uwml_lib.support.lazy import names_of

__getattr__ = names_of(
    __name__,
    {
        "style": ("LOOK", "PAIR_LOOK", "STYLE", "show"),
        "pictures": ("attention_by_word", "filmstrips", "pictures_with_boxes", "retrieval_examples"),
        "trainings": (
            "caption_lengths", "collapse_curves", "convergence", "models_compared", "recall_curves", "score_curves",
        ),
        "weights": ("batch_weights", "mass_by_rank", "weight_curves", "weight_gallery", "weight_maps"),
    },
)  # fmt: skip
