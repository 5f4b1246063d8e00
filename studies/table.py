"""Keep the rows of a study in a csv file, so that an interrupted study continues; and write rows as a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from exact_stages.files import write_whole


class Table:
    """Rows of texts, written after every addition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()
        self.rows: list[dict[Any, Any]] = rows.to_dict("records")

    def has(self, key: Mapping[str, object]) -> bool:
        """Tell whether a row has these values."""
        return any(all(row.get(name) == str(value) for name, value in key.items()) for row in self.rows)

    def add(self, *rows: Mapping[str, object]) -> None:
        """Add the rows that are not there, and write the file."""
        self.rows += [{name: str(value) for name, value in row.items()} for row in rows if not self.has(row)]
        write_whole(self.path, pd.DataFrame(self.rows).to_csv(index=False).encode())


def rows_of(folder: Path) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return the rows that the stages of a study have made, and in what environment each stage made them."""
    found = [json.loads(file.read_bytes()) for file in sorted(folder.glob("*.json"))]
    return pd.DataFrame([row for each in found for row in each["rows"]]), [each["made_in"] for each in found]


def markdown(rows: Sequence[Sequence[str]], made_in: Sequence[Mapping[str, object]]) -> bytes:
    """Return rows as a table, the first as its head, and below where they were made."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines[1:1] = ["| --- " * len(rows[0]) + "|"]
    places = dict.fromkeys(", ".join(map(str, each.values())) for each in made_in)
    return "\n".join([*lines, "", f"Made in: {'; '.join(places)}", ""]).encode()
