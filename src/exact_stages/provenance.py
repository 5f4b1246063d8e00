"""Name the provenance of a file, and its values."""

from pathlib import Path
from typing import Any

PROJECT, LOCKED = Path("pyproject.toml"), Path("constraints.txt")


def beside(path: Path) -> Path:
    """Return where the provenance of a file is: models/a.provenance.json for models/a.bin."""
    return path.with_suffix(".provenance.json")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        found |= flat(value, name) if isinstance(value, dict) else {name: value}
    return found
