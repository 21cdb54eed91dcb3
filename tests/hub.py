"""A server on this machine that answers as the Hugging Face hub does, as far as a download can tell."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from uwml_lib.datasets.hub import ON_THE_HUB

SIZES = {"train": 8, "dev": 3, "test": 2}
COLOURS = ("red", "green", "blue", "white")
PHRASES = ("a {} square .", "{} all over .", "there is {} here .", "something {} .", "it looks {} .")


class Hub:
    """What the server holds, how it misbehaves, and what it was asked.

    status: what is answered to a question for a file's name, for the list ("list"), or for any ("*"). sent: how many
    bytes of a file go out before the connection breaks, and never more of it. digests: a wrong SHA-256 in the list.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.asked: list[str] = []
        self.ranges: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.url = ""

    def hold(self, dataset: str) -> None:
        self.files = published(dataset)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        for source in ON_THE_HUB.values():
            listing = f"/api/datasets/{source.name}/revision/{source.revision}"
            resolve = f"/datasets/{source.name}/resolve/{source.revision}/"
            if path == listing:
                assert urlsplit(self.path).query == "blobs=True" or "blobs=true" in self.path
                return self.list_files(source)
            if path.startswith(resolve):
                return self.refer(path.removeprefix(resolve))
        if path.startswith("/stored/"):
            return self.send_file(path.removeprefix("/stored/"))
        hub.asked.append(path)
        return self.answer(404)

    def list_files(self, source):
        hub = self.server.hub
        hub.tokens.add(self.headers.get("Authorization"))
        if not self.go_on("list"):
            return
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": "0" * 40, "lfs": {
                "sha256": hub.digests.get(name, hashlib.sha256(content).hexdigest()), "size": len(content),
                "pointerSize": 134,
            }}
            for name, content in hub.files.items()
        ]  # fmt: skip
        body = json.dumps({"id": source.name, "sha": source.revision, "siblings": siblings}).encode()
        self.answer(200, body, **{"Content-Type": "application/json"})

    def refer(self, name: str) -> None:
        """Large files lie somewhere else."""
        self.server.hub.tokens.add(self.headers.get("Authorization"))
        if self.go_on(PurePosixPath(name).name):
            self.answer(302 if name in self.server.hub.files else 404, Location=f"{self.server.hub.url}/stored/{name}")

    def go_on(self, what: str) -> bool:
        hub = self.server.hub
        hub.asked.append(what)
        if status := hub.status.get(what, hub.status.get("*")):
            self.answer(status)
        return not status

    def send_file(self, name: str) -> None:
        hub, content, start = self.server.hub, self.server.hub.files[name], 0
        if "Range" in self.headers:
            hub.ranges.append((PurePosixPath(name).name, self.headers["Range"]))
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        end = hub.sent.get(name, len(content))
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:end])
        self.close_connection = end < len(content)

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hub = hub
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield hub
        server.shutdown()


def pictures(split: str, size: int) -> dict[str, bytes]:
    """Pictures of one colour, with a little noise, so that no two are the same: name -> JPEG."""
    generator, made = np.random.default_rng(size), {}
    for number in range(size):
        pixels = np.array(Image.new("RGB", (20, 16), COLOURS[number % len(COLOURS)]), int)
        noisy = (pixels + generator.integers(-30, 30, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(buffer := io.BytesIO(), "JPEG")
        made[f"{split}_{number}.jpg"] = buffer.getvalue()
    return made


def captions(number: int) -> list[str]:
    return [phrase.format(COLOURS[number % len(COLOURS)]) for phrase in PHRASES]


def table(made: dict[str, bytes]) -> bytes:
    """Pictures with their captions as Parquet."""
    rows = [
        {"image": {"bytes": content, "path": name}}
        | {f"caption_{k}": text for k, text in enumerate(captions(number))}
        for number, (name, content) in enumerate(made.items())
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer := io.BytesIO(), row_group_size=2)
    return buffer.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def annotations(rows: list[dict[str, object]]) -> bytes:
    """CSV as of Flickr30K's repository, its lists as JSON."""
    names = ("raw", "sentids", "split", "filename", "img_id")
    lines = [",".join('"' + str(row[name]).replace('"', '""') + '"' for name in names) for row in rows]
    return "\n".join([",".join(names), *lines, ""]).encode()


def published(dataset: str, sizes: dict[str, int] = SIZES) -> dict[str, bytes]:
    """The files of a data set's repository, in miniature."""
    splits = {split: pictures(split, size) for split, size in sizes.items()}
    if dataset == "flickr8k":
        half = sizes["train"] // 2
        train = list(splits["train"].items())
        shards = {"train-00000": dict(train[:half]), "train-00001": dict(train[half:]),
                  "validation": splits["dev"], "test": splits["test"]}  # fmt: skip
        return {
            name: table(next(made for begin, made in shards.items() if PurePosixPath(name).name.startswith(begin)))
            for name in ON_THE_HUB[dataset].files
        }
    rows = [
        {"raw": json.dumps(captions(number)), "sentids": [0], "split": "val" if split == "dev" else split,
         "filename": name, "img_id": number}
        for split, made in splits.items() for number, name in enumerate(made)
    ]  # fmt: skip
    members = {f"flickr30k-images/{name}": content for made in splits.values() for name, content in made.items()}
    others = {"flickr30k-images/unused.jpg": b"?", "__MACOSX/flickr30k-images/._train_0.jpg": b"?"}
    return {"flickr30k-images.zip": archive(members | others), "flickr_annotations_30k.csv": annotations(rows)}
