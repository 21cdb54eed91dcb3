"""The API reference: every public name of the rooms that others import, and docstrings as Sphinx reads them."""

import re
from importlib import import_module
from inspect import isclass, isroutine
from typing import Any

ROOMS = {
    "losses": "losses",
    "losses.open_clip": "losses in open_clip",
    "losses.sentence_transformers": "losses in sentence-transformers",
    "losses.pml": "losses in pytorch-metric-learning",
    "weighting": "weights of pairs",
    "models": "models",
    "datasets": "data sets",
    "evaluation": "evaluation",
    "config": "settings of a run",
    "training": "training",
    "runs": "runs",
    "runs.search": "searching with a run",
    "released.checkpoints": "checkpoints of the release",
}
"""Module -> what is in it, in the order of the pages; its docstring's example stands on its page."""
OPERATORS = {
    "log": r"\log", "exp": r"\exp", "max": r"\max", "sum": r"\sum", "mean": r"\operatorname{mean}", "in": r"\in",
    "alpha": r"\alpha", "beta": r"\beta", "gamma": r"\gamma",
}  # fmt: skip


def public_names(module: str) -> list[str]:
    """The names a module of this library hands on; of one without `__all__`, the classes and functions made there."""
    room = import_module(f"uwml_lib.{module}")
    made = [name for name, value in vars(room).items() if getattr(value, "__module__", None) == room.__name__]
    return list(getattr(room, "__all__", [name for name in made if not name.startswith("_")]))


def api_pages() -> dict[str, str]:
    """Return the source of each page -> its Markdown; an adapter of a trainer that is not installed is left out."""
    pages = {}
    for module, title in ROOMS.items():
        try:
            room, names = import_module(f"uwml_lib.{module}"), public_names(module)
        except ImportError:
            continue
        lines = [f".. currentmodule:: uwml_lib.{module}", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [*(f"   {name}" for name in names), ""]
        for name in names:
            value = getattr(room, name)
            kind = "class" if isclass(value) else "function" if isroutine(value) else "data"
            lines += [f".. auto{kind}:: {name}", *(["   :members:"] if kind == "class" else []), ""]
            if kind == "data":
                lines[-1:] = ["   :no-value:", ""]
        about, *further = (room.__doc__ or "").strip().split("\n\n")
        body, heading = "\n".join(lines), f"# {title[0].upper()}{title[1:]}\n\n`uwml_lib.{module}`: {about}"
        example = "".join(f"\n\n```pycon\n{part}\n```" for part in further if part.startswith(">>>"))
        pages[f"pages/api/{module}.md"] = f"{heading}{example}\n\n```{{eval-rst}}\n{body}```\n"
    return pages


def docstring_for_sphinx(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText, in place: equations, parameters, characters that are marks there."""
    if what == "data" and lines[:1] == (type(thing).__doc__ or "").splitlines()[:1]:  # of `dict` and the like
        lines[:] = [", ".join(f"``{value}``" for value in thing)] if isinstance(thing, dict | tuple) else []
        return
    blocks = re.split(r"\n\s*\n", "\n".join(lines).strip())
    lines[:] = "\n\n".join(map(_block, blocks)).splitlines()


def _block(text: str) -> str:
    """A paragraph, a list of parameters, or lines of equations, which are indented."""
    heading, _, rest = text.partition("\n")
    said = f"{_escaped(heading)}:\n\n" if heading.startswith("Parameters are") else ""
    if said or heading in ("Parameters", "Args:"):
        # Several names as one word, `a,b`: of two the first would be taken for a type.
        return said + re.sub(
            r"(?m)^ {4}([\w, ]+): ", lambda names: f":param {names[1].replace(' ', '')}: ", _escaped(rest)
        )
    if text and all(line.startswith("    ") for line in text.splitlines()):
        rows = [_equation(line.strip()) for line in text.splitlines()]
        return ".. math::\n\n    " + r"\begin{aligned}& " + r" \\ & ".join(rows) + r"\end{aligned}"
    return _escaped(text)


def _escaped(text: str) -> str:
    """What stands outside of backticks as it is."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"[*|\\]|_(?!\w)", r"\\\g<0>", part) for part in parts)


def _equation(line: str) -> str:
    """An equation as docstrings have it, `sum_{j in N_i} [Q(S_ij)]_+`, for TeX."""

    def word(match: re.Match[str]) -> str:
        found = match[0]
        if found in OPERATORS:
            return OPERATORS[found] + " "
        return rf"\text{{{found}}}" if len(found.replace(" ", "")) > 2 else found

    line = re.sub(r"_([a-zA-Z]{2})\b", r"_{\1}", line)  # S_ij
    line = re.sub(r"(?<!_)\{([^{}]*(?:\{\w+\}[^{}]*)*)\}", r"\\{\1\\}", line)  # sets, not indices
    line = re.sub(r"^([a-z]+(?:, [a-z]+)?:)", r"\\text{\1}\\quad ", line)
    line = re.sub(r"\bw([+-])\(", r"w^{\1}(", line)
    line = re.sub(
        r"(?:^| +)(with|and|taken as constants|of another label than) +", r"\\quad\\text{\1}\\quad ", f"{line}  "
    )
    parts = re.split(r"(\\text\{[^}]*\}|\\[a-z]+)", line)
    line = "".join(part if part.startswith("\\") else re.sub(r"[a-zA-Z]+", word, part) for part in parts)
    return line.replace("} S", r"}\, S").strip()
