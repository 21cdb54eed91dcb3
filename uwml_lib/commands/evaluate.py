"""What became of trainings: `uwml evaluate`, `convert`, `report` and `published`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from uwml_lib.config import FIDELITY, Captions, Fidelity, Precision
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.progress import counted

if TYPE_CHECKING:
    from uwml_lib.runs.run import Run

EVALUATED = ("captions", "dev_captions", "evaluation_precision")
"""The settings in `FIDELITY` that concern an evaluation."""


def evaluate(
    models: tuple[Path, ...],
    /,
    split: Literal["train", "dev", "test", "testall"] | None = None,
    fold5: bool = False,
    data_root: str = "",
    dataset: str = "",
    vocabulary: Path | None = None,
    fidelity: Fidelity = "corrected",
    captions: Captions | None = None,
    dev_captions: int | None = None,
    evaluation_precision: Precision | None = None,
) -> dict[str, Any]:
    """Evaluate models and print the recalls, as a table and in the words of the released code.

    A run of this kit is evaluated as it was trained, a released checkpoint with the corrected settings, unless you
    choose others. Several models form an ensemble: their scores are averaged.

    Args:
        models: Run folders, released checkpoints (model_best.pth.tar of PolyLoss, SCAN, or VSE++ on features), or
            folders that `uwml convert` made of them.
        split: Split to evaluate. The default is test, or dev if there is no test split. testall: MSCOCO's 5,000 test
            images.
        fold5: Cut the images into five parts, score each alone, and take the mean. With the 5,000 images of testall
            these are MSCOCO's 1K numbers. The parts of other splits have other sizes, and the output says so.
        data_root: Folder that holds the data set's folder. Empty means data/, or the folder that a run names.
        dataset: For released checkpoints: the data set's folder, if its name differs from the checkpoint's.
        vocabulary: For released checkpoints: NAME_vocab.json of the release. The default is in the data set's folder.
        fidelity: For released checkpoints. released: the three settings below as in the release.
        captions: For released checkpoints. bytes: tokenised as in the release, with b'...', under nltk 3.4 to 3.8.1;
            bytes_glued: under nltk 3.2.5, 3.3 or 3.10.4; text: as they should be.
        dev_captions: For released checkpoints: use only the first captions of dev. The release uses 5000; 0 means all.
        evaluation_precision: For released checkpoints: precision of attention and ranks.
    """
    from uwml_lib.released.checkpoints import released_member
    from uwml_lib.runs.scoring import evaluate_members, evaluate_run, is_run, member_of
    from uwml_lib.support.files import lock

    expect(models, "models", "none", "run folders or released checkpoints; see uwml evaluate --help")
    options = {"captions": captions, "dev_captions": dev_captions, "evaluation_precision": evaluation_precision}
    given = {name: value for name, value in options.items() if value is not None}
    runs, folds = [is_run(path) for path in models], 5 if fold5 else 1
    if all(runs) and (given or fidelity == "released"):
        name = "fidelity" if fidelity == "released" else next(iter(given))
        raise UWMLError(f"{name}: is for what the release trained; runs of this kit are evaluated as they were trained")
    if runs == [True]:
        with lock(models[0]):
            return print_results(evaluate_run(models[0], split, data_root, folds), models[0])
    settings = {name: FIDELITY[fidelity][name] for name in EVALUATED} | given
    members = [
        member_of(path, data_root) if run else released_member(path, data_root, dataset, vocabulary, settings)
        for path, run in zip(models, runs, strict=True)
    ]
    kind = "" if all(runs) else f"-{members[0].config.fidelity}"
    return print_results(*evaluate_members(members, split, folds, kind))


def print_results(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Print the recalls of an evaluation, and return what a program may want of it."""
    from uwml_lib.datasets.loading import coverage_line
    from uwml_lib.evaluation.metrics import released_lines
    from uwml_lib.runs.run import Run

    run = Run.of(path.parent, results)
    metrics, folds = results["metrics"], results["fold_metrics"] if results["folds"] > 1 else []
    settings, members = run.config, results.get("members", ())
    about = f", mean of {len(folds)} folds of {counted(run.images_ranked, 'image')}" if folds else ""
    about += f", an ensemble of {len(members)} models" if len(members) > 1 else ""
    if "best_epoch" in results:
        about += f", best epoch {results['best_epoch']} ({settings.chosen_by} rsum {results['dev_rsum']:.1f})"
    print(f"{results['split']} split{about}:")
    for remark in _remarks(run):
        print(f"  {remark}")
    if covered := results.get("words_covered"):
        print(f"  {coverage_line(covered)}")
    if settings.fidelity != "corrected":
        print(f"  {settings.fidelity} fidelity: {', '.join(f'{name} {getattr(settings, name)}' for name in EVALUATED)}")
    _print_recalls(metrics)
    if any(results["ties"].values()):
        tied = " and ".join(f"{number} from {way.replace('_to_', ' to ')}" for way, number in results["ties"].items())
        print(f"  queries whose true match ties with a wrong item, which is ranked first: {tied}")
    if twins := results["metrics_if_twins_are_right"]:
        print("the same, if a caption is right for every image that has this very sentence:")
        _print_recalls(twins)
    print(f"in the lines of the released code:\n{released_lines(metrics, folds)}\n{path}")
    return {name: value for name, value in results.items() if name not in ("ranks", "files")} | {"path": str(path)}


