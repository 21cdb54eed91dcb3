"""From a configuration to its data."""

from difflib import get_close_matches
from pathlib import Path

from uwml_lib.config import PRESETS, ExperimentConfig
from uwml_lib.datasets.download import FILES, download, how_to_get, lacks
from uwml_lib.datasets.precomputed import PrecomputedDataset, check_same_shape, evaluation_split
from uwml_lib.datasets.scenes import SCENES, build_scenes, is_current
from uwml_lib.datasets.vocabulary import Vocabulary
from uwml_lib.errors import UWMLError
from uwml_lib.files import lock
from uwml_lib.progress import Say, say


def prepare_data(config: ExperimentConfig, say: Say = say, fetch: bool = False) -> Path:
    """Return the data set's folder, building an embedded data set if need be; raises UWMLError if there is none.

    fetch: also download what can be, which is many gigabytes, and so not for a training to begin by surprise.
    """
    if config.dataset in SCENES and not config.data_root:
        settings = SCENES[config.dataset]
        if not is_current(config.data_folder, settings):  # else trainings side by side would wait for each other
            with lock(config.data_folder, say):
                build_scenes(config.data_folder, settings, say)
    elif config.dataset in FILES and (name := lacks(config.dataset, config.data_folder)):
        if not fetch:
            raise UWMLError(
                f"{config.data_folder / name}: no such file; {how_to_get(config.dataset, config.data_root)}, "
                "and data/README.md says how to do so by hand"
            )
        with lock(config.data_folder, say):
            download(config.dataset, config.data_folder, say)
    if not config.data_folder.is_dir():
        near = get_close_matches(config.dataset, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near and near[0] != config.dataset else ""
        raise UWMLError(
            f"{config.data_folder}: no such folder; expected {config.dataset} in the SCAN layout "
            "({split}_ims.npy and {split}_caps.txt)" + hint
        )
    return config.data_folder


def check_data(config: ExperimentConfig, scan: bool = True) -> list[PrecomputedDataset]:
    """Return the splits that a training uses; raises UWMLError for what cannot be used.

    scan: also look at every feature, which takes as long as reading them.
    """
    folder = config.data_folder
    splits = [load_split(config, split) for split in dict.fromkeys(("train", "dev", evaluation_split(folder)))]
    check_same_shape(*splits)
    for split in splits if scan else ():
        split.scan()
    return splits


def load_split(config: ExperimentConfig, split: str, vocabulary: Vocabulary | None = None) -> PrecomputedDataset:
    """Load a split of a configuration's data set; raises UWMLError, naming the file, for what cannot be used."""
    return PrecomputedDataset(config.data_folder, split, vocabulary, config.max_images, config.regions)
