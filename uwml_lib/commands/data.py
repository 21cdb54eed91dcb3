"""`uwml data`: is a data set here, and what is in it."""

from dataclasses import replace
from typing import Any

from uwml_lib.config import preset
from uwml_lib.datasets import captions_there, check_data, prepare_data
from uwml_lib.support.progress import counted


def data(dataset: str = "scenes", data_root: str = "") -> dict[str, Any]:
    """Build or download a data set where it is not here, check it, and print what is in it.

    Args:
        dataset: scenes, clips, scenes_smoke, clips_smoke (built), f30k_precomp, coco_precomp (from Kaggle), or the name
            of a folder in the SCAN layout.
        data_root: Folder that holds the data set's folder; empty means data/.
    """
    config = preset(dataset, data_root=data_root)
    prepare_data(config, fetch=True)
    splits = {}
    for split in check_data(replace(config, captions=captions_there(config.data_folder))):
        n_images, regions, dim = split.features.shape
        fewest, captions = int(split.counts(range(n_images)).min()), split.captions_per_image
        of_regions = counted(regions, "region") if fewest == regions else f"{fewest} to {regions} regions"
        each = f"{counted(captions, 'caption')} each"
        print(f"{split.split}: {counted(n_images, 'image')} of {of_regions} x {counted(dim, 'number')}, {each}")
        splits[split.split] = {"images": n_images, "regions": regions, "dim": dim, "captions_per_image": captions}
    return {"folder": str(config.data_folder), "splits": splits}
