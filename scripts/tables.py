"""Build the table of the scores of runs."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from scripts.runs import TRAINED, Run

FILES = {
    "scores": "metrics/evaluate/scores.json",
    "filter": "metrics/filter/summary.json",
    "bits": "metrics/likelihood/bits.json",
    "accuracy": "metrics/classification_accuracy_score/accuracy.json",
}


class Measure(NamedTuple):
    """Where the values of a row are, and what they say.

    In a path, {row} is "samples" for a model, then "test" and "baseline"; {learned} is the same, but "real" in the last
    column; {test}, {train} and {share} exist for models alone.
    """

    form: str
    paths: list[str]
    meaning: str  # docs/reference/scores.md has more


MEASURES = {
    "kept by the filter": Measure(
        ".3f",
        ["filter.{share}"],
        "The share of samples that the filter keeps. All scores but the bits use these alone.",
    ),
    "Frechet distance, classifier b": Measure(
        ".4f",
        ["scores.b.{row}.frechet"],
        "The distance from the training images, in the features of a classifier that is only for reporting. Lower is"
        " better. Test images show how low real images get.",
    ),
    "Frechet distance, classifier a": Measure(
        ".4f", ["scores.a.{row}.frechet"], "The same by classifier a, which selects the settings."
    ),
    "Frechet distance, pixels": Measure(
        ".3f", ["scores.pixels.{row}.frechet"], "The same on principal components of the pixels, without a network."
    ),
    "C2ST accuracy": Measure(
        ".3f",
        ["scores.{row}.c2st_accuracy"],
        "The accuracy of a small network that learns to tell samples from real images on unseen ones. 0.5 is chance; 1"
        " means that every sample shows a trace.",
    ),
    "C2ST accuracy, black and white": Measure(
        ".3f",
        ["scores.{row}.c2st_black_and_white_accuracy"],
        "The same in black and white, so that only shapes count.",
    ),
    "precision, recall": Measure(
        ".3f",
        ["scores.{row}.precision", "scores.{row}.recall"],
        "The share of samples among real images (quality), of real images among samples (variety).",
    ),
    "conditional accuracy": Measure(
        ".3f",
        ["scores.{row}.conditional_accuracy"],
        "The share that shows the class asked for, according to the classifier.",
    ),
    "classification accuracy score": Measure(
        ".4f",
        ["accuracy.{learned}.accuracy"],
        "The accuracy on real test images of a classifier trained on samples alone; in the last column, of one trained"
        " on as many real images.",
    ),
    "near copies": Measure(
        ".4f",
        ["scores.{row}.near_copies_ratio_pixels"],
        "The share that is nearer to a training image than 99 % of test images without near-duplicates.",
    ),
    "bits per dimension of test, of training images": Measure(
        ".3f",
        ["bits.{test}.bits_per_dim", "bits.{train}.bits_per_dim"],
        "An upper bound on the bits per pixel value. Lower is better. Far fewer bits for training images than for test"
        " images mean that the model memorised them.",
    ),
}


def numbers(run: Run) -> dict[str, float]:
    """Return all scores of one run by their dotted paths; bits only where the trained model is the sampled one."""
    files = {name: path for name, path in FILES.items() if name != "bits" or run.model == TRAINED}
    found = {f"{name}.{key}": value for name, path in files.items() for key, value in run.flat(path).items()}
    return {path: value for path, value in found.items() if isinstance(value, int | float)}


def cell(found: Mapping[str, float], row: str, measure: Measure) -> str:
    """Format the values of samples, test images or the baseline; a dash for a first one that lacks, empty for none."""
    of_models = {name: name if row == "samples" else "" for name in ("test", "train", "share")}
    names = {"row": row, "learned": "real" if row == "baseline" else row, **of_models}
    cells = [shown(found, path.format(**names), measure.form) for path in measure.paths]
    return ", ".join(cells).removesuffix(", -").removesuffix("-")


def shown(found: Mapping[str, float], path: str, form: str) -> str:
    """Format the value at this path, with its spread by chance where that is known; or a dash."""
    if path not in found:
        return "-"
    # A deviation is between trainings.
    known = (f"{path}_error", f"{path}_deviation", f"{path.rpartition('.')[0]}.standard_error")
    spread = next((found[each] for each in known if each in found), None)
    return f"{found[path]:{form}}" + ("" if spread is None else f" +- {spread:{form}}")


def averaged(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value that all runs have; the spread between runs replaces the spread within one."""
    if len(runs) == 1:
        return runs[0]
    shared = set.intersection(*map(set, runs))
    values = {path: [run[path] for run in runs] for path in shared if not path.endswith("_error")}
    spreads = {f"{path}_deviation": stdev(each) for path, each in values.items()}
    return {path: mean(each) for path, each in values.items()} | spreads


def scores(found: Sequence[dict[str, float]]) -> dict[str, list[str]]:
    """Return the cells of each measure that has any: one for each run, then for test images and the baseline."""
    columns = [*((values, "samples") for values in found), (found[0], "test"), (found[0], "baseline")]
    rows = {name: [cell(values, row, measure) for values, row in columns] for name, measure in MEASURES.items()}
    return {name: cells for name, cells in rows.items() if any(cells)}
