"""Print the table of docs/results.md, or that of another folder of metrics.

    python -m scripts.results [docs/fashion/metrics]

That is made of metrics/, docs/unlabelled/metrics/ and docs/article/metrics/.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ddpm.runtime.console import UserError, run

FOLDERS = {
    "default": Path("metrics"),
    "without classes": Path("docs/unlabelled/metrics"),
    "article": Path("docs/article/metrics"),
}
FILES = {
    "scores": "evaluate/scores.json",
    "filter": "filter/summary.json",
    "bits": "likelihood/bits.json",
    "accuracy": "classification_accuracy_score/accuracy.json",
}
SPREADS = {"kid": "kid_error", "bits_per_dim": "standard_error"}  # of any other value, its name and _deviation
SPACES = ("pixels", "features")
# What a row shows, with how many digits. {row} is "samples" for a model, then "test" and "floor"; {learned} is
# that, but "real" in the last; {test}, {train} and {share} are for models alone.
ROWS = {
    "kept by the filter": (3, ["filter.{share}"]),
    "Frechet distance, classifier b": (4, ["scores.b.{row}.frechet"]),
    "... over the floor": (1, ["scores.b.{row}.frechet_over_floor"]),
    "Frechet distance, classifier a": (4, ["scores.a.{row}.frechet"]),
    "Frechet distance, pixels": (3, ["scores.pixels.{row}.frechet"]),
    "KID, classifier b": (5, ["scores.b.{row}.kid"]),
    "precision, recall": (3, ["scores.{row}.precision", "scores.{row}.recall"]),
    "density, coverage": (3, ["scores.{row}.density", "scores.{row}.coverage"]),
    "recognised": (3, ["scores.{row}.confident_share"]),
    "recognised as the class asked for": (3, ["scores.{row}.label_accuracy"]),
    "class imbalance, chi-square": (3, ["scores.{row}.class_imbalance", "scores.{row}.class_chi_square"]),
    "nearest in pixels, in features": (3, [f"scores.{{row}}.nearest_train_{space}" for space in SPACES]),
    "copying z in pixels, in features": (1, [f"scores.{{row}}.copying_z_{space}" for space in SPACES]),
    "near copies in pixels, in features": (4, [f"scores.{{row}}.near_copies_{space}" for space in SPACES]),
    "... by the ratio to the next": (4, [f"scores.{{row}}.near_copies_ratio_{space}" for space in SPACES]),
    "twins in pixels, in features": (4, [f"scores.{{row}}.twins_{space}" for space in SPACES]),
    "bits per dimension of test, of training images": (3, ["bits.{test}.bits_per_dim", "bits.{train}.bits_per_dim"]),
    "classification accuracy score": (4, ["accuracy.{learned}.accuracy"]),
}


def main(folders: Mapping[str, Path] | None = None) -> None:
    """A row for each measure; a column for each model, for real test images, and for training images left out."""
    folders = folders or FOLDERS
    runs = {name: flat(folder) for name, folder in folders.items() if folder.is_dir()}
    if not runs:
        raise UserError(f"{', '.join(map(str, folders.values()))}: no such folder of metrics")
    first = next(iter(runs.values()))
    columns = {name: (found, "samples") for name, found in runs.items()}
    columns |= {"test images": (first, "test"), "training images": (first, "floor")}
    print(f"| | {' | '.join(columns)} |")
    print("| --- " * (len(columns) + 1) + "|")
    for text, (digits, paths) in ROWS.items():
        cells = []
        for found, row in columns.values():
            values = [shown(found, of_row(path, row), digits) for path in paths]
            cells.append(", ".join(values).removesuffix(", -").removesuffix("-"))
        print(f"| {text} | {' | '.join(cells)} |")


def of_row(path: str, row: str) -> str:
    """One of the paths in ROWS, as it is for a model's samples, for test images or for the floor."""
    of_models = {name: name if row == "samples" else "" for name in ("test", "train", "share")}
    return path.format(row=row, learned="real" if row == "floor" else row, **of_models)


def shown(found: Mapping[str, float], path: str, digits: int) -> str:
    """The value at this path, with how far chance may move it where that is known; or a dash."""
    if path not in found:
        return "-"
    parent, _, name = path.rpartition(".")
    spread = found.get(f"{parent}.{SPREADS.get(name, f'{name}_deviation')}")
    return f"{found[path]:.{digits}f}" + ("" if spread is None else f" +- {spread:.{digits}f}")


def flat(folder: Path) -> dict[str, float]:
    """All values of one run by their dotted paths."""
    found: dict[str, float] = {}

    def add(path: str, value: object) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{path}.{key}", inner)
        elif isinstance(value, int | float):
            found[path] = value

    for name, file in FILES.items():
        if (folder / file).exists():
            add(name, read_json(folder / file))
    return found


def read_json(path: Path) -> Any:
    """A file of metrics.

    Raises:
        UserError: it is damaged, by a merge perhaps.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); `git checkout` it, or make it anew") from None


if __name__ == "__main__":
    run(partial(main, {"samples": Path(sys.argv[1])} if len(sys.argv) > 1 else None))
