"""Executed copies of notebooks in a report folder."""

from pathlib import Path

import nbformat


def executed(folder: Path) -> list[Path]:
    """Return the executed copies in a folder, in order; damaged ones are left out."""
    return [copy for copy in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if key_of(copy)]


def key_of(copy: Path) -> str | None:
    """The key that an executed copy was made under; None if it is not there, damaged, or no copy of this kit's."""
    try:
        return nbformat.read(copy, as_version=4).metadata.get("uwml_key")
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None
