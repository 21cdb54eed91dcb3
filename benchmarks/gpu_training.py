"""Parts of `gpu.py` that train: an epoch of Flickr30K's size on synthetic features, and both losses on given data."""

import functools
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scale
import step
from gpu_notes import CARD, SMOKE, Part, cell, warm_up
from measuring import once

from uwml_lib.config import PRESETS, ExperimentConfig, preset
from uwml_lib.datasets import fingerprint
from uwml_lib.reports.tables import compare_losses, results_table
from uwml_lib.runs import Run, StudyRuns, read_metrics
from uwml_lib.support.files import make_folder, read_json
from uwml_lib.support.paths import DATA, RUNS
from uwml_lib.training import Trainer, computing, train

IMAGES, CAPTIONS = (24, 5) if SMOKE else (29_000, 5)  # of Flickr30K
SHAPE = (4, 16) if SMOKE else (step.REGIONS, 2048)
SETTINGS = {"batch_size": 8, "embed_size": 16, "word_dim": 8} if SMOKE else {}
SECONDS = 15  # an epoch
OF_RUNS: dict[str, Any] = {"mixed_precision": "tf32", "log_every": 50}
if SMOKE:
    OF_RUNS |= {"batch_size": 8, "embed_size": 16, "word_dim": 8, "epochs": 2, "selection_images": 8, "log_every": 2}
LOSSES = ("triplet", "polynomial")
MOST_BYTES = 1_000_000  # of runs.json


