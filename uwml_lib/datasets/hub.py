"""Flickr8k and Flickr30K from the Hugging Face hub: photographs, captions, splits, and features made of them here."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from uwml_lib.config import BACKBONE
from uwml_lib.datasets.download import ARRIVALS, KEPT, bars, bytes_in, check_space, lacks
from uwml_lib.datasets.raw.grid_features import grid_model
from uwml_lib.datasets.raw.photographs import CAPTIONS, Photograph, read_archive, read_parquet, write_photographs
from uwml_lib.datasets.raw.pictures import KINDS, PICTURES, write_pictures
from uwml_lib.support.errors import UWMLError, expect
from uwml_lib.support.files import make_folder, read_json, sha256_of, writing
from uwml_lib.support.progress import Say, duration, say


class Repository(NamedTuple):
    """A data set on the hub: size in bytes of its files; split -> images that it should have; what reads the files."""

    name: str
    revision: str
    files: tuple[str, ...]
    size: int
    images: dict[str, int]
    read: Callable[[list[Path]], Iterator[Photograph]]

    @property
    def page(self) -> str:
        return f"https://huggingface.co/datasets/{self.name}"


# What is on the hub, all in one place, and UNVERIFIED HERE: it could not be reached while this was written. Names,
# revisions, sizes, columns and numbers of images are pieced together from public code and pages that name them, such as
# the hub's own file lists at these revisions. That `raw` is JSON is from the repository's own loader; the paths of
# Flickr8k's pictures may be empty, and are then made of the file's name and the row.
ON_THE_HUB = {
    "flickr8k": Repository(
        "jxie/flickr8k",
        "56f58c967835f7c508d684f36bd7897cca9d7634",
        (
            "data/test-00000-of-00001-42a2661d12c73e48.parquet",
            "data/validation-00000-of-00001-7025a2b596f14b7b.parquet",
            "data/train-00000-of-00002-2f8f6bfa852eac4b.parquet",
            "data/train-00001-of-00002-2173151d8cd6c7fb.parquet",
        ),
        1_103_000_000,
        {"train": 6_000, "dev": 1_000, "test": 1_000},
        read_parquet,
    ),
    "flickr30k": Repository(
        "nlphuji/flickr30k",
        "2b239befc81b6e3f035ce6bd52f5f4d60f5625f7",
        ("flickr30k-images.zip", "flickr_annotations_30k.csv"),
        4_403_000_000,
        {"train": 29_000, "dev": 1_014, "test": 1_000},
        read_archive,
    ),
}
IMAGES, CAPTION_FILE = "images", "captions.jsonl"
SECONDS_AN_IMAGE = 1.5
"""Measured on one core with the backbone that is taken where none is named."""
MEND = "mend the names in uwml_lib/datasets/hub.py"
TERMS = "photographs from Flickr, which belong to those who took them: for research alone, and not to be passed on"


def lacks_photographs(folder: Path) -> str:
    """Return the first file that a training needs and the folder lacks; test is needed only while work goes on here."""
    wanted = [f"test_{kind}" for kind in ("caps.txt", "ims.npy")] if (folder / ARRIVALS).exists() else []
    return lacks(folder) or next((name for name in wanted if not (folder / name).exists()), "")


def photographs_by_hand(dataset: str, folder: Path) -> str:
    """Say which files to fetch from which page, and where to put them."""
    source = ON_THE_HUB[dataset]
    return (
        f"By hand: fetch {', '.join(source.files)} from {source.page}/tree/{source.revision}, put them into "
        f"{folder / ARRIVALS}, and give the same command again"
    )


def fetch_photographs(
    dataset: str, folder: Path, backbone: str | None = None, weights: Path | None = None, say: Say = say
) -> None:
    """Make a data set's folder of photographs from the hub: `images/`, `captions.jsonl`, and the SCAN layout.

    Hold the folder's lock. Called again after an interruption it goes on where it stopped, at any step. backbone and
    weights: as of `write_pictures`. Raises UWMLError where a package, the weights or room are lacking, the hub cannot
    be reached or refuses, or what came is not what was expected.
    """
    began, source, arrivals = time.perf_counter(), ON_THE_HUB[dataset], make_folder(folder) / ARRIVALS
    for package in ("huggingface_hub", "pyarrow"):
        if find_spec(package) is None:
            install = "`make setup`, or pip install '/path/to/the/kit[data,vision]'"
            raise UWMLError(f"photographs from the hub need {package}: {install}")
    n_images, new, resolution = sum(source.images.values()), not (folder / IMAGES).exists(), None
    if backbone is None and weights is None:
        backbone, resolution, weights = _begun(folder)
    if new:
        say(f"{dataset}: {TERMS}")
    if backbone is None:
        say(
            f"features by {BACKBONE}: {duration(n_images * SECONDS_AN_IMAGE)} on one core without a graphics card, "
            f"a tenth of that with `uwml data --dataset {dataset} --backbone resnet50.tv_in1k`"
        )
    regions, dim = grid_model(weights, backbone, resolution).shape  # before gigabytes come: its weights may be lacking
    if new:
        features = n_images * regions * dim * 4
        why = f"the files, the photographs in them, and {features / 1e9:.1f} of features"
        check_space(folder, source.page, source.size, 2 * source.size + features - bytes_in(folder), why, say)
        try:
            files = _bring(source, arrivals, say)
        except UWMLError as error:
            said = str(error).removesuffix(".")
            raise UWMLError(f"{said}. {photographs_by_hand(dataset, folder)}") from error
        say(f"unpacking into {folder / IMAGES}")
        images, captions = folder / IMAGES, folder / CAPTION_FILE
        write_photographs(source.read(files), arrivals / IMAGES, images, captions, source.images, say)
    expect((folder / CAPTION_FILE).exists(), folder, f"{IMAGES} without {CAPTION_FILE}", f"both; move {IMAGES} away")
    write_pictures(
        folder, folder / IMAGES, folder / CAPTION_FILE, backbone=backbone, resolution=resolution, weights=weights,
        captions_per_image=CAPTIONS, say=say,
    )  # fmt: skip
    shutil.rmtree(arrivals, ignore_errors=True)
    say(f"{dataset}: done in {duration(time.perf_counter() - began)}; the photographs stay in {folder / IMAGES}")


def _begun(folder: Path) -> tuple[str | None, int | None, Path | None]:
    """Return backbone, resolution and weights of the features that an earlier call began, or three times None."""
    if not (notes := folder / PICTURES).exists():
        return None, None, None
    about = read_json(notes)
    file = about.get("weights", KINDS["grid"].downloaded)
    weights = None if file == KINDS["grid"].downloaded else Path(file)
    return about.get("backbone"), about.get("resolution"), weights


def check_backbone(folder: Path, backbone: str | None, weights: Path | None = None) -> None:
    """Raise UWMLError if the features of a folder were made by another backbone, or by other weights than a file's."""
    about, away = read_json(folder / PICTURES), "move *_ims.npy and *_boxes.npy away to have them made"
    wanted, made_by = backbone or BACKBONE, about.get("backbone")
    expect(made_by == wanted, folder, f"features by {made_by}", f"those by {wanted}; {away}")
    same = not weights or grid_model(weights, backbone).digest == about.get("digest")
    expect(same, folder, "features by other weights", f"those of {weights}; {away}")


