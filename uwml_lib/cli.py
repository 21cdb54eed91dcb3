"""The command line: `uwml data|train|evaluate|report|reproduce|compare|doctor|...`, over the notebooks' functions.

Every command imports what it needs itself, so that help and errors are quick.
"""

import argparse
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

try:
    import tyro
    from tyro.conf import OmitArgPrefixes, Positional
    from tyro.constructors import PrimitiveConstructorSpec
except ModuleNotFoundError as error:
    raise SystemExit(
        "uwml: needs more than the losses do: `make setup`, or pip install '/path/to/the/kit[notebooks]'"
    ) from error

from uwml_lib import __version__
from uwml_lib.support.errors import UWMLError

try:
    from uwml_lib.config import BACKBONE, FIDELITY, Captions, ExperimentConfig, Fidelity, Precision, preset
except UWMLError as error:
    raise SystemExit(f"uwml: {error}") from error

EVALUATED = ("captions", "dev_captions", "evaluation_precision")
"""What of `FIDELITY` concerns an evaluation."""

USAGE = f"""\
uwml {__version__}: universal weighting metric learning for cross-modal matching

  uwml data       build, download or check a data set
  uwml captions   write captions and ids of a data set, from one of Karpathy's JSON files
  uwml features   write features and boxes of a data set, from TSV files of bottom-up attention
  uwml msrvtt     write captions, ids and frame features of a data set, from JSON as of MSR-VTT and features
  uwml pictures   make a data set of your own pictures: a folder of images and a caption file
  uwml train      train one model and evaluate it; a finished run is left alone, an interrupted one goes on
  uwml evaluate   evaluate a finished run again, a released checkpoint, or several models as an ensemble
  uwml convert    turn a released checkpoint into a folder of this kit, with safetensors weights
  uwml report     print the table of the last `uwml reproduce`, or `uwml videos`, and rebuild the pages
  uwml reproduce  data, all trainings, notebooks, report
  uwml compare    every loss with the same budget and tuning effort; notebooks 05 and 06
  uwml fidelity   what the habits of the released code change; notebook 07
  uwml models     both losses on every model; notebook 08
  uwml videos     both losses on the models that know of frames in an order, on videos; notebook 09
  uwml sweep      settings on a grid or at random, shared by several machines; chosen on dev, reported on test
  uwml doctor     say whether this machine can run the kit, and what to do where it cannot
  uwml published  print every published number beside what was trained here
  uwml train-released
                  train one model by the flags of the released train.py

`uwml COMMAND --help` lists a command's options. Before the command, `--debug` shows the traceback of an error, and
`--json` prints what was found as JSON, and all else to the standard error.

  uwml reproduce                                     everything, on the embedded data
  uwml train --dataset scenes --loss triplet         one training, with the settings of its data set
  uwml --json evaluate reports/runs/scenes/NAME      its recalls, for another program
  uwml sweep --space '{{"loss.margin": [0.1, 0.2]}}'   which margin is best on dev

Exit codes: 0 done, 1 an error, said in a sentence, 2 a misspelt command or option, 130 stopped by Ctrl-C.
"""


Found = dict[str, Any]
"""What a command found, as plain values."""


@dataclass
class DataCommand:
    """Build or download a data set where it is not here, check it, and print what is in it."""

    dataset: str = "scenes"
    """scenes, clips, scenes_smoke, clips_smoke (built), f30k_precomp, coco_precomp (from Kaggle), or the name of a
    folder in the SCAN layout."""
    data_root: str = ""
    """Folder that holds the data set's folder; empty means data/."""


@dataclass
class CaptionsCommand:
    """Write the captions and ids of every split, from Karpathy's dataset_flickr8k.json, _flickr30k or _coco."""

    folder: Positional[Path]
    """The data set's folder, such as data/f30k_precomp."""
    json: Positional[Path]
    """The JSON file."""


@dataclass
class FeaturesCommand:
    """Write the features and boxes of every split, from bottom-up attention's TSV files. Called again it goes on."""

    folder: Positional[Path]
    """The data set's folder, with the ids that `uwml captions` writes."""
    tsv: Positional[tuple[Path, ...]]
    """The TSV files; their rows may be in any order."""
    boxes: int = 36
    """Boxes that every image has."""


