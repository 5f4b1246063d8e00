"""How Sphinx makes the site of README, docs and walk: `make site` writes it into build/site.

The source folder is the repository itself, so that links between its pages are those that a reader of the files
follows. Nothing is fetched from elsewhere: formulas are MathML, which browsers draw, and fonts are the reader's own.
"""

import logging
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from jupyter_client.manager import KernelManager
from latex2mathml.converter import convert
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]
FRONT = "docs/index"
CHANGING = [
    "models/*.safetensors",
    "data/processed/*.safetensors",
    "metrics/**/*.*",
    "results/*/metrics/**/*.*",
    "studies/samplers/*.csv",
    "src/ddpm/**/*.py",
    "studies/**/*.py",
    "params.yaml",
    "docs/walk/*.py",
]

KernelManager.transport_encryption.default_value = "auto"  # or every kernel warns that it is not encrypted
logging.getLogger("traitlets").setLevel(logging.WARNING)  # which says of each page that it runs

project = "A reproducible diffusion pipeline"
html_title = project
root_doc = FRONT
source_suffix = {".md": "myst-nb"}
include_patterns = ["*.md", "benchmarks/*.md", "data/README.md", "docs/*.md", "docs/**/*.md", "results/*/*.md"]
include_patterns += ["studies/*.md", "studies/*/*.md"]  # records: pages without a place in the menus
exclude_patterns = [".*", "build", "models", "metrics", "src", "tests", "data/[!R]*", "**/.*"]
extensions = ["myst_nb"]
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as a reader of the files on GitHub has them
nb_execution_mode = "force"  # every page that is read; a page is read anew when something that it shows has changed
nb_execution_timeout = 600  # seconds, of a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of what is below."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    app.add_lexer("mermaid", TextLexer)  # diagrams stay the text that they are: what draws them is a megabyte of script
    app.add_transform(FoldersAsText)
    app.connect("source-read", _depend)
    app.connect("doctree-read", _leave_out_of_menus)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline_formula(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _formula(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


class FoldersAsText(SphinxTransform):
    """Links to folders lead somewhere in a repository, and nowhere in a site: their text stays."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Of one page."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in [*self.document.findall(pending_xref)]:
            # A page's name lacks its ending here, and may then be that of a folder beside it.
            if link.get("refdomain") != "doc" and (here / link.get("reftarget", "")).is_dir():
                link.replace_self(link.children)


def _depend(app: Sphinx, page: str, content: list[str]) -> None:
    """Read a chapter anew, and so run it, when model, images or library are others."""
    if "{code-cell}" in content[0]:
        for pattern in CHANGING:
            for path in sorted(ROOT.glob(pattern)):
                app.env.note_dependency(str(path))


def _leave_out_of_menus(app: Sphinx, doctree: nodes.document) -> None:
    """Let records be in no menu."""
    if app.env.docname.startswith("studies/"):
        app.env.metadata[app.env.docname]["orphan"] = True


def _finish(app: Sphinx, error: Exception | None) -> None:
    """Lead from the top to the front page, and see that the site asks no one for anything.

    Raises:
        ExtensionError: a page loads something from elsewhere, or from nowhere.
    """
    if error or app.builder.format != "html":
        return
    site = Path(app.outdir)
    (site / "index.html").write_text(
        f'<!doctype html>\n<html lang="en"><title>{project}</title>'
        f'<meta http-equiv="refresh" content="0; url={FRONT}.html"><a href="{FRONT}.html">{project}</a></html>\n'
    )
    if faults := [fault for page in sorted(site.rglob("*.html")) for fault in faults_of(page)]:
        raise ExtensionError("\n".join(faults))


def faults_of(page: Path) -> list[str]:
    """What a page of the site loads from elsewhere, and what it loads or links that is not there."""
    text = page.read_text()
    loaded = re.findall(r'<(?:script|img|iframe|source|video)\b[^>]*?\ssrc="([^"]+)"', text)
    loaded += [
        found
        for tag in re.findall(r"<link\b[^>]*>", text)
        if 'rel="canonical"' not in tag
        for found in re.findall(r'href="([^"]+)"', tag)
    ]
    faults = [f"{page}: loads {each}" for each in loaded if re.match(r"(https?:)?//", each)]
    for each in {*loaded, *re.findall(r'<a\b[^>]*?\shref="([^"#]+)', text)}:
        if not re.match(r"[a-z]+:|//", each) and not (page.parent / each.split("?")[0].split("#")[0]).exists():
            faults.append(f"{page}: {each} is not there")
    return faults
