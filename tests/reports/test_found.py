"""The page of what a search found: pictures inside it, words escaped, nothing fetched."""

import base64
import html
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.tiny import make_varying, write_tiny
from uwml_lib.config import ExperimentConfig
from uwml_lib.datasets import load_split
from uwml_lib.reports.site import found as page
from uwml_lib.reports.site.found import write_page
from uwml_lib.runs.search import Match, Matches
from uwml_lib.support.errors import UWMLError
from uwml_lib.support.files import write_json


@pytest.fixture
def search(tmp_path, monkeypatch):
    """What a page needs of a search, on data with a picture an image: image i has i in red."""
    monkeypatch.setattr(page, "report_folder", lambda dataset: tmp_path / "reports" / dataset)
    folder = write_tiny(tmp_path / "data/tiny", {"train": 2, "test": 6})
    (folder / "test_ids.txt").write_text("a.jpg\n<b>.png\n391895\nsub/d.jpg\n7\n8\n")
    pictures = np.zeros((6, 4, 5, 3), np.uint8)
    pictures[..., 0] = np.arange(6)[:, None, None]
    np.save(folder / "test_pictures.npy", pictures)
    config = ExperimentConfig("tiny", str(folder.parent))
    data = load_split(config, "test")
    write_json(tmp_path / "runs/mine/config.json", {"data": "5b3a3f83f7c67628"})
    return SimpleNamespace(folder=tmp_path / "runs/mine", config=config, split="test", data=data)


def matches(search, *numbers):
    return [Match(0.5, search.data.ids[number], number, search.data.captions[2 * number]) for number in numbers]


def pictures_of(text):
    """The pictures of a page, in order, by what they show in red at the first place, with their alternative texts."""
    shown = []
    for tag in re.findall(r"<img[^>]*>", text):
        content, alt = re.fullmatch(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)" alt="([^"]+)">', tag).groups()
        shown.append((np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), alt))
    return shown


def test_the_images_of_a_sentence(search):
    question = 'a <script>alert("ball")</script> & 球'
    path = write_page(search, Matches(question, "images", matches(search, 3, 1), ("<i>",)))
    text = path.read_text(encoding="utf-8")
    assert path.parent.relative_to(path.parents[3]).as_posix() == "tiny/search/mine"
    assert re.fullmatch(r"a-script-alert-ball-script-球-\w{8}\.html", path.name)
    assert "<script" not in text and "<i>" not in text and "<b>" not in text
    assert "a &lt;script&gt;alert(&#34;ball&#34;)&lt;/script&gt; &amp; 球" in text
    assert "do not know: &lt;i&gt;" in text.replace("does not", "do not")
    assert not re.search(r"https?:|src=\"(?!data:)|<link|url\(", text)
    images, alts = zip(*pictures_of(text), strict=True)
    assert [int(image[0, 0, 0]) for image in images] == [3, 1]
    assert alts == tuple(f"{html.escape(m.item)}: {m.captions}" for m in matches(search, 3, 1))


def test_names_of_pages_tell_trainings_apart_wherever_they_are(search, tmp_path):
    def name_of(place, data="5b3a3f83f7c67628", seed=0):
        search.folder, search.config = tmp_path / place / "mine", replace(search.config, seed=seed)
        write_json(search.folder / "config.json", {"data": data})
        return write_page(search, Matches("a ball", "images", matches(search, 3))).name

    assert len({name_of("here"), name_of("here", data="other"), name_of("here", seed=1)}) == 3
    assert name_of("here") == name_of("there")


def test_the_captions_of_an_item(search):
    found = Matches("7", "captions", matches(search, 0, 4), number=4)
    text = write_page(search, found).read_text(encoding="utf-8")
    ((image, alt),) = pictures_of(text)
    assert (image[0, 0, 0], alt) == (4, "7")
    assert text.count("(its own)") == 1
    assert "7 (its own)" in text


def test_the_captions_of_a_file(search, tmp_path):
    Image.new("RGB", (2000, 1000), (9, 9, 9)).save(tmp_path / "mine.png")
    found = Matches("mine.png", "captions", matches(search, 0))
    ((image, alt),) = pictures_of(write_page(search, found, asked=tmp_path / "mine.png").read_text(encoding="utf-8"))
    assert (image.shape, alt) == ((240, 480, 3), "mine.png")


def test_a_video_is_shown_frame_beside_frame(search):
    make_varying(search.data.folder)  # 1, 2, 3, 1, 2 and 3 frames
    frames = np.zeros((12, 4, 5, 3), np.uint8)
    frames[..., 0] = np.arange(12)[:, None, None]
    np.save(search.data.folder / "test_pictures.npy", frames)
    search.data = load_split(search.config, "test")
    text = write_page(search, Matches("a ball", "images", matches(search, 2, 3))).read_text(encoding="utf-8")
    assert [image[0, ::5, 0].tolist() for image, _ in pictures_of(text)] == [[3, 4, 5], [6]]


def test_pictures_of_a_folder_are_found_by_their_names(search, tmp_path):
    folder = tmp_path / "files"
    names = ("a.jpg", "a.png", "sub/d.jpg", "d.jpg", "COCO_val2014_000000391895.jpg", "8.webp")
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 300), (40 * shade, 0, 0)).save(folder / name)
    found = Matches("a ball", "images", matches(search, 0, 1, 2, 3, 4, 5))
    text = write_page(search, found, folder).read_text(encoding="utf-8")
    shades = [round(int(image[0, 0, 0]) / 40) for image, _ in pictures_of(text)]
    assert shades == [0, 4, 2, 5]
    assert text.count("no picture") == 2
    with pytest.raises(UWMLError, match=r"files: found no picture of these items, expected files called like '7'"):
        write_page(search, found._replace(found=matches(search, 4)), folder)
    (folder / "8.gif").write_bytes((folder / "8.webp").read_bytes())
    with pytest.raises(UWMLError, match=r"files: found .*8\.gif and .*8\.webp, expected one picture of '8'"):
        write_page(search, found, folder)
    with pytest.raises(UWMLError, match="no such folder, expected one of pictures"):
        write_page(search, found, tmp_path / "nowhere")


def test_photographs_are_found_where_the_features_were_made(search, tmp_path):
    (search.data.folder / "test_pictures.npy").unlink()
    for number, item in enumerate(search.data.ids):
        (path := tmp_path / "photographs" / item).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (50 * number, 0, 0)).save(path, "png")
    write_json(search.data.folder / "pictures.json", {"images": str(tmp_path / "photographs")})
    text = write_page(search, Matches("a ball", "images", matches(search, 3, 1))).read_text(encoding="utf-8")
    assert [int(image[0, 0, 0]) for image, _ in pictures_of(text)] == [150, 50]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (None, "found no such file, expected uint8"),
        (np.zeros((6, 4, 5, 3), np.float32), r"found float32 \(6, 4, 5, 3\), expected uint8"),
        (np.zeros((3, 4, 5, 3), np.uint8), "found 3 rows, expected the 6 of test_ims.npy"),
    ],
)
def test_arrays_that_are_no_pictures(array, words, search):
    path = search.data.folder / "test_pictures.npy"
    path.unlink() if array is None else np.save(path, array)
    with pytest.raises(UWMLError, match=f"test_pictures.npy: {words}"):
        write_page(search, Matches("a ball", "images", matches(search, 0, 3)))