def _print_recalls(metrics: dict[str, float]) -> None:
    for direction in ("image_to_text", "text_to_image"):
        recalls = ", ".join(f"R@{k} {metrics[f'{direction}_recall_at_{k}']:.1f}" for k in (1, 5, 10))
        median, mean = metrics[f"{direction}_median_rank"], metrics[f"{direction}_mean_rank"]
        print(f"  {direction.replace('_', ' ')}: {recalls}, median rank {median:.0f}, mean {mean:.1f}")
    print(f"  rsum {metrics['rsum']:.1f}")


def _remarks(run: "Run") -> Iterator[str]:
    """Say which model it is, and what must be known to read its recalls."""
    from uwml_lib.released.checkpoints import about_flags
    from uwml_lib.released.published import FOLD_IMAGES

    results = run.results
    regions = results["features"][results["split"]][1]
    pooled = run.config.model == "vse" and regions > 1
    yield run.model + (f", which takes the mean of an image's {regions} regions" if pooled else "")
    for member in results.get("members", ()):
        if remark := about_flags(member):
            yield f"{member['file']}: {remark}"
    if results["folds"] > 1 and run.images_ranked != FOLD_IMAGES:
        yield f"the folds are not MSCOCO's 1K, of {FOLD_IMAGES:,} images each: the fewer images, the higher the recalls"
    yield from run.remarks


def convert(checkpoint: Path, folder: Path, /, vocabulary: Path) -> None:
    """Convert a released checkpoint into a folder of this kit with safetensors weights; nothing in it is run.

    Args:
        checkpoint: model_best.pth.tar of the PolyLoss, SCAN or VSE++ release.
        folder: A new folder.
        vocabulary: NAME_vocab.json of the release, which the checkpoint was trained with.
    """
    from uwml_lib.datasets import Vocabulary
    from uwml_lib.released.checkpoints import about_flags, convert_released_checkpoint

    facts = convert_released_checkpoint(checkpoint, Vocabulary.load(vocabulary), folder)
    if remark := about_flags(facts):
        print(f"{checkpoint}: {remark}")
    print(folder)


def report(dataset: str = "scenes", publish: bool = False) -> dict[str, Any]:
    """Print the table of the first study that ran on a data set, and rebuild the site and published.md.

    Args:
        dataset: scenes, or another data set that a study has run on.
        publish: Copy the results into reports/reference, which holds the published results.
    """
    from uwml_lib.reports.published import publish_comparison
    from uwml_lib.runs.study_runs import load_study
    from uwml_lib.studies import STUDIES, build_pages
    from uwml_lib.studies.publish import publish as publish_studies
    from uwml_lib.support import paths

    name = next((name for name in STUDIES if (paths.RUNS / dataset / f"{name}.json").exists()), [*STUDIES][0])
    found = STUDIES[name].report(load_study(dataset, name))
    print(found.to_markdown())
    if publish:
        publish_studies(dataset, STUDIES)
    build_pages()
    publish_comparison()
    return found.data or {"table": found.table.reset_index().to_dict("records")}


def published() -> dict[str, Any]:
    """Print every published number beside your runs that match it, and write the table to reports/published.md."""
    from uwml_lib.reports.published import publish_comparison

    print(text := publish_comparison())
    return {"markdown": text}
