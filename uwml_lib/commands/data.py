"""`uwml data`: is a data set here, and what is in it."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from uwml_lib.config import preset
from uwml_lib.datasets import build_vocabulary, captions_there, check_data, fingerprint, prepare_data
from uwml_lib.datasets.audit import audit, save_audit
from uwml_lib.datasets.hub import ON_THE_HUB, check_backbone
from uwml_lib.datasets.loading import coverage_line, words_covered
from uwml_lib.support.errors import expect
from uwml_lib.support.progress import counted


def data(
    dataset: str = "scenes", data_root: str = "", backbone: str | None = None, weights: Path | None = None
) -> dict[str, Any]:
    """Build or download a data set if it is missing, check it, and print what is in it.

    Images and captions are compared, across splits and within each. A table counts copies, empty rows and odd
    captions, and each finding is a warning. Trainings on the same data note the findings in their provenance.

    Args:
        dataset: scenes, clips, scenes_smoke, clips_smoke (built), flickr8k, flickr30k (photographs, from the Hugging
            Face hub), f30k_precomp, coco_precomp (from Kaggle), or the name of a folder in the SCAN layout.
        data_root: Folder that holds the data set's folder; empty means data/.
        backbone: The model of timm that makes features of the photographs of flickr8k and flickr30k. The default is
            that of `uwml pictures`. It takes a second and a half for a picture on one core, ten times as long as
            resnet50.tv_in1k.
        weights: A file of weights for the backbone, .safetensors or a state dict of torch, instead of a download.
    """
    if backbone or weights:
        expect(dataset in ON_THE_HUB, "backbone, weights", f"the data set {dataset}", f"one of {', '.join(ON_THE_HUB)}")
    config = preset(dataset, data_root=data_root, selection_images=0)  # these too are looked at
    folder = prepare_data(config, fetch=True, backbone=backbone, weights=weights)
    if backbone or weights:
        check_backbone(folder, backbone, weights)
    config = replace(config, captions=captions_there(folder))
    splits = check_data(config, scan=False)
    described = {}
    for split in splits:
        n_images, regions, dim = split.features.shape
        fewest, captions = int(split.counts(range(n_images)).min()), split.captions_per_image
        of_regions = counted(regions, "region") if fewest == regions else f"{fewest} to {regions} regions"
        each = f"{counted(captions, 'caption')} each"
        print(f"{split.split}: {counted(n_images, 'image')} of {of_regions} x {counted(dim, 'number')}, {each}")
        described[split.split] = {"images": n_images, "regions": regions, "dim": dim, "captions_per_image": captions}
    covered: dict[str, float] = {}
    if config.captions == "text":
        vocabulary = build_vocabulary(folder)
        for split in splits:
            split.vocabulary = vocabulary
        covered = words_covered({split.split: split for split in splits})
        print(f"{coverage_line(covered)}; it has {len(vocabulary):,}")
    found = audit(splits)
    save_audit(found, fingerprint(folder, config.captions))
    print(found)
    return {"folder": str(folder), "splits": described, "words_covered": covered, "audit": asdict(found)}
