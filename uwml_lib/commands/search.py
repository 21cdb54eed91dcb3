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

    If there are pictures, a page shows them without a network. The first question about a split embeds the whole
    split and keeps the result in embeddings/ of the run's folder. You may remove it at any time.

    Args:
        run: Folder of a finished run of this kit.
        sentence: What to look for, such as "two dogs in the snow".
        item: Instead of a sentence: an image of the split, by its id or its number, counted from 0.
        image: Instead of a sentence: the file of a picture. The run's data must come from `uwml pictures`.
        top: How many images or captions to find.
        split: Split to search. The default is test, or dev if there is no test split.
        pictures: Folder of image files for the page, named like the items. The default is that of `uwml pictures`.
        data_root: Folder that holds the data set's folder. Empty means the folder that the run names.
    """
    from uwml_lib.datasets.raw.pictures import pictures_of
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
    if pictures or image or pictures_of(asked.data) is not None:
        if find_spec("jinja2") and find_spec("PIL"):
            from uwml_lib.reports.site.found import write_page

            page = write_page(asked, found, pictures, image)
        print(page or "no page of the pictures: it needs jinja2 and pillow, which `make setup` brings")
    matches = [match._asdict() for match in found.found]
    return {**found._asdict(), "found": matches, "split": asked.split, "page": page and str(page)}
