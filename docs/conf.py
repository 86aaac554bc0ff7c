"""The documentation as a site: `sphinx-build -W docs build/site` (extra [docs]); it needs no network."""

import json
import re
from os import environ
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
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
html_static_path = [environ["LADCAST_NOTEBOOKS"]] if "LADCAST_NOTEBOOKS" in environ else []
OUTSIDE = {
    "ladcast/pretrained/nature-t31/README.md": "model_card.md",
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages that stand outside of this folder, and under `site/` as what the site shows of them."""


SHOWN = Path(environ.get("LADCAST_NOTEBOOKS", "nowhere"))
"""Where `tests/test_notebooks.py` has kept what each cell shows, if it has."""


class NotebookParser(MystParser):
    """Reads a notebook as a page: its text, its code, and what the cells have shown where they ran."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Turns cells into Markdown."""
        stem, parts = Path(document["source"]).stem, []
        for number, cell in enumerate(json.loads(inputstring)["cells"]):
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(text)
                continue
            language = "console" if text.startswith("!") else "python"
            parts.append(f"```{language}\n{text.removeprefix('%matplotlib inline').strip()}\n```")
            said = SHOWN / f"{stem}-{number}.txt"
            if said.is_file() and said.read_text().strip():
                parts.append(f"```text\n{said.read_text().rstrip()}\n```")
            if said.with_suffix(".png").is_file():
                parts.append(f"<img alt='what the cell shows' src='../_static/{stem}-{number}.png'>")
        super().parse("\n\n".join(parts), document)


def _link_inside(app: Sphinx, page: str, source: list[str]) -> None:
    """Turns links out of this folder, which a reader of the repository follows, into links to pages of the site."""
    notebook = r"\[([^\]]*)\]\((?:\.\./)*notebooks/(\w+)\.ipynb\)"
    source[0] = re.sub(notebook, r"{doc}`\1 </notebooks/\2>`", source[0])
    if not page.startswith("site/"):
        for name, inside in OUTSIDE.items():
            source[0] = re.sub(rf"\]\((?:\.\./)+{re.escape(name)}", f"](/site/{inside}", source[0])


def _link_inside_included(_: Sphinx, path: Path, page: str, source: list[str]) -> None:
    """Does the same for links of a page that stands outside of this folder to another one."""
    for name, inside in OUTSIDE.items():
        source[0] = source[0].replace(f"]({name})", f"](/site/{inside})")


def setup(app: Sphinx) -> None:
    """Registers what the site does otherwise than the repository."""
    app.connect("source-read", _link_inside)
    app.connect("include-read", _link_inside_included)
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
