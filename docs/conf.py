"""The documentation as a site: `sphinx-build -W docs build/site` (extra [docs]); it needs no network."""

import re

from sphinx.application import Sphinx

project = "ladcast"
author = "the ladcast authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cyclopts.ext.sphinx"]
root_doc = "site/contents"
myst_heading_anchors = 4
autodoc_typehints = "description"
default_role = "code"
html_theme = "furo"
html_title = "ladcast"
html_show_sourcelink = False
OUTSIDE = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md", "benchmarks/README.md": "benchmarks.md"}
"""Pages that stand outside of this folder, and under `site/` as what the site shows of them."""


def _link_inside(app: Sphinx, page: str, source: list[str]) -> None:
    """Turns links out of this folder, which a reader of the repository follows, into links to pages of the site."""
    if not page.startswith("site/"):
        for name, inside in OUTSIDE.items():
            source[0] = re.sub(rf"\]\((?:\.\./)+{re.escape(name)}", f"](/site/{inside}", source[0])


def setup(app: Sphinx) -> None:
    """Registers what the site does otherwise than the repository."""
    app.connect("source-read", _link_inside)
