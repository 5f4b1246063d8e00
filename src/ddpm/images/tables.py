"""Read a table that names the class of each image: of `ddpm generate`, or of an imagefolder of Hugging Face."""

import csv
import json
from collections import Counter
from pathlib import Path

from ddpm.images.card import listed
from exact_stages.console import UserError, shown

TABLES = {"labels.csv": "image", "metadata.csv": "file_name", "metadata.jsonl": "file_name"}  # the column of files


def read_table(path: Path) -> dict[Path, str]:
    """Return the labels of files, which the table names relative to its folder; a missing label is empty.

    Raises:
        UserError: the table is damaged, lacks a column, or has two rows of a file.
    """
    column = TABLES[path.name]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin it with a mark
            rows = (
                map(json.loads, filter(str.strip, file))
                if path.suffix == ".jsonl"
                else csv.DictReader(file, restval="")
            )
            pairs = [(path.parent / row[column], row["label"]) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        wanted = f"needs the columns {column} and label, and a row for each image"
        raise UserError(f"{path}: {wanted}; complete it, or rename it: {shown(str(error))}") from None
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise UserError(f"{path}: more than one row of {listed(twice)}; keep one of each")
    if odd := [name for name, label in pairs if type(label) not in (str, int)]:
        raise UserError(f"{path}: no label, or several, of {listed(odd)}; give each a word or a whole number")
    return {name: str(label) for name, label in pairs}
