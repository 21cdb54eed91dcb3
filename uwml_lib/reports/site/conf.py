"""How Sphinx makes the site; `build.py` writes its sources and calls it."""

from typing import Any

from uwml_lib.reports.site.api import docstring_for_sphinx
from uwml_lib.reports.site.glossary import link_terms
from uwml_lib.support.paths import CHECKOUT

project = "Universal weighting metric learning, reproduced"
smartquotes = False  # options begin with two hyphens
exclude_patterns = ["_made"]
# Parts of documents begin below their first heading; a word in backticks may be the name of several things.
suppress_warnings = ["myst.header", "ref.python"]
if not (CHECKOUT / "data/README.md").exists():  # as where the kit is installed: links into that document find no place
    suppress_warnings.append("myst.xref_missing")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_copybutton", "sphinx_design"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # pages show what was executed
nb_ipywidgets_js: dict[str, Any] = {}  # by default scripts from the network
nb_render_image_options = {"alt": "Figure"}
nb_merge_streams = True
nb_render_markdown_format = "myst"  # CommonMark, which is the default, has no tables
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}

autosummary_generate = False  # one page holds all names of a room
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
default_role = "py:obj"
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "Universal weighting"
html_context = {"default_mode": "auto"}
html_css_files = ["kit.css"]
html_js_files = [("kit.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # it would read pages again, which a page of a file may not
html_sidebars: dict[str, list[str]] = {
    "index": [], "pages/how_fast": [], "pages/use_the_loss": [], "pages/fidelity": [], "pages/glossary": [],
    "pages/contributing": [], "pages/changelog": [],
}  # fmt: skip
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "navigation_with_keys": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"  # prompts and what was printed


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", docstring_for_sphinx)
    app.connect("doctree-resolved", link_terms)
