"""`uwml search`: the images of a sentence, and the captions of an image."""

import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from uwml_lib.support.errors import expect


def search(
    run: Path,
    sentence: tuple[str, ...] = (),
    /,
    item: str = "",
    image: Path | None = None,
    top: int = 10,
    split: Literal["train", "dev", "test"] | None = None,
    pictures: Path | None = None,
    data_root: str = "",
) -> dict[str, Any]:
    """Print the images of a split that fit a sentence best, or the captions that fit an image best, with their scores.

    Where there are pictures, they are shown on a page that needs no network. The first question to a split embeds it
    and keeps that in the run's folder, under embeddings/, which may be removed at any time.

    Args:
        run: Folder of a finished run of this kit.
        sentence: What to look for, such as "two dogs in the snow".
        item: An image of the split instead, by its id or its number, counted from 0.
        image: The file of a picture instead; the run's data must come from `uwml pictures`.
        top: Images or captions to find.
        split: Split to search; by default test, or dev where there is none.
        pictures: Folder of the images' files, called like the items, for the page.
        data_root: Folder that holds the data set's folder; empty means where the run says.
    """
    from uwml_lib.runs.search import Search
    from uwml_lib.support.progress import counted

    given = [name for name, value in {"a sentence": sentence, "--item": item, "--image": image}.items() if value]
    expected = 'one of a sentence such as "two dogs in the snow", --item and --image'
    expect(len(given) == 1, "question", " and ".join(given) or "none", expected)
    asked = Search(run, split, data_root)
    found = asked.images_for(" ".join(sentence), top) if sentence else asked.captions_for(image or item, top)
    n_items = counted(len(asked.data.features if found.of == "images" else asked.data), found.of.removesuffix("s"))
    print(f"{asked.split} split of {asked.data.folder}, {n_items}; best for {found.question}:")
    if found.unknown:
        print(f"  words that the run does not know: {', '.join(found.unknown)}")
    for place, match in enumerate(found.found, 1):
        own = " (its own)" if match.number == found.number else ""
        text = textwrap.shorten(match.captions, 100, placeholder=" ...")
        print(f"  {place:>3}. {match.score:.4f}  {match.item}{own}  {text}")
    page = None
    if pictures or image or (asked.data.folder / f"{asked.split}_pictures.npy").exists():
        if find_spec("jinja2") and find_spec("PIL"):
            from uwml_lib.reports.site.found import write_page

            page = write_page(asked, found, pictures, image)
        print(page or "no page of the pictures: it needs jinja2 and pillow, which `make setup` brings")
    matches = [match._asdict() for match in found.found]
    return {**found._asdict(), "found": matches, "split": asked.split, "page": page and str(page)}
