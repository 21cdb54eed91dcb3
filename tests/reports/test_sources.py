"""What Sphinx reads: links among documents lead to pages, and what is no link stays."""

import nbformat
import pytest

from uwml_lib.reports.site import sources as module
from uwml_lib.reports.site.glossary import glossary_directives
from uwml_lib.reports.site.sources import Sources, documents, executed, unbroken, write_documents, write_notebooks
from uwml_lib.support import paths


@pytest.fixture
def sources(tmp_path, monkeypatch) -> Sources:
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    (tmp_path / "reports/runs").mkdir(parents=True)
    (tmp_path / "reports/runs/one two.json").touch()
    (tmp_path / "here.png").write_bytes(b"1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/here.png").write_bytes(b"2")
    return Sources(tmp_path / "source", {tmp_path / "docs/A.md": "pages/a.md"})


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("[words](docs/A.md) and [more](docs/A.md#place)", "[words](/pages/a.md) and [more](/pages/a.md#place)"),
        ("[words](docs/B.md)", "words"),
        ("[a [b] c](https://a.org/b)", "[a [b] c](https://a.org/b)"),
        ("[here](#place)", "[here](#place)"),
        ("`LOSSES[name](x)` and\n```\na[b](c)\n```\n", "`LOSSES[name](x)` and\n```\na[b](c)\n```\n"),
        (r"\[y\](z)", r"\[y\](z)"),
        ("[run](reports/runs/one%20two.json)", '<a href="../runs/one%20two.json">run</a>'),
    ],
)
def test_links_lead_to_pages_and_to_files_of_reports(sources, tmp_path, text, made):
    assert sources.linked(text, tmp_path, "pages/x.md") == made


def test_a_link_of_a_notebook_to_a_chapter_leads_to_its_page(sources):
    sources.shown |= documents()
    text = "[all](../uwml_lib/reports/site/chapters/pages/fidelity.md), [terms](GLOSSARY.md)"
    made = "[all](/pages/fidelity.md), [terms](/pages/glossary.md)"
    assert sources.linked(text, paths.NOTEBOOKS, "pages/course/09_fidelity.ipynb") == made


def test_pictures_of_one_name_stay_apart(sources, tmp_path):
    text = sources.linked("![a](here.png) ![b](other/here.png) ![c](none.png)", tmp_path, "index.md")
    first, second = (word[word.index("(") + 1 : -1] for word in text.split()[:2])
    assert first != second and text.endswith(" c")
    assert [(sources.folder / name[1:]).read_bytes() for name in (first, second)] == [b"1", b"2"]


def test_a_mean_an_interval_and_a_duration_stay_on_one_line():
    assert unbroken("1.0 ± 2.0, -3.1 [-4.2, +5.0], a, b") == "1.0\u00a0±\u00a02.0, -3.1 [-4.2,\u00a0+5.0], a, b"
    assert unbroken("| 2 min 5 s | 7 s |") == "| 2\u00a0min\u00a05\u00a0s | 7\u00a0s |"


def test_a_document_that_is_not_here_has_a_title_and_says_so(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)  # as where the kit is installed without its checkout
    write_documents(sources)
    text = (sources.folder / "_made/data/README.md").read_text(encoding="utf-8")
    assert text.startswith("# Layout\n\n") and "which is not here" in text


def test_tables_of_terms_become_a_glossary():
    table = "| term | meaning | section |\n|---|---|---|\n| a d, *b* | It. | 1.2 |\n| c (d, e) | That. | 2 |\n"
    made = "```{glossary}\na d\n*b*\n  It. *Section 1.2.*\n\nc (d, e)\n  That. *Section 2.*\n```\n"
    assert glossary_directives(f"# G\n\n{table}\nMore.\n") == f"# G\n\n{made}\nMore.\n"


def test_notebooks_without_machine_cells_with_words_for_pictures_and_long_text_folded(sources, tmp_path):
    picture, other = (
        nbformat.v4.new_output("display_data", {"image/png": "AA=="}, metadata={"image/png": {"alt": alt}})
        for alt in ("A *b*.", "C.")
    )
    cells = [
        nbformat.v4.new_markdown_cell("# 1\n\nNext: [2](02_b.ipynb), and [3](03_c.ipynb)."),
        nbformat.v4.new_code_cell("record()", metadata={"tags": ["machine"]}),
        nbformat.v4.new_code_cell("draw()", outputs=[picture, other]),
        nbformat.v4.new_code_cell("say()", outputs=[nbformat.v4.new_output("stream", text="a\n" * 31)]),
    ]
    for name in ("01_a", "02_b"):
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"uwml_key": "x", "widgets": {}})
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    (tmp_path / "03_c.ipynb").write_text("{", encoding="utf-8")
    copies = executed(tmp_path)
    assert [copy.stem for copy in copies] == ["01_a", "02_b"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "04_d.ipynb")
    write_notebooks(sources, {f"pages/course/{copy.name}": copy for copy in [*copies, tmp_path / "04_d.ipynb"]})
    assert "not executed" in nbformat.read(sources.folder / "pages/course/04_d.ipynb", as_version=4).cells[1].source
    made = nbformat.read(sources.folder / "pages/course/01_a.ipynb", as_version=4)
    text, drawn, second, said = made.cells
    assert text.source.endswith("Next: [2](/pages/course/02_b.ipynb), and 3.")
    assert [len(cell.outputs) for cell in (drawn, second)] == [1, 1] and second.metadata["tags"] == ["remove-input"]
    assert [cell.metadata["mystnb"]["image"] for cell in (drawn, second)] == [{"alt": "A *b*."}, {"alt": "C."}]
    assert drawn.metadata["mystnb"]["figure"] == {"caption": r"A \*b\*."}
    assert said.metadata["tags"] == ["hide-output"] and "widgets" not in made.metadata
