"""`uwml train` and `uwml train-released`: one training."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from uwml_lib.commands.evaluate import print_results
from uwml_lib.config import FIDELITY, ExperimentConfig, Fidelity, preset


def train(
    experiment: ExperimentConfig,
    run_folder: Path | None = None,
    processes: int = 1,
    fidelity: Fidelity = "corrected",
    row: str = "",
) -> dict[str, Any] | None:
    """Train one model, evaluate its best epoch, and print the recalls.

    Args:
        run_folder: Folder of the run. The default is a folder under reports/runs/ that is named after the settings.
        processes: How many processes of this machine train together, each on its share of every batch. The result is
            the same but for the last bits.
        fidelity: released: captions bytes, siblings negatives, dev-captions 5000 and evaluation-precision float64.
        row: Take the settings of a published number, named as in `uwml published`. Other options change them.
    """
    # The others have done their work: fidelity and row in with_preset, processes in the command line.
    from accelerate import PartialState

    from uwml_lib.support.files import read_sealed_json
    from uwml_lib.training.runner import train as train_run

    folder, found = train_run(experiment, run_folder), None
    if PartialState().is_main_process:
        found = print_results(read_sealed_json(folder / "results.json"), folder)
    PartialState().destroy_process_group()
    return found


def train_released(
    experiment: ExperimentConfig, run_folder: Path | None = None, processes: int = 1, fidelity: Fidelity = "corrected"
) -> dict[str, Any] | None:
    """Train one model with the flags of the released train.py (SCAN, PolyLoss); options of `uwml train` may follow.

    Args:
        run_folder: As in `uwml train`.
        processes: As in `uwml train`.
        fidelity: As in `uwml train`.
    """
    return train(experiment, run_folder, processes, fidelity)


def with_preset(words: Sequence[str]) -> tuple[Callable[..., Any], Sequence[str]]:
    """Return `train` with the settings of the published row, or else of the data set, that the words name."""
    named = _named(words)
    if named.row:
        from uwml_lib.released.published import row_config

        return _with(train, row_config(named.row), named.fidelity), words
    of_words = {name: value for name in ("device", "embed_size") if (value := getattr(named, name)) is not None}
    return _with(train, preset(named.dataset, **of_words), named.fidelity), words  # on which `auto` depends


def with_released_flags(words: Sequence[str]) -> tuple[Callable[..., Any], Sequence[str]]:
    """Return `train_released` with the settings that the release's flags give, and the words that are none of these."""
    from uwml_lib.released.flags import describe, read_released_flags

    config, warnings, words = read_released_flags(words)
    for warning in warnings:
        print(f"uwml train-released: {warning}", file=sys.stderr)
    return _with(train_released, config, _named(words).fidelity, describe()), words


def _named(words: Sequence[str]) -> argparse.Namespace:
    """Read the options that the defaults of others depend on."""
    finder = argparse.ArgumentParser(prog="uwml train", add_help=False, allow_abbrev=False)
    finder.add_argument("--dataset", default=ExperimentConfig.dataset)
    finder.add_argument("--row")
    finder.add_argument("--device")
    finder.add_argument("--embed-size", "--embed_size", type=int)
    finder.add_argument("--fidelity")
    return finder.parse_known_args(words)[0]


def _with(command: Callable[..., Any], config: ExperimentConfig, fidelity: Any, help: str = "") -> Callable[..., Any]:
    """Return a command with other defaults, and with more to say in its help."""
    changed = partial(command, experiment=replace(config, **FIDELITY.get(fidelity, {})))
    changed.__doc__ = f"{command.__doc__}".partition("\n")[0] + f"\n\n{help}"
    return changed
