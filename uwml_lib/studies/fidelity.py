"""`make fidelity`: what the habits of the released code change, by the same trainings with them and without."""

from collections.abc import Sequence
from dataclasses import replace

from uwml_lib.datasets.vocabulary import available_tokenizer
from uwml_lib.reports.site import site
from uwml_lib.reports.tables import HABITS, fidelity_table
from uwml_lib.runs.groups import load_experiment, save_experiment
from uwml_lib.studies.engine import Profile, base_config, check_seeds, execute_notebooks, prepare
from uwml_lib.studies.side_by_side import train_all
from uwml_lib.support.files import lock
from uwml_lib.support.paths import report_folder
from uwml_lib.support.progress import Say, say
from uwml_lib.training.checks import check_config


def measure(
    dataset: str = "scenes",
    data_root: str = "",
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    profile: Profile = "full",
    say: Say = say,
) -> str:
    """Train the polynomial loss with the release's habits and without, execute notebook 07, and return the table.

    seeds: None means 0, 1, 2 (smoke: 0). epochs: None means the preset's. profile: "smoke" is the same, tiny. Where
    Punkt is not there, what needs the released captions is left out, and said.
    """
    seeds = check_seeds(seeds if seeds is not None else (0,) if profile == "smoke" else (0, 1, 2))
    base = replace(base_config(dataset, data_root, epochs, profile), loss="polynomial")
    check_config(base)
    parameters = prepare("fidelity", base, say)
    habits = HABITS
    if available_tokenizer() != "punkt":
        say("captions as bytes: left out, for nltk's Punkt is not here; `make setup` downloads it")
        habits = {name: changes for name, changes in HABITS.items() if "captions" not in changes}
    with lock(report_folder(base.dataset), say):
        configs = [replace(base, seed=seed, **changes) for changes in habits.values() for seed in seeds]
        say(f"1/2 training: {len(configs)} runs of {base.epochs} epochs")
        runs = train_all(configs, say)
        groups = {"runs": runs[: len(seeds)], "released": runs[len(seeds) :]}
        save_experiment(base.dataset, "fidelity", **{name: [run.folder for run in groups[name]] for name in groups})
        say("2/2 notebook and report")
        execute_notebooks("fidelity", base.dataset, parameters, say)
        index = site.build(say)
    text = fidelity_table(load_experiment(base.dataset, "fidelity")).to_markdown()
    say(f"\n{text}\n\nReport: {index}")
    return text
