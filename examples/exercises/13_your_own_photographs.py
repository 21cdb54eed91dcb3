"""The exercises of notebook 13, computed: `python examples/exercises/13_your_own_photographs.py`, or cell by cell."""

import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from uwml_lib.datasets import PrecomputedDataset
from uwml_lib.datasets.audit import audit
from uwml_lib.datasets.raw.grid_features import build_backbone
from uwml_lib.datasets.raw.pictures import write_pictures
from uwml_lib.evaluation import chance_rsum

# %% 1. What rsum do random scores get with 20 test photographs of five captions each, and with 1,000?
for n_images in (20, 1000):
    print(f"1. {n_images} photographs: {chance_rsum(n_images, 5):.1f}")

# %% Photographs made up: blurred noise, which a small model with random weights describes
work = Path(tempfile.mkdtemp())
torch.manual_seed(0)
torch.save(build_backbone("test_resnet", pretrained=False).model.state_dict(), weights := work / "random.pt")


def scene(number: int, step: float = 0.0) -> Image.Image:
    """A made-up photograph: one number is one scene; step: how far the light has changed since."""
    light = 40 * step * np.random.default_rng([number, 1]).normal(size=(4, 4, 3))
    pixels = np.random.default_rng(number).uniform(60, 190, (4, 4, 3)) + light
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)


def made(name: str, pictures: dict[str, Image.Image], lines: list[str]) -> Path:
    """A data set of pictures and lines of captions."""
    (work / name).mkdir()
    for file, picture in pictures.items():
        picture.save(work / name / file)
    (captions := work / f"{name}.tsv").write_text("".join(f"{line}\n" for line in lines))
    folder = work / f"{name}_data"
    options = {"backbone": "test_resnet", "weights": weights, "resolution": 96, "grid": 3}
    write_pictures(folder, work / name, captions, **options, say=lambda line: None)
    return folder


# %% 2. One photograph has two captions, all others have five
numbers = range(20)
split = {number: "train" if number < 14 else "dev" if number < 17 else "test" for number in numbers}
lines = [
    f"{number:02d}.png\tcaption {k} of {number}\t{split[number]}"
    for number in numbers
    for k in range(2 if number == 3 else 5)
]
folder = made("few", {f"{number:02d}.png": scene(number) for number in numbers}, lines)
for name in ("train", "dev"):
    print(f"2. {name}: {PrecomputedDataset(folder, name).captions_per_image} captions for each image")

# %% 3. Bursts of ten photographs of each scene, dealt at random or by bursts
order = [(burst, shot) for burst in range(20) for shot in range(10)]
pictures = {f"{burst:02d}_{shot}.png": scene(burst, step=1.0 + shot) for burst, shot in order}
pictures["again.png"] = pictures["00_0.png"]  # one real copy, which the audit sees
dealt = {False: "at random", True: "by bursts"}
for by_bursts, how in dealt.items():
    places = dict(zip(pictures, [*(burst for burst, _ in order), 0], strict=True))  # of which burst each is
    part = {burst: "train" if burst < 14 else "dev" if burst < 17 else "test" for burst in range(20)}
    splits = {name: part[burst] for name, burst in places.items()}
    if not by_bursts:
        shuffled = random.Random(0).sample([*splits.values()], len(splits))
        splits = dict(zip(splits, shuffled, strict=True))
    lines = [f"{name}\tscene {burst}\t{splits[name]}" for name, burst in places.items()]
    folder = made(how.replace(" ", "_"), pictures, lines)
    data = {name: PrecomputedDataset(folder, name) for name in ("train", "dev", "test")}
    counts = audit([*data.values()]).counts["test"]
    seen = {places[name] for name in data["train"].ids}
    known = sum(places[name] in seen for name in data["test"].ids)
    copies = counts["equal_images"]["train"] + counts["near_images"]["train"]
    print(f"3. {how}: {known} of {len(data['test'].ids)} test photographs are of a scene of train; seen: {copies}")
