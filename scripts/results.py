"""Print all scores of the default and of two other configurations, or of other runs; of several, their means.

    python -m scripts.results [RUN ...]

RUN is a record such as results/speedrun-0, a revision or an experiment; '' is the workspace. Stages that are not up to
date with their run are named, and their numbers left out.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from dvc.utils.flatten import flatten

from ddpm.pipeline.console import run
from scripts.reporting.runs import TRAINED, Run, open_run

FILES = {
    "scores": "evaluate/scores.json",
    "filter": "filter/summary.json",
    "bits": "likelihood/bits.json",
    "accuracy": "classification_accuracy_score/accuracy.json",
}
SPREADS = {"bits_per_dim": "standard_error"}  # for other values: the name and _deviation
SPACES = ("pixels", "features")
# The digits and values of each row. {row} is "samples" for a model, then "test" and "baseline". {learned} is the
# same, but "real" in the last column. {test}, {train} and {share} exist for models alone.
ROWS = {
    "kept by the filter": (3, ["filter.{share}"]),
    "Frechet distance, classifier b": (4, ["scores.b.{row}.frechet"]),
    "Frechet distance, classifier a": (4, ["scores.a.{row}.frechet"]),
    "Frechet distance, pixels": (3, ["scores.pixels.{row}.frechet"]),
    "told from real images by a network": (3, ["scores.{row}.two_sample_accuracy"]),
    "... without tone": (3, ["scores.{row}.two_sample_without_tone_accuracy"]),
    "pixels at level 0, at 1 to 9": (4, ["scores.{row}.level_0", "scores.{row}.levels_1_to_9"]),
    "precision, recall": (3, ["scores.{row}.precision", "scores.{row}.recall"]),
    "density, coverage": (3, ["scores.{row}.density", "scores.{row}.coverage"]),
    "shows the class asked for": (3, ["scores.{row}.label_accuracy"]),
    "nearest in pixels, in features": (3, [f"scores.{{row}}.nearest_train_{space}" for space in SPACES]),
    "near copies in pixels, in features": (4, [f"scores.{{row}}.near_copies_{space}" for space in SPACES]),
    "... by the ratio to the next": (4, [f"scores.{{row}}.near_copies_ratio_{space}" for space in SPACES]),
    "bits per dimension of test, of training images": (3, ["bits.{test}.bits_per_dim", "bits.{train}.bits_per_dim"]),
    "classification accuracy score": (4, ["accuracy.{learned}.accuracy"]),
}
# The rows that docs/results.md shows: the entry in docs/reference/scores.md, and the better direction.
ON_THE_PAGE = {
    "Frechet distance, classifier b": ("frechet-distance", "lower"),
    "Frechet distance, pixels": ("frechet-distance", "lower"),
    "told from real images by a network": ("two-sample-accuracy", "0.5"),
    "... without tone": ("two-sample-accuracy", "0.5"),
    "precision, recall": ("precision-and-recall", "higher"),
    "density, coverage": ("density-and-coverage", "1, higher"),
    "shows the class asked for": ("shows-the-class-asked-for", "higher"),
    "near copies in pixels, in features": ("near-copies", "to 0.01"),
    "bits per dimension of test, of training images": ("bits-per-dimension", "lower"),
    "classification accuracy score": ("classification-accuracy-score", "higher"),
    "kept by the filter": ("kept-by-the-filter", "higher"),
}
CONFIGURATIONS = {
    "default": ("", "make repro"),
    "without classes": ("results/unlabelled", "make unlabelled"),
    "reference": ("results/article", "make article"),
    "distilled, 4 evaluations": ("results/distilled-4", "make distilled STEPS=4"),
    "distilled, 2 evaluations": ("results/distilled-2", "make distilled STEPS=2"),
    "distilled, 1 evaluation": ("results/distilled-1", "make distilled STEPS=1"),
    "Fashion-MNIST": ("results/fashion", "make fashion"),
}
COLUMNS = {name: [CONFIGURATIONS[name][0]] for name in ("default", "without classes", "reference")}


def main(columns: Mapping[str, Sequence[str]]) -> None:
    """Print a row for each measure; a column for each model, for real test images and for left-out training images.

    A column of several runs shows their mean; values of real images come from the first run.
    """
    runs = {name: [open_run(each) for each in revs] for name, revs in columns.items()}
    values = {name: [numbers(each) for each in found] for name, found in runs.items()}
    first = next(iter(values.values()))[0]
    cells = {name: (together(found), "samples") for name, found in values.items()}
    cells |= {"test images": (first, "test"), "training images": (first, "baseline")}
    print(f"| | {' | '.join(cells)} |")
    print("| --- " * (len(cells) + 1) + "|")
    for text, (digits, paths) in ROWS.items():
        print(f"| {text} | {' | '.join(cell(found, row, digits, paths) for found, row in cells.values())} |")
    for each in (each for found in runs.values() for each in found if each.left_out):
        print(each.left_out, file=sys.stderr)


def numbers(run: Run) -> dict[str, float]:
    """Return all scores of one run by their dotted paths; bits only where the trained model is the sampled one."""
    files = {name: file for name, file in FILES.items() if name != "bits" or run.model == TRAINED}
    return _numbers({name: run.flat(f"metrics/{file}") for name, file in files.items()})


def _numbers(read: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    found = {f"{name}.{key}": value for name, values in read.items() for key, value in values.items()}
    return {path: value for path, value in found.items() if isinstance(value, int | float)}


def cell(found: Mapping[str, float], row: str, digits: int, paths: Sequence[str]) -> str:
    """Format the values at these paths in ROWS for a model's samples, test images or the baseline; a dash for none."""
    of_models = {name: name if row == "samples" else "" for name in ("test", "train", "share")}
    names = {"row": row, "learned": "real" if row == "baseline" else row, **of_models}
    return ", ".join(shown(found, path.format(**names), digits) for path in paths).removesuffix(", -").removesuffix("-")


