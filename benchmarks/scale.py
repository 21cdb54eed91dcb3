"""Whether data of MSCOCO's size can be trained on and evaluated with one ordinary machine: memory and time, measured.

Makes a folder of that size in a temporary place; its features are sparse files, nearly all zeros that take no disk, so
what this leaves out is the disk. The trainer is the kit's own. In the evaluation images and captions are embedded as in
earnest, but scored by their means: cross attention is done for one block at a time, and the training step shows what
one takes. Linux alone says what this reads of memory. `python benchmarks/scale.py`: five minutes of a processor
"""

import argparse
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from torch import Tensor

from uwml_lib.config import preset
from uwml_lib.evaluation import retrieval_metrics, score_matrix
from uwml_lib.models import SCAN
from uwml_lib.support.files import make_folder, write_json
from uwml_lib.support.numerics import threads
from uwml_lib.training import Trainer

TRAIN_IMAGES, CAPTIONS, REGIONS, FEATURES = 113_287, 5, 36, 2048
WORDS, LENGTH = 10_000, 10  # distinct words, and words of a caption on average; MSCOCO has as many

STEPS_TRAINED = 3

Row = dict[str, Any]


class PooledSCAN(SCAN):
    """SCAN with cheap scores, which counts the images it embeds."""

    embedded = 0

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        self.embedded += len(features)
        return super().embed_images(features, counts)

    def scores(self, images: Tensor, captions: Tensor, lengths: Tensor | None = None) -> Tensor:
        return images.mean(dim=1) @ captions.mean(dim=1).T


def write_split(
    folder: Path, split: str, images: int, copies: int, every: int = 200, shape: tuple[int, int] = (REGIONS, FEATURES)
) -> None:
    """Write a split with every image stored `copies` times; one in `every` has numbers, in its first region.

    shape: regions, and numbers of each.
    """
    generator = np.random.default_rng(0)
    features = np.lib.format.open_memmap(folder / f"{split}_ims.npy", "w+", np.float32, (images * copies, *shape))
    for row in range(0, len(features), every * copies):
        features[row : row + copies, 0] = generator.normal(size=shape[1])
    words = np.array(["".join(generator.choice(list("aeiklmnorst"), 6)) for _ in range(WORDS)])
    lengths = generator.integers(LENGTH // 2, LENGTH + LENGTH // 2, images * CAPTIONS, endpoint=True)
    chosen = np.minimum(generator.pareto(0.7, lengths.sum()), WORDS - 1).astype(int)  # few words are most of a text
    text = np.split(words[chosen], lengths.cumsum()[:-1])
    commas = generator.random(len(text)) < 0.1  # one caption in ten is more than words
    lines = [(", " if comma else " ").join(line) + " .\n" for line, comma in zip(text, commas, strict=True)]
    (folder / f"{split}_caps.txt").write_text("".join(lines), encoding="utf-8")
    ids = (f"{image}\n" * copies for image in range(images))
    (folder / f"{split}_ids.txt").write_text("".join(ids), encoding="utf-8")


def memory_in_use() -> float:
    """GB of anonymous and shared memory of this process and its workers; what they share counts for each of them."""
    kilobytes = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
    return kilobytes * 1024 / 1e9


@contextlib.contextmanager
def measured(rows: list[Row], what: str, repeats: int = 1) -> Iterator[Row]:
    """Append a row that has the seconds of each repeat, and the memory in use before and at the peak, looked up all the
    while.
    """
    row: Row = {"what": what, "before_gb": memory_in_use(), "peak_gb": 0.0}
    done = threading.Event()

    def look() -> None:
        while True:
            row["peak_gb"] = max(row["peak_gb"], memory_in_use())
            if done.wait(0.02):
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    started = time.monotonic()
    try:
        yield row
    finally:
        row["seconds"] = (time.monotonic() - started) / repeats
        done.set()
        watcher.join()
    rows.append(row)


def measure(folder: Path, dev_images: int, width: int, steps: int, workers: list[int]) -> list[Row]:
    """Write a data set of this size into `folder`, and train and evaluate on it."""
    rows: list[Row] = []
    write_split(folder, "train", TRAIN_IMAGES, copies=1)
    write_split(folder, "dev", dev_images, copies=CAPTIONS)
    for number in workers:
        config = preset(folder.name, data_root=str(folder.parent), embed_size=width, workers=number, device="cpu")
        with measured(rows, f"start, {number} workers: vocabulary, captions to numbers, model"):
            trainer = Trainer(config, folder.parent / f"run-{number}")
        with measured(rows, f"loader step, {number} workers (mean of {steps})", steps):
            for _ in islice(trainer.loader, steps):
                pass
    batch = next(iter(trainer.loader))
    with measured(rows, f"training step, width {width} (mean of {STEPS_TRAINED})", STEPS_TRAINED):
        for _ in range(STEPS_TRAINED):
            trainer.step(batch, trainer.loss)
    model = PooledSCAN.from_config(config, trainer.train_set.feature_dim, len(trainer.vocabulary))
    dev = trainer.selection_set
    del trainer, batch
    with measured(rows, f"embed and score {dev_images:,} images x {len(dev):,} captions, width {width}") as row:
        scores = score_matrix(model, dev)
    row["images_embedded"] = model.embedded
    with measured(rows, "rank them"):
        retrieval_metrics(scores, dev.captions_per_image)
    return rows


def table(rows: list[Row], dev_images: int, width: int) -> str:
    """What was measured, as Markdown, and how much one copy of the images would be."""
    lines = ["| what | seconds | memory before, GB | at the peak, GB |", "|:--|--:|--:|--:|"]
    lines += [
        f"| {row['what']} | {row['seconds']:.3g} | {row['before_gb']:.2f} | {row['peak_gb']:.2f} |" for row in rows
    ]
    one, embedded = (dev_images * REGIONS * size * 4 / 1e9 for size in (FEATURES, width))
    (images,) = (row["images_embedded"] for row in rows if "images_embedded" in row)
    whole = TRAIN_IMAGES * REGIONS * FEATURES * 4 / 1e9
    note = f"""
Memory: anonymous and shared, over all processes; what is mapped from disk, as the features are, is not in it.
{TRAIN_IMAGES:,} training images are {whole:.1f} GB. For the evaluation {images:,} images were embedded; one copy
of them is {one:.2f} GB as features, of which the file holds five, and {embedded:.2f} GB embedded."""
    return "\n".join([*lines, note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of the loader")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="numbers of loader processes to try")
    parser.add_argument("--width", type=int, default=1024, help="width of the model")
    parser.add_argument("--dev-images", type=int, default=5000, help="images of the evaluation, five captions each")
    parser.add_argument("--output", type=Path, help="JSON file for what was measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, threads(1):  # as many as a training has by default
        data = make_folder(Path(folder) / "coco_precomp")
        rows = measure(data, options.dev_images, options.width, options.steps, options.workers)
    print(table(rows, options.dev_images, options.width))
    if options.output:
        write_json(options.output, rows)


if __name__ == "__main__":
    main()