@dataclass
class MSRVTTCommand:
    """Write the captions, ids and frame features of every split, from JSON files as of MSR-VTT and one file for each
    video."""

    folder: Positional[Path]
    """The data set's folder, such as data/msrvtt."""
    features: Positional[Path]
    """A folder with VIDEO_ID.npy for each video: frames x numbers."""
    json: Positional[tuple[Path, ...]]
    """The JSON files; MSR-VTT has one for train and validate, and one for test."""
    captions_per_video: int = 0
    """How many captions of each video to take, the first ones; 0: as many as the video with the fewest has."""


@dataclass
class PicturesCommand:
    """Make a data set of your own pictures: captions, splits, and features of a grid. Called again it goes on."""

    folder: Positional[Path]
    """The new data set's folder, such as data/mine."""
    images: Positional[Path]
    """The folder of the image files."""
    captions: Positional[Path]
    """The caption file: lines of an image's name, then a tab, a comma or a blank, and a caption; or JSON."""
    backbone: str = BACKBONE
    """The image model, any of timm; its weights are downloaded once, from the Hugging Face hub."""
    weights: Path | None = None
    """A file of weights for it instead, .safetensors or a state dict of torch."""
    grid: int = 6
    """Rows and columns of regions that an image is cut into."""
    captions_per_image: int | None = None
    """Captions of every image, the first ones; by default as many as every image has."""
    dev: float = 10.0
    """Percent of the images for choosing the best epoch."""
    test: float = 10.0
    """Percent of the images for the final scores."""
    seed: int = 0
    """Seed of the order in which images are dealt to the splits."""
    batch_size: int = 32
    """Images that go through the model at once."""


@dataclass
class TrainReleasedCommand:
    """Train one model by the flags of the released train.py (SCAN, PolyLoss); options of `uwml train` may follow."""

    experiment: OmitArgPrefixes[ExperimentConfig]
    run_folder: Path | None = None
    """Where the run goes; by default a folder under reports/runs/ named after the settings."""
    processes: int = 1
    """Processes on this machine that train together, each with its share of every batch; but for the last bits, the
    result is the same."""
    fidelity: Fidelity = "corrected"
    """released: captions bytes, siblings negatives, dev-captions 5000 and evaluation-precision float64 together."""


@dataclass
class TrainCommand(TrainReleasedCommand):
    """Train one model, evaluate its best epoch, and print the recalls."""

    row: str = ""
    """Settings of a published number, by the name that `uwml published` gives it; other options change them."""


@dataclass
class EvaluateCommand:
    """Evaluate models and print the recalls, as a table and in the words of the released code.

    A run of this kit is evaluated as it was trained, a released checkpoint with the corrected settings, unless you
    choose others. Several models are one ensemble: their scores are averaged.
    """

    models: Positional[tuple[Path, ...]]
    """Run folders, released checkpoints (model_best.pth.tar), or folders that `uwml convert` made of them."""
    split: Literal["train", "dev", "test", "testall"] | None = None
    """Split to evaluate; by default test, or dev where there is none. testall: MSCOCO's 5,000 test images."""
    fold5: bool = False
    """Cut the images into five parts, score each alone, and take the mean: with testall, MSCOCO's 1K numbers."""
    data_root: str = ""
    """Folder that holds the data set's folder; empty means data/, or where a run says."""
    dataset: str = ""
    """Of released checkpoints: the data set's folder, if it is not called as in the checkpoint."""
    vocabulary: Path | None = None
    """Of released checkpoints: NAME_vocab.json of the release; by default the one in the data set's folder."""
    fidelity: Fidelity = "corrected"
    """Of released checkpoints; released: the three settings below as the release has them."""
    captions: Captions | None = None
    """Of released checkpoints; bytes: tokenised as by the release, b'...' and all, under nltk 3.4 to 3.8.1;
    bytes_glued: under nltk 3.2.5, 3.3 or 3.10.4; text: as they should be."""
    dev_captions: int | None = None
    """Of released checkpoints: take only the first captions of dev, the release 5000; 0 means all."""
    evaluation_precision: Precision | None = None
    """Of released checkpoints: precision of attention and ranks."""


