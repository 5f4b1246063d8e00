"""Pages, drawings and records say what is so; `make site` checks their links, as tests/docs/test_site.py shows."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from dvc.utils.flatten import flatten
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

from ddpm.cli.commands import Ddpm
from ddpm.params.model import ModelParams
from exact_stages.params import load_params

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
).stdout.splitlines()
FILES = {name for name in TRACKED if (ROOT / name).exists()}
PAGES = sorted(name for name in FILES if name.endswith(".md"))
USER_PAGES = [name for name in PAGES if name == "README.md" or name.startswith("docs/")]


@cache
def tokens(page: str) -> list[Token]:
    text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / page).read_text(), flags=re.DOTALL)
    parsed = MarkdownIt("commonmark").enable("table").parse(text)
    return [each for token in parsed for each in (token, *(token.children or ()))]


def test_the_drawing_of_the_pipeline_has_every_stage() -> None:
    drawn = (ROOT / "docs/reference/pipeline.svg").read_text()
    boxes = ["".join(re.findall(">([^<]+)</text>", box)) for box in drawn.split("<rect")[1:]]
    stages = sorted(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
    assert len(boxes) == len(stages)
    assert all(box.startswith(stage) for box, stage in zip(sorted(boxes), stages, strict=True))


def test_the_parameters_page_has_every_variable() -> None:
    text = (ROOT / "docs/reference/parameters.md").read_text()
    code = "".join(path.read_text() for path in ROOT.glob("src/**/*.py")) + (ROOT / "dvc.yaml").read_text()
    own = {"DDPM_COMMAND_"}  # not for users
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
    assert changed <= {*flatten(YAML(typ="safe").load(Path("params.yaml")))}
    made = {each for line in code for each in re.findall(r"(?:^|\n|&& |\$ )make ([a-z]+)", line)}
    assert made <= {*re.findall("^([a-z]+):", Path("Makefile").read_text(), re.MULTILINE)}
    for module in re.findall(r"-m ((?:scripts|studies|stages)\.[a-z_.]+)", text):
        assert Path(module.replace(".", "/")).with_suffix(".py").exists(), module
    assert {*re.findall(r"(?:^|\n|\$ )ddpm ([a-z]+)", text)} <= Ddpm.model_fields.keys()


def test_the_drawing_of_the_network_has_the_widths_of_the_default() -> None:
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", (ROOT / "docs/walk/unet.svg").read_text())
    params = load_params(ModelParams, "model", ROOT / "params.yaml")
    widths = params.for_images((1, 28, 28)).channels or ()
    assert {str(width) for width in widths} <= set(texts)
    assert {f"{width} + {width}" for width in widths[:2]} <= set(texts), "the skip connections"
    assert {str(params.time_embed_dim), f"{4 * params.time_embed_dim}, {params.time_embed_dim}"} <= set(texts)
    assert texts.count(str(widths[2])) == params.bottleneck_blocks
    assert (params.class_conditional, params.prediction) == (True, "v")


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert str(YAML(typ="safe").load(ROOT / "CITATION.cff")["version"]) == version
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(each for each in headings if each != "Unreleased") == version


def test_every_parameter_has_a_comment() -> None:
    sections = (ROOT / "params.yaml").read_text().replace("\n  scored:", "\n\n  scored:").split("\n\n")
    described = [line for part in sections if not part.startswith("  scored:") for line in part.splitlines()]
    assert [line for line in described if re.match(r" +\w+: (?!\[])", line) and "  # " not in line] == []