def shown(found: Mapping[str, float], path: str, digits: int) -> str:
    """Format the value at this path, with its spread by chance where that is known; or a dash."""
    if path not in found:
        return "-"
    spread = found.get(spread_of(path))
    return f"{found[path]:.{digits}f}" + ("" if spread is None else f" +- {spread:.{digits}f}")


def spread_of(path: str) -> str:
    """Return the path of the spread of the value at this path."""
    parent, _, name = path.rpartition(".")
    return f"{parent}.{SPREADS.get(name, f'{name}_deviation')}"


def together(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value that all runs have; the spread between runs replaces the spread within one."""
    if len(runs) == 1:
        return runs[0]
    common = set.intersection(*map(set, runs))
    values = {path: [run[path] for run in runs] for path in common}
    spreads = {spread_of(path): stdev(each) for path, each in values.items()}
    return {path: mean(each) for path, each in values.items()} | spreads


def page_table() -> str:
    """Return the table of docs/results.md from the committed metrics."""
    found = {name: recorded(Path(folder)) for name, [folder] in COLUMNS.items()}
    real = found["default"]
    lines = [f"| score | better | real images | {' | '.join(found)} |", "| --- " * (3 + len(found)) + "|"]
    for text, (entry, better) in ON_THE_PAGE.items():
        values = [cell(real, "test", *ROWS[text]) or cell(real, "baseline", *ROWS[text])]
        values += [cell(each, "samples", *ROWS[text]) for each in found.values()]
        lines.append(f"| [{text}](reference/scores.md#{entry}) | {better} | {' | '.join(values)} |")
    return "\n".join(lines).replace(" +- ", "\u00a0±\u00a0")


def configuration_table() -> str:
    """Return the table of the other configurations, each next to real images of its own set."""
    head = ["configuration", "command", "Frechet distance, b", "times real", "told from real", "shows class", "real"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, (folder, command) in CONFIGURATIONS.items():
        found = recorded(Path(folder))
        distance, real = (found.get(f"scores.b.{row}.frechet") for row in ("samples", "test"))
        distances = [f"{distance:.3f}", f"{distance / real:.1f}"] if distance and real else ["", ""]
        shares = [cell(found, row, 3, ["scores.{row}.label_accuracy"]) for row in ("samples", "test")]
        told = cell(found, "samples", 3, ["scores.{row}.two_sample_accuracy"])
        linked = f"[{name}](../{folder}/params.yaml)" if folder else name
        cells = [linked, f"`{command}`", *distances, told, *shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace(" +- ", "\u00a0±\u00a0")


def recorded(folder: Path) -> dict[str, float]:
    """Return all scores in a folder's metrics by their dotted paths, whether or not they are up to date."""
    files = {name: folder / "metrics" / file for name, file in FILES.items()}
    read = {name: dict(flatten(json.loads(path.read_text()))) for name, path in files.items() if path.exists()}
    return _numbers(read)


if __name__ == "__main__":
    run(partial(main, {"samples": sys.argv[1:]} if len(sys.argv) > 1 else COLUMNS))