@dataclass
class ConvertCommand:
    """Turn a released checkpoint into a folder of this kit, with safetensors weights; nothing in it is run."""

    checkpoint: Positional[Path]
    """model_best.pth.tar of the PolyLoss or SCAN release."""
    folder: Positional[Path]
    """A new folder."""
    vocabulary: Path
    """NAME_vocab.json of the release, which the checkpoint was trained with."""


@dataclass
class ReportCommand:
    """Print the table of the last `uwml reproduce`, or on videos `uwml videos`; rebuild the pages and published.md."""

    dataset: str = "scenes"
    """scenes, or another data set that `uwml reproduce` has run on."""
    publish: bool = False
    """Copy the results into reports/reference, the published ones that are committed."""


@dataclass
class PublishedCommand:
    """Print every published number beside the runs here that match it, and write that to reports/published.md."""


@dataclass
class ReproduceCommand:
    """Everything: data, trainings, notebooks, report. Called again it goes on, and does no work twice."""

    dataset: str = "scenes"
    """scenes, or the name of a folder in the SCAN layout."""
    data_root: str = ""
    """Folder that holds the data set's folder; empty means data/."""
    seeds: str = ""
    """Seeds, separated by blanks or commas; by default 0 1 2 (smoke: 0 1)."""
    epochs: int | None = None
    """Epochs of every training; by default those of the data set's preset."""
    profile: Literal["full", "smoke"] = "full"
    """smoke: the same, tiny, to see that everything works."""


@dataclass
class CompareCommand(ReproduceCommand):
    """Train and tune every loss with the same budget, and execute notebooks 05 and 06. Called again it goes on."""

    seeds: str = ""
    """Seeds, separated by blanks or commas; by default 0 1 2 (smoke: 0)."""


@dataclass
class FidelityCommand(CompareCommand):
    """Train with habits of the released code and without, and execute notebook 07. Called again it goes on."""


@dataclass
class ModelsCommand(CompareCommand):
    """Train both losses on every model, and execute notebook 08. Called again it goes on."""


@dataclass
class VideosCommand(CompareCommand):
    """Train both losses on the models for items of unequal length, and execute notebook 09. Called again it goes on."""

    dataset: str = "clips"
    """clips, or the name of a folder in the SCAN layout with frames, as `uwml msrvtt` makes it."""


@dataclass
class SweepCommand(ReproduceCommand):
    """Try settings on a grid or at random, choose by dev, report on test. Called again, or on other machines that
    share the reports folder, it takes part: no run is trained twice, and what a killed worker left goes on."""

    seeds: str = ""
    """Seeds of every setting, separated by blanks or commas; by default 0 1 (smoke: 0)."""
    epochs: int | None = None
    """Epochs of every training; by default those of the data set's preset, and of the default space 4 at most."""
    space: str = ""
    """What to try, a JSON file or JSON itself: '{"loss.margin": [0.1, 0.2], "batch_size": [64, 128]}'. Names are
    settings of uwml train, or arguments of the loss after "loss."; with --samples there may be ranges,
    '{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": true}}'. By default the polynomial loss's margin and negative
    coefficients."""
    name: str = ""
    """Name of the sweep, and of its folder under reports/sweeps/; by default that of the space's file, or default."""
    samples: int = 0
    """Draw so many settings at random; 0 tries the whole grid."""
    search_seed: int = 0
    """Seed of that drawing; the same on every machine."""
    wait: bool = False
    """Stay until all is done, to take over what others leave; else end once there is nothing to claim, so that no
    machine is held for nothing."""


@dataclass
class DoctorCommand:
    """Say whether this machine can run the kit, line by line, and what to do where it cannot."""

    dataset: str = "scenes"
    """scenes, or the name of a folder in the SCAN layout."""
    data_root: str = ""
    """Folder that holds the data set's folder; empty means data/."""


