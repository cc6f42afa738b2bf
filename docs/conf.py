"""Sphinx's settings for the site of the documents (`make docs`); the whole repository is its source.

So a link is one path, on the site as on GitHub, and a build with -W fails where it leads nowhere.
"""

from pathlib import Path

from sphinx.application import Sphinx

project = "Instruct-IPT"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/api.rst", "ipt/released/README.md"]
exclude_patterns = [".*", "build", "data", "mlartifacts", "models", "runs"]
myst_heading_anchors = 3  # the anchors that GitHub gives headings
default_role = "code"  # docstrings have names in single backticks
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
html_theme = "furo"  # its fonts are the reader's own
html_title = project
html_copy_source = False

NAVIGATION = {
    "Restore": ["docs/restore", "docs/page", "docs/gallery", "docs/serving", "docs/export", "docs/hardening"],
    "Train": ["docs/release", "docs/degradations", "docs/registry", "docs/cluster"],
    "Method": ["docs/method", "docs/backbone", "docs/diffusion"],
    "Numbers": ["docs/numbers", "docs/results"],
}


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the table of contents behind the README, where GitHub does not show it; what is in no part is in the last."""
    if docname != root_doc:
        return
    named = {name for names in NAVIGATION.values() for name in names}
    parts = NAVIGATION | {"Project": sorted(app.env.found_docs - named - {root_doc}, key=str.lower)}
    for caption, names in parts.items():
        lines = [f":caption: {caption}", ":hidden:", "", *names]
        source[0] += "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def add_index(app: Sphinx, failed: Exception | None) -> None:
    """Let whoever opens the folder find the first page."""
    if failed is None and app.builder.format == "html":
        text = '<!doctype html><meta charset="utf-8"><title>Instruct-IPT</title>'
        text += '<meta http-equiv="refresh" content="0; url=README.html"><a href="README.html">Instruct-IPT</a>\n'
        (Path(app.outdir) / "index.html").write_text(text)


def setup(app: Sphinx) -> None:
    """Connect both."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_index)
