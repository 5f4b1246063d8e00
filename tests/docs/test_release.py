"""The files of a release agree: one version, the weights that come with it, and what must pass."""

import re
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert str(YAML(typ="safe").load(ROOT / "CITATION.cff")["version"]) == version
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(each for each in headings if each != "Unreleased") == version


def test_every_parameter_has_a_comment() -> None:
    sections = (ROOT / "params.yaml").read_text().replace("\n  population:", "\n\n  population:").split("\n\n")
    described = [line for part in sections if not part.startswith("  population:") for line in part.splitlines()]
    assert [line for line in described if re.match(r" +\w+: ", line) and "  # " not in line] == []
