"""Configure Sphinx, which makes the site of README, docs and the walk: `make site` writes it to build/site.

The source folder is the repository itself, so links work in the files and in the site. Pages load nothing from
elsewhere: formulas are MathML, which browsers draw, and fonts are the reader's own.
"""

import logging
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from docutils import nodes
from jupyter_client.manager import KernelManager
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]
FRONT = "docs/index"
RECORDS = [
    "studies/README",
    "studies/*/README",
    "studies/scores/causes",
    "results/*/README",
    "data/README",
    "examples/*/README",
    "src/exact_stages/README",
]  # linked, but not in the menu
CHANGING = [
    "models/*.safetensors",
    "data/processed/*.safetensors",
    "metrics/**/*.*",
    "results/*/record.json",
    "studies/*/*.csv",
    "src/ddpm/**/*.py",
    "studies/**/*.py",
    "params.yaml",
    "dvc.yaml",
    "Makefile",
    "docs/walk/*.py",
]

sys.path.insert(0, str(ROOT / "src"))  # the library of this repository, for autodoc
os.environ["PYTHONPATH"] = str(ROOT / "src")  # and for the commands whose output is shown
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["COLUMNS"] = "96"
KernelManager.transport_encryption.default_value = "auto"  # or every kernel warns that it is not encrypted
logging.getLogger("traitlets").setLevel(logging.WARNING)  # which says of each page that it runs

project = "A reproducible diffusion pipeline"
html_title = project
root_doc = FRONT
source_suffix = {".md": "myst-nb"}
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", *(f"{record}.md" for record in RECORDS)]
exclude_patterns = [".*", "build", "models", "metrics", "src/ddpm", "tests", "data/[!R]*", "**/.*"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.programoutput"]
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autoclass_content = "both"  # what a class and its __init__ say
python_display_short_literal_types = True
python_maximum_signature_line_length = 60

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as a reader of the files on GitHub has them
nb_execution_mode = "force"  # run each page that is read; see _depend
nb_execution_timeout = 600  # seconds, of a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what is defined below."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    app.add_transform(FoldersAsText)
    app.connect("source-read", _depend)
    app.connect("doctree-read", _off_the_menu)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline_formula(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _formula(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


class FoldersAsText(SphinxTransform):
    """Replace links to folders, which work in a repository but not in a site, by their text."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Replace those of one page."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in [*self.document.findall(pending_xref)]:
            # A page has no ending here, and a folder may have the same name.
            if link.get("refdomain") != "doc" and (here / link.get("reftarget", "")).is_dir():
                link.replace_self(link.children)


def _depend(app: Sphinx, page: str, content: list[str]) -> None:
    """Read a page that runs something again, and so run it, when the model, the images or the library have changed."""
    if "{code-cell}" in content[0] or "{program-output}" in content[0]:
        for pattern in CHANGING:
            for path in sorted(ROOT.glob(pattern)):
                app.env.note_dependency(str(path))


def _off_the_menu(app: Sphinx, doctree: nodes.document) -> None:
    """Allow records to be in no menu."""
    page = app.env.docname
    if any(fnmatch(page, record) for record in RECORDS):
        app.env.metadata[page]["orphan"] = ""


def _finish(app: Sphinx, error: Exception | None) -> None:
    """Write a redirect to the front page, and check that pages load nothing from elsewhere.

    Raises:
        ExtensionError: a page loads something from elsewhere, or a file that is missing.
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
    """List what a page of the site loads from elsewhere, and missing files that it loads or links."""
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
