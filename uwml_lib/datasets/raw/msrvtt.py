"""Videos with captions in JSON as of MSR-VTT, and a file of frame features each, to the SCAN layout.

Videos differ in length: `{split}_ims.npy` has the frames of all videos of a split, one after the other, and
`{split}_offsets.npy` says where each video's begin and end.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uwml_lib.datasets.raw.items import Item, caption_of, listed, names, read_entries, shown, write_items
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import atomic_path, load_array, lock, read_json
from uwml_lib.support.progress import Say, progress, say

SPLITS = {"train": "train", "validate": "dev", "test": "test"}
"""Split in the JSON -> split of the SCAN layout."""


def write_videos(
    folder: Path, features: Path, jsons: Sequence[Path], /, captions_per_video: int = 0, say: Say = say
) -> None:
    """Write the captions, ids and frame features of every split, from JSON files like MSR-VTT's and a file a video.

    The features go to `{split}_ims.npy` (all frames, dim) float32 and `{split}_offsets.npy` (n + 1,) int64. One video
    at a time is in memory. A split that is there already is compared and left alone, so after a kill the same call goes
    on. Only numbers that are not finite are found after captions and ids are written.

    Args:
        folder: The data set's folder, such as data/msrvtt.
        features: A folder with VIDEO_ID.npy (frames, dim) for each video.
        jsons: The JSON files; MSR-VTT has one for train and validate, and one for test.
        captions_per_video: How many captions of each video to take, the first ones; 0: as many as the video with the
            fewest has.

    Raises:
        UWMLError: The file and the place are named, or the videos listed.
    """
    splits = read_msrvtt(jsons, captions_per_video, say)
    lengths, dim = _read_shapes(features, [video.id for videos in splits.values() for video in videos])
    with lock(folder, say):
        write_items(folder, splits, names(jsons))
        for split, videos in splits.items():
            offsets = np.cumsum([0, *(lengths[video.id] for video in videos)], dtype=np.int64)
            _write_offsets(folder / f"{split}_offsets.npy", offsets)
            _write_frames(folder / f"{split}_ims.npy", features, videos, offsets, dim)
            say(f"{split}: {len(videos):,} videos, {offsets[-1]:,} frames of {dim:,} numbers")


def read_msrvtt(jsons: Sequence[Path], captions_per_video: int = 0, say: Say = say) -> dict[str, list[Item]]:
    """Return split -> its videos in the order of the JSON files, all with the same number of captions.

    Raises UWMLError, naming the file and the place, for what has another shape, and listing the videos that have no
    sentence, or fewer than asked for.
    """
    if not jsons:
        raise UWMLError("JSON: found no file, expected at least one")
    if captions_per_video < 0:
        raise UWMLError(f"captions_per_video: found {captions_per_video}, expected at least 1, or 0 for the fewest")
    contents = {path: read_json(path) for path in jsons}
    videos: dict[str, tuple[str, Item]] = {}
    places: dict[str, str] = {}
    for path, content in contents.items():
        for where, entry in read_entries(path, content, "videos"):
            name = _video_id(where, entry)
            if (first := places.setdefault(name, where)) != where:
                raise UWMLError(f"{where} and {first} are both {name}, expected each video once")
            if (split := entry.get("split")) not in list(SPLITS):
                raise UWMLError(f"{where}, {name}: split: found {shown(split)}, expected one of {', '.join(SPLITS)}")
            videos[name] = (SPLITS[split], Item(name, []))
    for path, content in contents.items():
        for where, sentence in read_entries(path, content, "sentences"):
            video_id = sentence.get("video_id")
            if not isinstance(video_id, str) or video_id not in videos:
                raise UWMLError(
                    f"{where}: video_id: found {shown(video_id)}, expected that of a video of {names(jsons)}"
                )
            videos[video_id][1].captions.append(caption_of(f"{where}, {video_id}", sentence, "caption"))
    counts = {name: len(video.captions) for name, (_, video) in videos.items()}
    _refuse(jsons, videos, [name for name, count in counts.items() if not count], "have no sentence")
    taken = captions_per_video or min(counts.values())
    few = [name for name, count in counts.items() if count < taken]
    _refuse(jsons, videos, few, f"have fewer than {taken} sentences (--captions-per-video takes another number)")
    left_out = sum(counts.values()) - taken * len(counts)
    say(f"captions of each of the {len(counts):,} videos: {taken}; left out: {left_out:,}")
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS.values()}
    for split, video in videos.values():
        splits[split].append(Item(video.id, video.captions[:taken]))
    return {split: some for split, some in splits.items() if some}


def _refuse(jsons: Sequence[Path], videos: Collection[str], some: Sequence[str], what: str) -> None:
    if some:
        raise UWMLError(f"{names(jsons)}: {len(some):,} of the {len(videos):,} videos {what}: {listed(some)}")


def _video_id(where: str, entry: dict[str, Any]) -> str:
    """Return the id, which is also the name of a file."""
    name = entry.get("video_id")
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or set("/\\") & set(name):
        raise UWMLError(f"{where}: video_id: found {shown(name)}, expected the name of VIDEO_ID.npy")
    return name


# Features


def _read_shapes(features: Path, ids: Sequence[str]) -> tuple[dict[str, int], int]:
    """Return the frames of each video, and the numbers a frame, which must be the same in all."""
    if missing := [name for name in ids if not (features / f"{name}.npy").exists()]:
        raise UWMLError(f"{features}: {len(missing):,} of the {len(ids):,} videos have no file: {listed(missing)}")
    lengths, dim = {}, 0
    for name in progress(ids, "videos: shapes"):
        path = features / f"{name}.npy"
        frames, numbers = load_array(path, dimensions=2).shape
        dim = dim or numbers
        if numbers != dim:
            raise UWMLError(f"{path}: found {numbers:,} numbers a frame, expected {dim:,} as in {ids[0]}.npy")
        lengths[name] = frames
    return lengths, dim


def _read_frames(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read the features of a video, float32; raises UWMLError naming the frame if one is not finite."""
    array = load_array(path, dimensions=2)
    if array.shape != shape:
        raise UWMLError(f"{path}: found {array.shape}, expected {shape} as a moment ago; was it changed?")
    with np.errstate(over="ignore"):
        frames = array.astype("<f4")
    if not (finite := np.isfinite(frames).all(axis=1)).all():
        raise UWMLError(
            f"{path}: frame {finite.argmin()} (counted from 0) holds NaN, infinity or what is too large for float32, "
            "expected finite numbers"
        )
    return frames


def _write_offsets(path: Path, offsets: np.ndarray) -> None:
    if not path.exists():
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, offsets)
    elif not np.array_equal(load_array(path, dimensions=1), offsets):
        _refuse_other(path)


def _write_frames(path: Path, features: Path, videos: Sequence[Item], offsets: np.ndarray, dim: int) -> None:
    """Write the frames of a split one video after the other, or compare them with what is there."""
    shape = (int(offsets[-1]), dim)
    blocks = (
        (start, _read_frames(features / f"{video.id}.npy", (int(stop - start), dim)))
        for video, start, stop in zip(progress(videos, f"{path.name}: videos"), offsets, offsets[1:], strict=False)
    )
    if path.exists():
        array = load_array(path, dimensions=2)
        if array.shape != shape or not all(np.array_equal(array[at : at + len(x)], x) for at, x in blocks):
            _refuse_other(path)
        return
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for _, frames in blocks:
            file.write(frames.tobytes())


def _refuse_other(path: Path) -> None:
    raise UWMLError(f"{path}: found other numbers than these files give; move it away, or choose another folder")
