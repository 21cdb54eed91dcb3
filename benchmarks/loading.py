"""Loading batches of the size that MSCOCO and Flickr30K have: the kit's loader against the release's way, and a copy.

The release tokenises a caption whenever it is loaded, stacks and pads; the kit tokenises once. Features come from a
file in the SCAN layout that the system has in memory; reading from a disk comes on top. `python benchmarks/loading.py`
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from measuring import LOOK, arguments, peak_beyond_now, peak_memory, report, style, take_turns
from torch.utils.data import DataLoader

from uwml_lib.datasets import PrecomputedDataset, Vocabulary

IMAGES, CAPTIONS, REGIONS, FEATURES, BATCH, BATCHES = 512, 5, 36, 2048, 128, 8
NOUNS, VERBS = ("dog", "child", "woman", "player", "horse", "train"), ("sees", "follows", "holds", "passes")


def write(folder: Path) -> None:
    """Write a split with random features and captions of a dozen words."""
    generator = np.random.default_rng(0)
    shape = (IMAGES, REGIONS, FEATURES)
    features = np.lib.format.open_memmap(folder / "train_ims.npy", "w+", np.float32, shape)
    for row in features:
        row[:] = generator.random(row.shape, np.float32)
    nouns, verbs = (generator.choice(words, (IMAGES * CAPTIONS, 4)) for words in (NOUNS, VERBS))
    line = ", ".join("a {} {}" for _ in range(4)) + " it .\n"
    lines = (line.format(*np.stack(words, axis=1).flat) for words in zip(nouns, verbs, strict=True))
    (folder / "train_caps.txt").write_text("".join(lines))
    (folder / "train_ids.txt").write_text("".join(f"{image}\n" for image in range(IMAGES)))


def main() -> None:
    peak = arguments(__doc__).peak
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        captions = (Path(name) / "train_caps.txt").read_text().splitlines()
        vocabulary = Vocabulary.build(captions)
        dataset = PrecomputedDataset(name, "train", vocabulary)
        dataset.encoded  # noqa: B018 (once in a training, too)
        order = np.random.default_rng(1).permutation(len(dataset))[: BATCH * BATCHES].tolist()
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        loader = DataLoader(range(len(dataset)), batch_sampler=batches, collate_fn=dataset.batch)
        source = torch.from_numpy(np.array(dataset.features[: BATCH // 2]))
        target = torch.empty(BATCH, REGIONS, FEATURES)

        def kit() -> None:
            for _ in loader:
                pass

        def release() -> None:
            for batch in batches:
                items = []
                for index in batch:
                    ids = torch.tensor(vocabulary.encode(captions[index]))
                    items.append((torch.tensor(dataset.features[index // CAPTIONS]), ids))
                items.sort(key=lambda item: len(item[1]), reverse=True)
                torch.stack([image for image, _ in items])
                padded = torch.zeros(len(items), len(items[0][1]), dtype=torch.long)
                for row, (_, ids) in zip(padded, items, strict=True):
                    row[: len(ids)] = ids

        def copy() -> None:
            for _ in batches:
                target[: BATCH // 2].copy_(source)
                target[BATCH // 2 :].copy_(source)

        forms = {"kit": kit, "release": release, "copy": copy}
        if peak is not None:
            print(peak_beyond_now(forms[peak[0]]))
            return
        peaks = {name: peak_memory(name) for name in ("kit", "release")}
        seconds = {name: value / BATCHES for name, value in take_turns(forms).items()}
    rows = [
        {
            "loading": name,
            "milliseconds a batch": f"{1e3 * value:.1f}",
            "of a copy": f"{value / seconds['copy']:.1f}",
            "peak memory with the file, MB": f"{peaks[name] / 1e6:.0f}" if name in peaks else "–",
        }
        for name, value in seconds.items()
    ]
    with style():
        figure, axis = plt.subplots(figsize=(7, 2))
        colors = [LOOK[name]["color"] for name in ("kit", "loop", "floor")]
        bars = axis.barh(
            ["kit", "the release's way", "a copy"], [1e3 * value for value in seconds.values()], color=colors
        )
        axis.bar_label(bars, fmt="%.3g", padding=3)
        axis.set(xlabel="milliseconds a batch", title="Loading a batch")
        axis.invert_yaxis()
    report(
        "loading",
        f"Loading a batch of {BATCH} pairs, {REGIONS} regions of {FEATURES} numbers, in one process",
        rows,
        figure,
        "Bars of milliseconds a batch: the kit, the release's way and a bare copy of as many numbers.",
        "Copying features out of the mapped file into memory that is new; `--workers` does that in other processes.",
        seconds=seconds,
        peak_bytes=peaks,
    )


if __name__ == "__main__":
    main()
