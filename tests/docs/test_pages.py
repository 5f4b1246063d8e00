"""The pages name what exists; `make site` checks their links, as tests/docs/test_site.py shows."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from dvc.utils.flatten import flatten
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

from ddpm.cli.commands import Ddpm

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
).stdout.splitlines()
FILES = {name for name in TRACKED if (ROOT / name).exists()}
PAGES = sorted(name for name in FILES if name.endswith(".md"))
USER_PAGES = [name for name in PAGES if name == "README.md" or name.startswith("docs/")]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def tokens(page: str) -> list[Token]:
    """The tokens of a page, those of its lines among them."""
    text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / page).read_text(), flags=re.DOTALL)
    parsed = MarkdownIt("commonmark").enable("table").parse(text)
    return [each for token in parsed for each in (token, *(token.children or ()))]


def test_the_drawing_of_the_pipeline_has_every_stage() -> None:
    drawn = (ROOT / "docs/reference/pipeline.svg").read_text()
    boxes = ["".join(re.findall(">([^<]+)</text>", box)) for box in drawn.split("<rect")[1:]]
    stages = sorted(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
    assert len(boxes) == len(stages)
    assert all(box.startswith(stage) for box, stage in zip(sorted(boxes), stages, strict=True))


def keys() -> set[str]:
    return {*flatten(YAML(typ="safe").load(ROOT / "params.yaml"))}


def test_the_parameters_page_has_every_variable() -> None:
    text = (ROOT / "docs/reference/parameters.md").read_text()
    code = "".join(path.read_text() for path in ROOT.glob("src/**/*.py")) + (ROOT / "dvc.yaml").read_text()
    own = {"DDPM_PARENT", "DDPM_COMMAND_"}  # not for users
    assert set(re.findall(r"^\| `(DDPM_\w+)`", text, re.MULTILINE)) == set(re.findall(r"DDPM_\w+", code)) - own


def test_the_table_has_every_file_and_package() -> None:
    text = (ROOT / "docs/reference/pipeline.md").read_text().partition("## Packages")[2].partition("## ")[0]
    named = {name for row in re.findall(r"^\| (`[^|]+)", text, re.MULTILINE) for name in re.findall("`([^`]+)`", row)}
    library = {path.name for path in (ROOT / "src/ddpm").iterdir() if not path.name.startswith("_")}
    assert named == library | {"exact_stages"}


@pytest.mark.parametrize("page", USER_PAGES)
def test_params_targets_stages_and_modules_exist(page: str) -> None:
    """In prose too, and in blocks that tests/with_dvc/test_pages_run.py does not run."""
    code = [each.content for each in tokens(page) if each.type in ("fence", "code_inline")]
    text = "\n".join(code)
    changed = {*re.findall(r"""(?:-S|--set-param)[ =]['"]{0,2}([a-z_.]+)=""", text)}
    assert changed <= keys()
    made = {each for line in code for each in re.findall(r"(?:^|\n|&& |\$ )make ([a-z]+)", line)}
    assert made <= {*re.findall("^([a-z]+):", Path("Makefile").read_text(), re.MULTILINE)}
    for module in re.findall(r"-m ((?:scripts|studies|stages)\.[a-z_.]+)", text):
        assert Path(module.replace(".", "/")).with_suffix(".py").exists(), module
    assert {*re.findall(r"(?:^|\n|\$ )ddpm ([a-z]+)", text)} <= Ddpm.model_fields.keys()
