"""The API reference: every public name, and docstrings as Sphinx reads them."""

import pytest

from uwml_lib.losses import LOSSES, TripletLoss
from uwml_lib.reports.site.api import ROOMS, api_pages, docstring_for_sphinx, public_names


def shown(docstring: str) -> str:
    lines = docstring.splitlines()
    docstring_for_sphinx(None, "class", "x", TripletLoss, None, lines)
    return "\n".join(lines)


def test_every_public_name_has_an_entry():
    pages = api_pages()
    assert [*pages] == [f"pages/api/{module}.md" for module in ROOMS]  # all adapters' trainers are installed here
    for module in ROOMS:
        names = public_names(module)
        assert names
        for name in names:
            assert f":: {name}\n" in pages[f"pages/api/{module}.md"], f"{module}.{name}"
    assert {kind.__name__ for kind in LOSSES.values()} <= {*public_names("losses")}
    assert "ExperimentConfig" in public_names("config") and "Path" not in public_names("config")


def test_parameters_become_a_list():
    text = shown(
        "A loss.\n\nParameters\n    margin: how far *below*; the release\n        uses 0.2.\n    a, b: two `x_`."
    )
    assert text.splitlines()[2:] == [
        ":param margin: how far \\*below\\*; the release", "        uses 0.2.", ":param a,b: two `x_`.",
    ]  # fmt: skip


def test_parameters_that_differ_from_another_loss_become_a_list_too():
    text = shown("A loss.\n\nParameters are those of `A`, with another default for\n    margin: how far.")
    assert text.splitlines()[2:] == [
        "Parameters are those of `A`, with another default for:",
        "",
        ":param margin: how far.",
    ]


@pytest.mark.parametrize(
    ("line", "tex"),
    [
        ("[margin - p]_+  with n = max_j S_ij", r"[\text{margin} - p]_+\quad\text{with}\quad n = \max _j S_{ij}"),
        ("mean_{j in N_i} [Q(S_ij)]_+", r"\operatorname{mean} _{j \in  N_i} [Q(S_{ij})]_+"),
        ("log(1 + sum_j exp(gamma a_ij))", r"\log (1 + \sum _j \exp (\gamma  a_{ij}))"),
        ("average: w-(p, n) n", r"\text{average:}\quad  w^{-}(p, n) n"),
        ("n = max {S_ij : S_ij < S_ii}", r"n = \max  \{S_{ij} : S_{ij} < S_{ii}\}"),
    ],
)  # fmt: skip
def test_equations_become_formulas(line, tex):
    text = shown(f"A loss,\n\n    {line}\n\nand nothing otherwise.")
    assert text == f"A loss,\n\n.. math::\n\n    \\begin{{aligned}}& {tex}\\end{{aligned}}\n\nand nothing otherwise."


def test_no_docstring_is_nothing():
    assert shown("") == ""


def test_what_a_table_of_names_holds():
    lines = (dict.__doc__ or "").splitlines()
    docstring_for_sphinx(None, "data", "LOSSES", {"a": 1, "b": 2}, None, lines)
    assert lines == ["``a``, ``b``"]