def data(options: DataCommand) -> Found:
    from uwml_lib.datasets import captions_there, check_data, prepare_data

    config = preset(options.dataset, data_root=options.data_root)
    prepare_data(config, fetch=True)
    found = {}
    for dataset in check_data(replace(config, captions=captions_there(config.data_folder))):
        n_images, regions, dim = dataset.features.shape
        counts = f"{int(dataset.counts(range(n_images)).min())} to {regions}" if dataset.varying else regions
        print(
            f"{dataset.split}: {n_images} images of {counts} regions x {dim} numbers, "
            f"{dataset.captions_per_image} captions each"
        )
        found[dataset.split] = {
            "images": n_images, "regions": regions, "dim": dim, "captions_per_image": dataset.captions_per_image,
        }  # fmt: skip
    return {"folder": str(config.data_folder), "splits": found}


def captions(options: CaptionsCommand) -> None:
    from uwml_lib.datasets.raw.karpathy import write_captions

    write_captions(options.json, options.folder)


def features(options: FeaturesCommand) -> None:
    from uwml_lib.datasets.raw.bottom_up import write_features

    write_features(options.tsv, options.folder, options.boxes)


def msrvtt(options: MSRVTTCommand) -> None:
    from uwml_lib.datasets.raw.msrvtt import write_videos

    write_videos(options.json, options.features, options.folder, options.captions_per_video)


def pictures(options: PicturesCommand) -> None:
    from uwml_lib.datasets.raw.pictures import write_pictures

    write_pictures(**vars(options))
    print(f"now train on it: uwml train --dataset {options.folder.name} --data-root {options.folder.parent}")


def train(options: TrainReleasedCommand) -> Found | None:
    from accelerate import PartialState

    from uwml_lib.support.files import read_sealed_json
    from uwml_lib.training.runner import train as train_run

    folder, found = train_run(options.experiment, options.run_folder), None
    if PartialState().is_main_process:
        found = _print_results(read_sealed_json(folder / "results.json"), folder)
    PartialState().destroy_process_group()
    return found


def evaluate(options: EvaluateCommand) -> Found:
    from uwml_lib.released.scoring import evaluate_together
    from uwml_lib.runs.scoring import evaluate_run, is_run
    from uwml_lib.support.files import lock

    if not options.models:
        raise UWMLError("models: found none, expected run folders or released checkpoints; see uwml evaluate --help")
    runs = [is_run(path) for path in options.models]
    folds = 5 if options.fold5 else 1
    given = {name: value for name in EVALUATED if (value := getattr(options, name)) is not None}
    if all(runs) and (given or options.fidelity == "released"):
        name = "fidelity" if options.fidelity == "released" else next(iter(given))
        raise UWMLError(f"{name}: is for what the release trained; runs of this kit are evaluated as they were trained")
    if runs == [True]:
        (path,) = options.models
        with lock(path):
            results = evaluate_run(path, options.split, options.data_root, folds)
    else:
        released = {name: given.get(name, FIDELITY[options.fidelity][name]) for name in EVALUATED}
        results, path = evaluate_together(
            options.models, options.split, options.data_root, folds, released, options.dataset, options.vocabulary
        )
    return _print_results(results, path)


def convert(options: ConvertCommand) -> None:
    from uwml_lib.datasets import Vocabulary
    from uwml_lib.released.checkpoints import convert_released_checkpoint

    convert_released_checkpoint(options.checkpoint, Vocabulary.load(options.vocabulary), options.folder)
    print(options.folder)


def report(options: ReportCommand) -> Found:
    from uwml_lib.reports.published import publish_comparison
    from uwml_lib.runs.study_runs import load_study
    from uwml_lib.studies import STUDIES, build_pages
    from uwml_lib.studies.publish import publish
    from uwml_lib.support import paths

    there = [name for name in STUDIES if (paths.RUNS / options.dataset / f"{name}.json").exists()]
    name = (there or ["reproduce"])[0]
    found = STUDIES[name].report(load_study(options.dataset, name))
    print(found.to_markdown())
    if options.publish:
        publish(options.dataset, STUDIES)
    build_pages()
    publish_comparison()
    return found.data or {"table": found.table.reset_index().to_dict("records")}


def published(options: PublishedCommand) -> Found:
    from uwml_lib.reports.published import publish_comparison

    print(text := publish_comparison())
    return {"markdown": text}


