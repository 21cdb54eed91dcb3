"""Videos with captions in JSON as of MSR-VTT, and a file of frame features each, to the SCAN layout.

Videos differ in length: `{split}_ims.npy` has the frames of all videos of a split, one after the other, and
`{split}_offsets.npy` says where each video's begin and end.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from uwml_lib.datasets.batches import finite_float32
from uwml_lib.datasets.raw import items
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import atomic_path, load_array, lock, read_json
from uwml_lib.support.progress import Say, progress, say


def write_videos(
    folder: Path, features: Path, jsons: Sequence[Path], /, captions_per_video: int = 0, say: Say = say
) -> None:
    """Write the captions, ids and frame features of every split, from JSON files like MSR-VTT's and a file a video.

    The features go to `{split}_ims.npy` (all frames, dim) float32 and `{split}_offsets.npy` (n + 1,) int64. One video
    at a time is in memory. What is there already is compared and left alone, so after a kill the same call goes on.
    Only numbers that are not finite are found after captions and ids are written.

    Args:
        folder: The data set's folder, such as data/msrvtt.
        features: A folder with VIDEO_ID.npy (frames, dim) for each video.
        jsons: The JSON files; MSR-VTT has one for train and validate, and one for test.
        captions_per_video: Captions of each video, the first ones; 0: as many as all videos of its split have.

    Raises:
        UWMLError: The file and the place are named, or the videos listed.
    """
    expect(jsons, "JSON", "no file", "at least one")
    expect(captions_per_video >= 0, "captions_per_video", captions_per_video, "at least 1, or 0 for the fewest")
    source = ", ".join(path.name for path in jsons)
    splits = _read_splits({path: read_json(path) for path in jsons}, source, captions_per_video, say)
    shapes = _read_shapes(features, [video for videos in splits.values() for video in videos])
    with lock(folder, say):
        items.write_items(folder, splits, source)
        for split, videos in splits.items():
            offsets = np.cumsum([0, *(shapes[video][0] for video in videos)], dtype=np.int64)
            _write(folder / f"{split}_offsets.npy", offsets.shape, offsets.dtype, [offsets])
            shape = int(offsets[-1]), shapes[next(iter(videos))][1]
            frames = (_read_frames(features, video) for video in progress(videos, f"{split}: videos"))
            _write(folder / f"{split}_ims.npy", shape, np.dtype("<f4"), frames)
            say(f"{split}: {len(videos):,} videos, {shape[0]:,} frames of {shape[1]:,} numbers")


def _read_splits(contents: dict[Path, Any], source: str, captions_per_video: int, say: Say) -> items.Splits:
    """Return split -> its videos in the order of the files -> as many captions of each; sentences may be anywhere."""
    split_of: dict[str, str] = {}
    places: dict[str, str] = {}
    for path, content in contents.items():
        for where, entry in items.read_entries(path, content, "videos"):
            video: Any = entry.get("video_id")
            a_name = isinstance(video, str) and video.isprintable() and video.strip() and not {*"/\\"} & {*video}
            items.expect_value(a_name, f"{where}: video_id", video, "the name of VIDEO_ID.npy")
            split_of[video] = items.split_of(video, where, places, entry)
    splits: items.Splits = {}
    captions: dict[str, list[str]] = {}
    for video, split in split_of.items():
        captions[video] = splits.setdefault(split, {})[video] = []
    for path, content in contents.items():
        for where, sentence in items.read_entries(path, content, "sentences"):
            video = sentence.get("video_id")
            known = isinstance(video, str) and video in captions
            items.expect_value(known, f"{where}: video_id", video, f"that of a video of {source}")
            captions[video].append(items.caption_line(f"{where}, {video}: caption", sentence.get("caption")))
    return items.first_captions(source, splits, captions_per_video, "video", say)


def _read_shapes(features: Path, videos: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the frames of each video, and the numbers a frame, which must be the same in all."""
    if missing := [video for video in videos if not (features / f"{video}.npy").exists()]:
        raise UWMLError(items.listing(features, missing, len(videos), "video", "have no file"))
    shapes: dict[str, tuple[int, int]] = {}
    for video in progress(videos, "videos: shapes"):
        path = features / f"{video}.npy"
        frames, dim = load_array(path, 2).shape
        shapes[video] = frames, dim
        expected = shapes[videos[0]][1]
        expect(dim == expected, path, f"{dim:,} numbers a frame", f"{expected:,} as in {videos[0]}.npy")
    return shapes


def _read_frames(features: Path, video: str) -> np.ndarray:
    path = features / f"{video}.npy"
    return finite_float32(np.array(load_array(path, 2)), f"{path}: frame").numpy()


def _write(path: Path, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable[np.ndarray]) -> None:
    """Write an array block by block, or compare it with what is there."""
    if not path.exists():
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(block.astype(dtype).tobytes())
        return
    there = load_array(path, len(shape))
    if there.shape != shape or not all(map(np.array_equal, there, chain.from_iterable(blocks))):
        raise UWMLError(f"{path}: found other numbers than these files give; move it away, or choose another folder")
