"""Name the provenance of a file, and list the packages that made it."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT, LOCKED = Path("pyproject.toml"), Path("constraints.txt")


def beside(path: Path) -> Path:
    """Return where the provenance of a file is: models/a.provenance.json for models/a.bin."""
    return path.with_suffix(".provenance.json")


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
