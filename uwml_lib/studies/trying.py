"""Whether what a sweep is to try can be tried, before anything is trained."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields

from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial

from uwml_lib.config import ExperimentConfig, is_folder_name, nearest
from uwml_lib.datasets import check_data, prepare_data
from uwml_lib.losses import LOSSES
from uwml_lib.studies.side_by_side import check_runs
from uwml_lib.studies.tuning import LARGEST, Space, Sweep, quiet_optuna
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.progress import Say, say

NOT_SWEPT: dict[str, str] = {
    "seed": "is no setting to choose; give seeds by --seeds",
    "loss": "is no setting to choose; each loss has a sweep of its own",
    "loss_options": "is not given whole; name the loss's arguments, such as loss.margin",
    **dict.fromkeys(("dataset", "max_images", "dev_captions", "selection_images"), "decides which images choose"),
    **{item.name: "cannot change a result" for item in fields(ExperimentConfig) if "cosmetic" in item.metadata},
}
"""Field of ExperimentConfig -> why a space may not name it."""


@quiet_optuna()
def check_sweep(sweep: Sweep, say: Say = say) -> None:
    """Raise UWMLError for what can be known to fail before anything is trained; build the data if they are not here."""
    expect(is_folder_name(sweep.name), "name", repr(sweep.name), "the name of a folder")
    drawn = sweep.sampler != "grid"
    _check_space(sweep.space, drawn)
    size = sweep.samples if drawn else math.prod(map(len, sweep.space.values()))
    expect(0 < size <= LARGEST, "samples" if drawn else "space", f"{size:,} settings", f"1 to {LARGEST:,}")
    # Settings in which every value of a list, and both ends of every range, occur; then all that are known.
    ends = [[of["low"], of["high"]] if isinstance(of, Mapping) else of for of in sweep.space.values()]
    tried = [[of[place % len(of)] for of in ends] for place in range(max(map(len, ends)))]
    configs = [sweep.configs(dict(zip(sweep.space, values, strict=True)))[0] for values in tried]
    prepare_data(sweep.base, say)
    check_runs(configs)
    check_runs([sweep.configs(sweep.suggest(FixedTrial(params)))[0] for params in sweep.settings if params])
    check_data(configs[0])


def _check_space(space: Space, drawn: bool) -> None:
    expect(space, "space", "no settings", "names and values")
    arguments = {name for loss in LOSSES.values() for name in inspect.signature(loss).parameters}
    known = [item.name for item in fields(ExperimentConfig) if item.name not in NOT_SWEPT]
    known += [f"loss.{name}" for name in sorted(arguments - {"check_finite"})]  # which changes no result
    for name, choice in space.items():
        if name in NOT_SWEPT:
            raise UWMLError(f"space: {name} {NOT_SWEPT[name]}")
        if name not in known:
            raise UWMLError(f"space: unknown name {name!r}; {nearest(name, known)}")
        found = f"space: {name}: found {choice!r}"
        if drawn and isinstance(choice, Mapping):
            try:
                if FloatDistribution(**choice).log not in (True, False):
                    raise ValueError("log is true or false")
            except (TypeError, ValueError) as error:
                raise UWMLError(f'{found}, expected {{"low": ..., "high": ...}} ({error})') from error
        elif not isinstance(choice, list) or not choice:
            more = " or a range" if drawn else "; a range needs --samples"
            raise UWMLError(f"{found}, expected a list of values{more}")
        elif twice := [value for place, value in enumerate(choice) if value in choice[:place]]:
            raise UWMLError(f"space: {name}: found {twice[0]!r} twice, expected values that differ")