def workers_that_fit(batch_bytes: int) -> int:
    """Processes to load data with: half the cores, but no more than shared memory holds batches of, three for each."""
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    return max(0, min(8, (os.cpu_count() or 1) // 2, int(free / 2 / (3 * batch_bytes))))


class Until:
    """A loader that ends early once the time is over, and counts its batches."""

    def __init__(self, loader: Any, ends: float) -> None:
        self.loader, self.ends, self.steps = loader, ends, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if time.time() > self.ends:
                return
            self.steps += 1
            yield batch


def epoch(part: Part) -> None:
    """An epoch of Flickr30K's size by the kit's own trainer, from a sparse file, loading included."""
    row = 4 * SHAPE[0] * SHAPE[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        free = shutil.disk_usage(name).free  # a temporary folder in memory may be small
        images = max(2, min(IMAGES, int(free / 2 / row)))
        folder = make_folder(Path(name) / "f30k_precomp")
        scale.write_split(folder, "train", images, copies=1, every=20, shape=SHAPE)
        scale.write_split(folder, "dev", 2, copies=1, shape=SHAPE)
        part.add(images=images, captions=images * CAPTIONS)
        warm_up()
        for precision in ("tf32", "bf16"):
            if precision == "tf32" or part.left > 15:
                part.attempt(f"an epoch, {precision}", functools.partial(one_epoch, part, folder, precision))


def one_epoch(part: Part, folder: Path, precision: str) -> None:
    """Time loading alone, a step alone, and as much of an epoch as the time allows."""
    settings = {"mixed_precision": precision, "data_root": str(folder.parent), "log_every": 50, **SETTINGS}
    config = preset(folder.name, **settings)
    batch_bytes = 4 * config.batch_size * SHAPE[0] * SHAPE[1]
    config = preset(folder.name, **settings, workers=workers_that_fit(batch_bytes))
    with computing(config):
        time_epoch(part, Trainer(config, make_folder(folder.parent / f"run-{precision}")), precision)


def time_epoch(part: Part, trainer: Trainer, precision: str) -> None:
    """Time what `one_epoch` says, with a trainer that is ready."""
    config = trainer.config
    few = 2 if SMOKE else 40
    loaded = list(itertools.islice(trainer.loader, 2))  # workers start here
    alone = loaded[0].to(trainer.accelerator.device)
    trainer.model.train()
    took = part.medians({"step": lambda: trainer.step(alone, trainer.loss)})["step"] or 0.0
    loading = 1e3 * once(lambda: [None for _ in itertools.islice(trainer.loader, few)]) / few
    part.add(**{precision: {"step_ms": took, "loading_ms": loading, "workers": config.workers}})
    steps, loader = len(trainer.loader), Until(trainer.loader, part.ends - 4)
    trainer.loader = loader
    seconds = once(lambda: trainer._train_epoch(0))
    whole = seconds / max(loader.steps, 1) * (IMAGES * CAPTIONS // config.batch_size)
    extrapolated = "" if loader.steps == steps and part.found["images"] == IMAGES else ", extrapolated"
    part.add(**{precision: {
        "step_ms": took, "loading_ms": loading, "workers": config.workers, "steps": loader.steps, "of_steps": steps,
        "seconds": seconds, "epoch_seconds": whole, "extrapolated": bool(extrapolated),
    }})  # fmt: skip
    part.row("An epoch", {
        "products": precision, "captions": f"{IMAGES * CAPTIONS:,}", f"seconds{extrapolated}": cell(whole),
        "steps done": f"{loader.steps:,} of {steps:,}", "a step alone, ms": cell(took),
        "loading a batch, ms": cell(loading), "workers": str(config.workers),
    })  # fmt: skip
    part.aim(f"{precision}: seconds of {IMAGES * CAPTIONS:,} captions{extrapolated}", whole, SECONDS, at_most=True)
    bound = "loading" if loading > took else "the step"
    part.say(
        f"{precision}: {bound} bounds it; a step alone takes {took:.3g} ms, loading a batch with {config.workers} "
        f"workers {loading:.3g} ms, and both at once {1e3 * seconds / max(loader.steps, 1):.3g} ms."
    )


def runs(part: Part) -> None:
    """Train both losses on given data, seed after seed, as far as the time allows."""
    folders = sorted(DATA.iterdir()) if DATA.is_dir() else []
    part.add(runs=[])
    if not folders:
        part.add(outcome="passed over: DATA names no folder with data")
        return
    dataset = folders[0].name
    part.add(dataset=dataset, title=f"Both losses trained on {dataset}, on {CARD}")
    took = 0.0
    for seed in itertools.count():
        # Both losses or none, so that both have the same seeds.
        if seed and (part.left < 1.1 * took or too_large(part) or (SMOKE and seed > 1)):
            break
        took = sum(once(functools.partial(one_run, part, dataset, loss, seed)) for loss in LOSSES)
        tabulate(part, dataset)
    part.say(f"As many seeds as there was time for; the two trainings of the last one took {took:.0f} s.")


def too_large(part: Part) -> bool:
    """Say whether the file of the runs has no room for two more."""
    now = part.path.stat().st_size
    return now + 2.2 * now / len(part.found["runs"]) > MOST_BYTES


def one_run(part: Part, dataset: str, loss: str, seed: int) -> None:
    """Train one loss, and keep what the run wrote; of one that is stopped, the epochs that were done."""
    settings = {**PRESETS["f8k_precomp"], "dataset": dataset, "loss": loss, "seed": seed, **OF_RUNS}
    config = ExperimentConfig.from_dict({**settings, "workers": min(2, workers_that_fit(8_000_000))})
    name = config.run_name(fingerprint(config.data_folder, config.captions))
    folder = RUNS / dataset / name
    finished = part.found["runs"]

    def note(line: str) -> None:
        print(line, flush=True)
        if folder.is_dir():
            part.add(unfinished={"name": name, "config": config.to_dict(), "metrics": read_metrics(folder)})

    train(config, folder, note)
    part.found.pop("unfinished", None)
    files = {"config": read_json(folder / "config.json"), "metrics": read_metrics(folder)}
    part.add(runs=[*finished, {"name": name, **files, "results": read_json(folder / "results.json")}])


def tabulate(part: Part, dataset: str) -> None:
    """Put the runs into a table of their own, and compare the losses once both have the same seeds."""
    found = tuple(Run.load(RUNS / dataset / run["name"]) for run in part.found["runs"])
    study = StudyRuns(dataset, {"runs": found})
    rows = results_table(study).reset_index().astype(str).to_dict("records")
    part.add(tables={f"{dataset} on {CARD}": rows})
    by_loss = study.by_loss()
    if len(by_loss) == len(LOSSES) and len({len(runs) for runs in by_loss.values()}) == 1 and len(found) > 2:
        compared = compare_losses(study)
        words = f"polynomial − triplet, rsum: {compared.over_seeds} over seeds, {compared.over_images} over images"
        part.add(bounds=f"{words}; {compared.verdict('polynomial', 'triplet')}.")
