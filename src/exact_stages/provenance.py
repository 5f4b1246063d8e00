"""Tell what made a file: the code, params and packages of its stage, as they stand in this workspace."""

import json
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exact_stages.console import UserError
from exact_stages.params import read_yaml

PROJECT, LOCKED = Path("pyproject.toml"), Path("constraints.txt")


def beside(path: Path) -> Path:
    """Return where the provenance of a file is: models/a.provenance.json for models/a.bin."""
    return path.with_suffix(".provenance.json")


def code_of(stage: str, hashes: dict[str, str]) -> dict[str, str]:
    """Select the files that dvc.yaml lists as deps of a stage."""
    stages = read_yaml(Path("dvc.yaml"))["stages"]
    if stage not in stages:
        raise UserError(f"dvc.yaml: no stage {stage}, which stages/{stage}.py runs; give both one name")
    deps = tuple(f"{dep}/" for dep in stages[stage].get("deps", ()))
    return {path: digest for path, digest in hashes.items() if f"{path}/".startswith(deps)}


def params_of(stage: str) -> dict[str, Any]:
    """Return the values in params.yaml that dvc.yaml lists as params of a stage, by dotted name."""
    listed = tuple(f"{each}." for each in read_yaml(Path("dvc.yaml"))["stages"][stage].get("params", ()))
    given = json.loads(json.dumps(read_yaml(Path("params.yaml")), default=str))  # as `parse` takes them
    return {name: value for name, value in flat(given).items() if f"{name}.".startswith(listed)}


def packages() -> dict[str, str]:
    """Return the installed versions of what pyproject.toml requires, directly or not, and constraints.txt locks."""
    waiting = [*tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]]
    found: dict[str, str] = {}
    while waiting:
        required = Requirement(waiting.pop())
        name = canonicalize_name(required.name)
        if name in found or (required.marker and not required.marker.evaluate({"extra": ""})):
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = installed.version
        waiting += installed.requires or ()
    locked = {canonicalize_name(line.split("==")[0]) for line in LOCKED.read_text(encoding="utf-8").splitlines()}
    return {name: found[name] for name in sorted(found.keys() & locked)}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        found |= flat(value, name) if isinstance(value, dict) else {name: value}
    return found
