"""The site: its links, formulas and pictures, on a small source folder; and the chapters as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, **pages: str) -> subprocess.CompletedProcess[str]:
    """The site of these pages below docs, the front page among them, in folder / "site"."""
    (folder / "docs/recipe").mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / f"docs/{name}.md").write_text(text)
    toctree = "\n\n```{toctree}\n:glob:\n\n*\n```\n"
    (folder / "docs/index.md").write_text("# Front\n\n" + pages.get("index", "") + toctree)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs"), "-b", "html"]
    return subprocess.run([*command, str(folder), str(folder / "site")], capture_output=True, text=True, check=False)


def test_links_pictures_and_formulas(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: 1\n")
    one = r"""# One

[the recipe](recipe.md), [the folder](recipe), [the file](../params.yaml), [a heading](recipe.md#how-it-is-done)

$\sqrt{\alpha}$

$$
x_t = y
$$
"""
    done = build(tmp_path, one=one, recipe="# Recipe\n\n## How it is done\n")
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "site/docs/one.html").read_text()
    assert 'href="recipe.html"' in page
    assert 'href="recipe.html#how-it-is-done"' in page
    assert "the folder" in page
    assert not re.search(r"<a [^>]*>(<[^>]*>)*the folder", page)
    assert re.search(r'href="(\.\./_downloads/\w+/params.yaml)"', page)
    assert re.search(r"<msqrt>.*?</msqrt>", page)
    assert 'display="block"' in page
    assert not re.search(r"<script[^>]*mathjax", page, re.IGNORECASE)
    assert "url=docs/index.html" in (tmp_path / "site/index.html").read_text()


def test_dead_links_missing_pictures_and_what_is_loaded_from_elsewhere_end_the_build(tmp_path: Path) -> None:
    dead = "[gone](gone.md) [no heading](index.md#nowhere) ![gone](gone.png)"
    html = '<script src="https://example.org/a.js"></script>\n\n<p><a href="gone.html">there</a></p>'
    done = build(tmp_path, one=f"# One\n\n{dead}\n\n{html}\n")
    assert done.returncode != 0
    faults = ("gone.md", "nowhere", "gone.png", "loads https://example.org/a.js", "gone.html is not there")
    assert [each for each in faults if each not in done.stderr] == []
