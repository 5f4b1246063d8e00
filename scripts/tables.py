"""Build the table of the scores of runs."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from scripts.runs import TRAINED, Run

FILES = {
    "scores": "metrics/evaluate/scores.json",
    "filter": "metrics/filter/summary.json",
    "bits": "metrics/likelihood/bits.json",
    "accuracy": "metrics/classification_accuracy_score/accuracy.json",
}

ROWS = {
    "unfiltered": "before the filter",
    "samples": "samples",
    "real": "training images of the same classes",
    "real_filtered": "the same through the filter",
    "test": "test images",
}


class Measure(NamedTuple):
    """Where the values of a row are, and what they say.

    In a path, {row} is one of ROWS; {test}, {train} and {share} exist for samples alone.
    """

    form: str
    paths: list[str]
    meaning: str  # docs/reference/scores.md has more


MEASURES = {
    "kept by the filter": Measure(
        ".3f",
        ["filter.{share}"],
        "The share of samples that the filter keeps, the clearest of each class.",
    ),
    "images": Measure(".0f", ["scores.{row}.images"], "The number of images."),
    "Frechet distance, classifier b": Measure(
        ".4f",
        ["scores.b.{row}.frechet"],
        "The distance from the training images, in the features of a classifier that is only for reporting. Lower is"
        " better.",
    ),
    "excess, classifier b": Measure(
        ".4f",
        ["scores.b.{row}.frechet_excess"],
        "How much larger this distance is than that of as many training images of the same classes, drawn at random and"
        " left out of those that all are compared with.",
    ),
    "Frechet distance, classifier a": Measure(
        ".4f", ["scores.a.{row}.frechet"], "The same distance by classifier a, which selects the settings, and filters."
    ),
    "Frechet distance, pixels": Measure(
        ".3f", ["scores.pixels.{row}.frechet"], "The same on principal components of the pixels, without a network."
    ),
    "C2ST accuracy at 256, 8, 2 levels": Measure(
        ".3f",
        [f"scores.{{row}}.c2st_{levels}accuracy" for levels in ("", "8_levels_", "black_and_white_")],
        "The accuracy of a small network that learns to tell samples from real images on unseen ones, with all levels"
        " and with fewer. 0.5 is chance; 1 means that every sample shows a trace.",
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
        ["accuracy.{row}.accuracy"],
        "The accuracy on real test images of a classifier trained on samples alone, or on as many training images.",
    ),
    "near copies": Measure(
        ".4f",
        ["scores.{row}.near_copies_ratio_pixels"],
        "The share that is nearer to a training image than 99 % of test images without near-duplicates.",
    ),
    "specks": Measure(
        ".3f", ["scores.{row}.specks"], "The share with a lone speck: a pixel above 0 whose eight neighbours are all 0."
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
    """Format the values of one of ROWS: a dash for one that lacks, empty if all do."""
    of_samples = {name: name if row == "samples" else "" for name in ("test", "train", "share")}
    cells = [shown(found, path.format(row=row, **of_samples), measure.form) for path in measure.paths]
    return "" if {*cells} == {"-"} else ", ".join(cells)


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
    spreads = {f"{path}_deviation": stdev(each) for path, each in values.items() if len({*each}) > 1}
    return {path: mean(each) for path, each in values.items()} | spreads


def scores(columns: Iterable[tuple[Mapping[str, float], str]]) -> dict[str, list[str]]:
    """Return the cells of each measure that has any, for columns of a run's numbers and one of ROWS."""
    columns = [*columns]
    rows = {name: [cell(values, row, measure) for values, row in columns] for name, measure in MEASURES.items()}
    return {name: cells for name, cells in rows.items() if any(cells)}
