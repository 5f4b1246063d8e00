"""Print the table of docs/results.md, or that of another folder of metrics.

    python -m scripts.results [docs/fashion/metrics]
    python -m scripts.results docs/speedrun-*/metrics

That is made of metrics/, docs/unlabelled/metrics/ and docs/article/metrics/. Of several folders the mean is shown, and
the standard deviation between them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ddpm.pipeline.console import UserError, run

FOLDERS = {
    "default": [Path("metrics")],
    "without classes": [Path("docs/unlabelled/metrics")],
    "article": [Path("docs/article/metrics")],
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


def main(folders: Mapping[str, Sequence[Path]] | None = None) -> None:
    """A row for each measure; a column for each model, for real test images, and for training images left out.

    A column of several folders has their mean; what stands of real images is of the first.
    """
    runs = {}
    for name, each in (folders or FOLDERS).items():
        absent = [folder for folder in each if not folder.is_dir()]
        if not absent:
            runs[name] = [flat(folder) for folder in each]
        elif folders:
            raise UserError(f"{absent[0]}: no such folder of metrics")
    if not runs:
        raise UserError("metrics: no such folder; make it by `dvc repro`")
    first = next(iter(runs.values()))[0]
    columns = {name: (together(found), "samples") for name, found in runs.items()}
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
    spread = found.get(spread_of(path))
    return f"{found[path]:.{digits}f}" + ("" if spread is None else f" +- {spread:.{digits}f}")


def spread_of(path: str) -> str:
    """Where the file says how far chance may move the value at this path."""
    parent, _, name = path.rpartition(".")
    return f"{parent}.{SPREADS.get(name, f'{name}_deviation')}"


def together(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of several runs, of values that all have, and in place of the spread within one that between them."""
    if len(runs) == 1:
        return runs[0]
    common = set.intersection(*map(set, runs))
    values = {path: [run[path] for run in runs] for path in common}
    spreads = {spread_of(path): stdev(each) for path, each in values.items()}
    return {path: mean(each) for path, each in values.items()} | spreads


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
    run(partial(main, {"samples": [*map(Path, sys.argv[1:])]} if len(sys.argv) > 1 else None))