def _study(name: str) -> Callable[[Any], Found]:
    def run(options: Any) -> Found:
        from uwml_lib.runs.study_runs import load_study
        from uwml_lib.studies import STUDIES, run_study
        from uwml_lib.studies.engine import base_config

        seeds = _seeds(options.seeds)
        found = run_study(STUDIES[name], options.dataset, options.data_root, seeds, options.epochs, options.profile)
        config = base_config(options.dataset, options.data_root, options.epochs, options.profile)
        runs = load_study(config.dataset, name)
        return {"dataset": config.dataset, "split": runs.split, "table": found.table.reset_index().to_dict("records"),
                "runs": [str(run.folder) for run in runs.all_runs]}  # fmt: skip

    return run


def sweep(options: SweepCommand) -> Found:
    from uwml_lib.studies.search_space import read_space
    from uwml_lib.studies.sweep import sweep as take_part

    space = read_space(options.space) if options.space else None
    of_a_file = options.space and not options.space.lstrip().startswith("{")
    text = take_part(
        options.dataset, options.data_root, _seeds(options.seeds), options.epochs, options.profile, space,
        options.name or (Path(options.space).stem if of_a_file else "default"),
        options.samples, options.search_seed, options.wait,
    )  # fmt: skip
    return {"markdown": text}


def _seeds(words: str) -> list[int] | None:
    try:
        seeds = [int(seed) for seed in words.replace(",", " ").split()]
        if words and not seeds:
            raise ValueError("no number")
        return seeds or None
    except ValueError as error:
        raise UWMLError(f"seeds: found {words!r}, expected whole numbers such as '0 1 2'") from error


def doctor(options: DoctorCommand) -> Found:
    from uwml_lib.commands.doctor import examine

    checks = []
    for check in examine(options.dataset, options.data_root):
        print(check, flush=True)
        checks.append(check)
    if failed := sum(not check.ok for check in checks):
        raise UWMLError(f"{failed} of the lines above say FAIL")
    return {"checks": [str(check) for check in checks]}


COMMANDS: dict[str, tuple[type, Callable[[Any], Found | None]]] = {
    "data": (DataCommand, data),
    "captions": (CaptionsCommand, captions),
    "features": (FeaturesCommand, features),
    "msrvtt": (MSRVTTCommand, msrvtt),
    "pictures": (PicturesCommand, pictures),
    "train": (TrainCommand, train),
    "evaluate": (EvaluateCommand, evaluate),
    "convert": (ConvertCommand, convert),
    "report": (ReportCommand, report),
    "reproduce": (ReproduceCommand, _study("reproduce")),
    "compare": (CompareCommand, _study("compare")),
    "fidelity": (FidelityCommand, _study("fidelity")),
    "models": (ModelsCommand, _study("models")),
    "videos": (VideosCommand, _study("videos")),
    "sweep": (SweepCommand, sweep),
    "doctor": (DoctorCommand, doctor),
    "published": (PublishedCommand, published),
    "train-released": (TrainReleasedCommand, train),
}


def parse(command: str, arguments: Sequence[str]) -> Any:
    """Parse a command's arguments; a training's defaults are those of its data set's preset, or of a published row."""
    kind = COMMANDS[command][0]
    if kind is TrainCommand:
        finder = argparse.ArgumentParser(prog="uwml train", add_help=False, allow_abbrev=False)
        finder.add_argument("--dataset", default="scenes")
        finder.add_argument("--row")
        found = finder.parse_known_args(arguments)[0]
        config = _row_config(found.row) if found.row else preset(found.dataset)
        return _parse_training(TrainCommand(_with_fidelity(config, arguments)), arguments)
    if kind is TrainReleasedCommand:
        return _parse_released(arguments)
    return tyro.cli(kind, args=arguments, prog=f"uwml {command}")


def _with_fidelity(config: ExperimentConfig, arguments: Sequence[str]) -> ExperimentConfig:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--fidelity")
    return replace(config, **FIDELITY.get(finder.parse_known_args(arguments)[0].fidelity, {}))


def _row_config(name: str) -> ExperimentConfig:
    from uwml_lib.released.published import row_config

    return row_config(name)


