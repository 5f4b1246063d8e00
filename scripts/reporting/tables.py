"""Build the tables that compare runs: scores, params, and hashes of data, code and models."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from scripts.reporting.runs import Run
from scripts.results import ROWS, cell, numbers

MEANINGS = {
    "kept by the filter": "The share of samples that the filter keeps, by the probability that classifier a gives the"
    " class asked for; without classes, any class. All other scores but the bits use these alone.",
    "Frechet distance, classifier b": "The distance of the samples from the training images, in the features of a"
    " classifier that is only for reporting. Lower is better. Test images show how low real images get.",
    "Frechet distance, classifier a": "The same by classifier a, which selects the settings.",
    "Frechet distance, pixels": "The same on principal components of the pixels, without a network.",
    "told from real images by a network": "Two-sample test: the accuracy of a small network that learns to tell samples"
    " from real images, on unseen images. 0.5 is chance; 1 means that every sample shows a trace.",
    "... without tone": "The same with levels below 10 set to black and above 245 to white, so that only shapes count.",
    "pixels at level 0, at 1 to 9": "The shares of black and of nearly black pixels.",
    "precision, recall": "The share of samples that lie among real images (quality), and of real images that lie among"
    " samples (variety).",
    "density, coverage": "The same, less sensitive to single outliers.",
    "shows the class asked for": "The share that shows the class asked for, according to the classifier.",
    "nearest in pixels, in features": "The median distance to the nearest training image. Far below the value of test"
    " images, the model copies.",
    "near copies in pixels, in features": "The share that is nearer to a training image than 99 % of test images;"
    " 0.01 is expected.",
    "... by the ratio to the next": "The same by the ratio of the nearest distance to the ten that follow.",
    "bits per dimension of test, of training images": "An upper bound on the bits per pixel value. Lower is better. Far"
    " fewer bits for training images than for test images mean that the model memorised them.",
    "classification accuracy score": "The accuracy on real test images of a classifier trained on samples alone; in the"
    " last column, of one trained on as many real images.",
}


COPIES = [name for name in ROWS if any(word in name for word in ("near", "ratio"))]


class Score(NamedTuple):
    """A row of the table of scores."""

    name: str
    meaning: str
    part: str  # of the page: quality, copies or bits
    cells: list[str]  # one for each run, then test images and baseline


def scores(runs: Sequence[Run]) -> list[Score]:
    """Return the rows that have any value; test images and the baseline come from the first run."""
    found = [numbers(run) for run in runs]
    columns = [*((values, "samples") for values in found), (found[0], "test"), (found[0], "baseline")]
    rows = {name: [cell(values, row, *of_row) for values, row in columns] for name, of_row in ROWS.items()}
    return [Score(name, MEANINGS[name], part(name), cells) for name, cells in rows.items() if any(cells)]


def part(name: str) -> str:
    """Return the part of the page that shows a score."""
    if name.startswith("bits"):
        return "bits"
    return "copies" if name in COPIES else "quality"


def differences(columns: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Return name and values of everything that differs between columns; "" where a column has none."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "") for column in columns)] for name in names]
    return [row for row in rows if any(value != row[1] for value in row[2:])]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[list[Any]]:
    """Return the differences, and by how much numbers change."""
    rows = differences([before, after])
    numbers = [all(isinstance(value, int | float) for value in values) for _, *values in rows]
    return [[*row, f"{row[2] - row[1]:+.4g}" if number else ""] for row, number in zip(rows, numbers, strict=True)]


def metrics(run: Run) -> dict[str, Any]:
    """Return all values below metrics/, by file and dotted name."""
    files = sorted(path for path in run.files if path.startswith("metrics/") and path.endswith(".json"))
    return {
        f"{path.removeprefix('metrics/').removesuffix('.json')}: {name}": value
        for path in files
        for name, value in run.flat(path).items()
    }


def beside(runs: Sequence[dict[str, dict[str, Any]]]) -> dict[str, list[list[Any]]]:
    """Join groups of named values of several runs into rows of name and values; "" where a run has none."""
    groups = dict.fromkeys(group for run in runs for group in run)
    names = {group: dict.fromkeys(name for run in runs for name in run.get(group, {})) for group in groups}
    return {
        group: [[name, *(run.get(group, {}).get(name, "") for run in runs)] for name in names[group]]
        for group in groups
    }


def hashes(run: Run) -> dict[str, dict[str, str]]:
    """Return the MD5 of data, models and code."""
    known: dict[str, dict[str, str]] = {"data": {}, "models": {}, "code": {}}
    for path, md5 in sorted(run.hashes.items()):
        top = path.split("/")[0]
        if top != "metrics":
            known[top if top in known else "code"][path] = md5
    return known


def indexed(run: Run) -> dict[str, float]:
    """Return the scores of the samples that a model card lists for search engines."""
    found = numbers(run)
    paths = {
        "Frechet distance, classifier b": "scores.b.samples.frechet",
        "two-sample test accuracy (0.5 is chance)": "scores.samples.two_sample_accuracy",
        "precision": "scores.samples.precision",
        "recall": "scores.samples.recall",
        "bits per dimension": "bits.test.bits_per_dim",
        "classification accuracy score": "accuracy.samples.accuracy",
    }
    return {name: found[path] for name, path in paths.items() if path in found}