def _bring(source: Repository, arrivals: Path, say: Say) -> list[Path]:
    """Bring the files that are not there yet, and return where all of them lie; what is there is not asked for."""
    paths = [make_folder(arrivals) / PurePosixPath(name).name for name in source.files]
    if missing := [(name, path) for name, path in zip(source.files, paths, strict=True) if not path.exists()]:
        from huggingface_hub import HfApi

        with _causes(source.name, source):
            api = HfApi(endpoint=_endpoint())
            found = api.dataset_info(source.name, revision=source.revision, files_metadata=True).siblings or []
        listed = {file.rfilename: file for file in found}
        for number, (name, path) in enumerate(missing, 1):
            there = ", ".join(listed) or "no files"
            expect(name in listed, f"{source.name} at {source.revision}", there, f"{name}; {MEND}")
            say(f"{number}/{len(missing)} {path.name}, {(listed[name].size or 0) / 1e9:.2f} GB")
            _fetch(source, listed[name], path)
    return paths


def _fetch(source: Repository, file: Any, path: Path) -> None:
    """Download one file, going on where an earlier attempt stopped, and check it by its SHA-256.

    `hf_hub_download` throws away what an interrupted process had, so the step below it is taken.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(
        source.name, file.rfilename, repo_type="dataset", revision=source.revision, endpoint=_endpoint()
    )  # fmt: skip
    part = path.with_name(f"{path.name}.part")
    beyond = part.exists() and file.size and part.stat().st_size > file.size  # of another file, then
    with _causes(path.name, source), bars(), open(part, "wb" if beyond else "ab") as out:
        http_get(url, out, resume_size=out.tell(), headers=build_hf_headers(), expected_size=file.size)
        out.flush()
        os.fsync(out.fileno())
    wanted = file.lfs.sha256 if file.lfs else None
    if wanted and (found := sha256_of(part)) != wanted:
        part.unlink()
        said = f"what the hub sent is damaged and was removed (SHA-256 {found}, expected {wanted})"
        raise UWMLError(f"{path.name}: {said}; the same command fetches it again")
    with writing(path):
        os.replace(part, path)


def _endpoint() -> str | None:
    """Return a mirror of the hub, if one is named; the library reads the variable only once, when it is imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@contextlib.contextmanager
def _causes(what: str, source: Repository) -> Iterator[None]:
    """Turn what goes wrong while the hub is asked for something into a sentence."""
    import httpx2  # what huggingface_hub speaks through
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        reason = _reason(error.response.status_code, what, source)
        raise UWMLError(f"{what}: {reason}. {KEPT}") from error
    except (httpx2.HTTPError, ConnectionError) as error:
        reason = f"the hub cannot be reached, or the connection broke ({type(error).__name__})"
        raise UWMLError(f"{what}: {reason}. {KEPT}") from error
    except OSError as error:
        first = str(error).partition("\n")[0]
        reason = f"cannot be written ({error.strerror})" if error.strerror else f"did not come whole ({first})"
        raise UWMLError(f"{what}: {reason}. {KEPT}") from error
    except ValueError as error:
        reason = f"found an answer that is no list of files ({error}), expected the hub's"
        raise UWMLError(f"{what}: {reason}; check HF_ENDPOINT and what stands between. {KEPT}") from error


def _reason(status: int, what: str, source: Repository) -> str:
    if status in (401, 403):
        token = "make a token at https://huggingface.co/settings/tokens and set HF_TOKEN to it"
        return f"the hub refuses ({status}): look at {source.page}, accept the conditions there if it has some, {token}"
    if status == 404:
        return f"the hub has no such thing in {source.name} at {source.revision} (404); {MEND}"
    return f"the hub answers {status}; try again later"