def _parse_released(arguments: Sequence[str]) -> TrainReleasedCommand:
    from uwml_lib.released.flags import describe, read_released_flags

    config, warnings, rest = read_released_flags(arguments)
    for warning in warnings:
        print(f"uwml train-released: {warning}", file=sys.stderr)
    description = f"{TrainReleasedCommand.__doc__}\n\n{describe()}"
    default = TrainReleasedCommand(_with_fidelity(config, rest))
    options = _parse_training(default, rest, prog="uwml train-released", description=description)
    merged = {**config.loss_options, **options.experiment.loss_options}  # --loss-options must not drop --margin
    return replace(options, experiment=replace(options.experiment, loss_options=merged))


def _parse_training(default: Any, arguments: Sequence[str], prog: str = "uwml train", **texts: Any) -> Any:
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_json_option)
    with registry:
        return tyro.cli(type(default), default=default, args=arguments, prog=prog, **texts)


def _json_option(info: tyro.constructors.PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read a dict option as JSON."""
    if info.type != dict[str, Any]:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda words: _from_json(words[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    )


def _from_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, or 1 for an error, said in one sentence."""
    for stream in (sys.stdout, sys.stderr):  # where there is no arrow, a question mark will do
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = list(itertools.takewhile(lambda word: word in ("--debug", "--json"), words))
    debug, words = "--debug" in before, words[len(before) :]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if words[0] not in COMMANDS:
        print(f"uwml: found {words[0]!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        options = parse(words[0], words[1:])
        if isinstance(options, TrainReleasedCommand) and options.processes != 1:
            from uwml_lib.support.distributed import launch, launched
            from uwml_lib.training.checks import check_config

            if launched() == 1:
                check_config(options.experiment, options.processes)
                launch(options.processes, [*before, *words])
                return 0
        if "--json" not in before:
            COMMANDS[words[0]][1](options)
            return 0
        with _standard_error_alone() as out:
            found = COMMANDS[words[0]][1](options) or {}
            if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
                print(json.dumps(found, indent=1), file=out)
    except (UWMLError, OSError) as error:
        if debug:
            raise
        sentence = str(error)
        if isinstance(error, OSError) and error.strerror:
            sentence = f"{error.filename or 'writing'}: {error.strerror}"
        print(f"uwml {words[0]}: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _standard_error_alone() -> Iterator[IO[str]]:
    """Lead all that is printed, by other processes too, to the standard error; yield what was the standard output."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield out
        finally:
            os.dup2(out.fileno(), 1)


def _print_results(results: dict[str, Any], path: Path) -> Found:
    """Print recalls, and return them."""
    from uwml_lib.evaluation.metrics import released_lines

    metrics, folds = results["metrics"], results["fold_metrics"] if results["folds"] > 1 else []
    settings = ExperimentConfig.from_dict(results["config"])
    words = f", mean of {len(folds)} folds" if folds else ""
    if len(results.get("members", ())) > 1:
        words += f", an ensemble of {len(results['members'])} models"
    if "best_epoch" in results:
        words += f", best epoch {results['best_epoch']} ({settings.chosen_by} rsum {results['dev_rsum']:.1f})"
    print(f"{results['split']} split{words}:")
    if settings.fidelity != "corrected":
        print(f"  {settings.fidelity} fidelity: {', '.join(f'{name} {getattr(settings, name)}' for name in EVALUATED)}")
    for name, words in (("image_to_text", "image to text"), ("text_to_image", "text to image")):
        recalls = ", ".join(f"R@{k} {metrics[f'{name}_recall_at_{k}']:.1f}" for k in (1, 5, 10))
        print(
            f"  {words}: {recalls}, median rank {metrics[f'{name}_median_rank']:.0f}, "
            f"mean {metrics[f'{name}_mean_rank']:.1f}"
        )
    print(f"  rsum {metrics['rsum']:.1f}")
    print(f"in the lines of the released code:\n{released_lines(metrics, folds)}\n{path}")
    return {name: value for name, value in results.items() if name not in ("ranks", "files")} | {"path": str(path)}


if __name__ == "__main__":
    sys.exit(main())
