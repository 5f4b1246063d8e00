"""Build the tables of runs: scores, params, and hashes of data and models."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from scripts.reporting.runs import TRAINED, Run

FILES = {
    "scores": "metrics/evaluate/scores.json",
    "filter": "metrics/filter/summary.json",
    "bits": "metrics/likelihood/bits.json",
    "accuracy": "metrics/classification_accuracy_score/accuracy.json",
}


class Measure(NamedTuple):
    """Where the values of a row are.

    In a path, {row} is "samples" for a model, then "test" and "baseline"; {learned} is the same, but "real" in the last
    column; {test}, {train} and {share} exist for models alone.
    """

    part: str  # of the report: quality or copies
    form: str
    paths: list[str]


MEASURES = {
    "kept by the filter": Measure("quality", ".3f", ["filter.{share}"]),
    "Frechet distance, classifier b": Measure("quality", ".4f", ["scores.b.{row}.frechet"]),
    "Frechet distance, classifier a": Measure("quality", ".4f", ["scores.a.{row}.frechet"]),
    "Frechet distance, pixels": Measure("quality", ".3f", ["scores.pixels.{row}.frechet"]),
    "C2ST accuracy": Measure("quality", ".3f", ["scores.{row}.c2st_accuracy"]),
    "C2ST accuracy, black and white": Measure("quality", ".3f", ["scores.{row}.c2st_black_and_white_accuracy"]),
    "precision, recall": Measure("quality", ".3f", ["scores.{row}.precision", "scores.{row}.recall"]),
    "conditional accuracy": Measure("quality", ".3f", ["scores.{row}.conditional_accuracy"]),
    "classification accuracy score": Measure("quality", ".4f", ["accuracy.{learned}.accuracy"]),
    "near copies by ratio, by distance": Measure(
        "copies", ".4f", ["scores.{row}.near_copies_ratio_pixels", "scores.{row}.near_copies_pixels"]
    ),
    "bits per dimension of test, of training images": Measure(
        "quality", ".3f", ["bits.{test}.bits_per_dim", "bits.{train}.bits_per_dim"]
    ),
}
MEANINGS = {  # docs/reference/scores.md has more
    "kept by the filter": "The share of samples that the filter keeps. All scores but the bits use these alone.",
    "Frechet distance, classifier b": "The distance from the training images, in the features of a classifier that is"
    " only for reporting. Lower is better. Test images show how low real images get.",
    "Frechet distance, classifier a": "The same by classifier a, which selects the settings.",
    "Frechet distance, pixels": "The same on principal components of the pixels, without a network.",
    "C2ST accuracy": "The accuracy of a small network that learns to tell samples from real images"
    " on unseen ones. 0.5 is chance; 1 means that every sample shows a trace.",
    "C2ST accuracy, black and white": "The same in black and white, so that only shapes count.",
    "precision, recall": "The share of samples among real images (quality), of real images among samples (variety).",
    "conditional accuracy": "The share that shows the class asked for, according to the classifier.",
    "classification accuracy score": "The accuracy on real test images of a classifier trained on samples alone; in the"
    " last column, of one trained on as many real images.",
    "near copies by ratio, by distance": "The share that is nearer to a training image than 99 % of test images"
    " without near-duplicates. Copies raise both, blur the second alone.",
    "bits per dimension of test, of training images": "An upper bound on the bits per pixel value. Lower is better. Far"
    " fewer bits for training images than for test images mean that the model memorised them.",
}


def numbers(run: Run) -> dict[str, float]:
    """Return all scores of one run by their dotted paths; bits only where the trained model is the sampled one."""
    files = {name: path for name, path in FILES.items() if name != "bits" or run.model == TRAINED}
    found = {f"{name}.{key}": value for name, path in files.items() for key, value in run.flat(path).items()}
    return {path: value for path, value in found.items() if isinstance(value, int | float)}


def cell(found: Mapping[str, float], row: str, measure: Measure) -> str:
    """Format the values of a model's samples, of test images or of the baseline; a dash for none, empty if all lack."""
    of_models = {name: name if row == "samples" else "" for name in ("test", "train", "share")}
    names = {"row": row, "learned": "real" if row == "baseline" else row, **of_models}
    cells = [shown(found, path.format(**names), measure.form) for path in measure.paths]
    return ", ".join(cells).removesuffix(", -").removesuffix("-")


def shown(found: Mapping[str, float], path: str, form: str) -> str:
    """Format the value at this path, with its spread by chance where that is known; or a dash."""
    if path not in found:
        return "-"
    # A deviation is between trainings. Scores before version 2 call an error so, too.
    known = (f"{path}_error", f"{path}_deviation", f"{path.rpartition('.')[0]}.standard_error")
    spread = next((found[each] for each in known if each in found), None)
    return f"{found[path]:{form}}" + ("" if spread is None else f" +- {spread:{form}}")


def together(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value that all runs have; the spread between runs replaces the spread within one."""
    if len(runs) == 1:
        return runs[0]
    values = {path: [run[path] for run in runs] for path in set.intersection(*map(set, runs))}
    spreads = {f"{path}_error": stdev(each) for path, each in values.items()}
    return {path: mean(each) for path, each in values.items()} | spreads


def scores(found: Sequence[dict[str, float]]) -> dict[str, list[str]]:
    """Return the cells of each measure that has any: one for each run, then for test images and the baseline."""
    columns = [*((values, "samples") for values in found), (found[0], "test"), (found[0], "baseline")]
    rows = {name: [cell(values, row, measure) for values, row in columns] for name, measure in MEASURES.items()}
    return {name: cells for name, cells in rows.items() if any(cells)}


def beside(columns: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Return name and values of everything in any of the columns; "" where a column has none."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, "") for column in columns)] for name in names]


def hashes(run: Run) -> dict[str, dict[str, str]]:
    """Return the MD5 of data and models."""
    every = sorted(run.hashes.items())
    return {kind: {path: md5 for path, md5 in every if path.startswith(f"{kind}/")} for kind in ("data", "models")}
