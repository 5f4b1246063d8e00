"""The tables of runs: every value in its column, with what chance may move it by; and the pages that have them."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

from scripts import publish, tables
from scripts.runs import Run

SCORES = {
    "b": {
        "samples": {"frechet": 2, "frechet_error": 0.25},
        "test": {"frechet": 1},
        "baseline": {"frechet": 0.5},
    },
    "samples": {"precision": 0.25, "recall": 0.5, "near_copies_ratio_pixels": None, "near_copies_pixels": 0.01},
    "test": {"precision": 0.75, "precision_deviation": 0.125, "recall": 1, "confident_share": None},
}
BITS = {"images": 10, "test": {"bits_per_dim": 2.5, "standard_error": 0.25}, "train": {"bits_per_dim": 2.25}}
FILES = {"scores": SCORES, "filter": {"share": 0.75}, "bits": BITS}
FILES["accuracy"] = {"samples": {"accuracy": 0.5}, "real": {"accuracy": 0.875}}


def test_values_stand_in_their_columns() -> None:
    run = Run("mine", {tables.FILES[name]: json.dumps(values).encode() for name, values in FILES.items()})
    rows = tables.scores([tables.numbers(run), {}])
    assert rows == {
        "kept by the filter": ["0.750", "", "", ""],
        "Frechet distance, classifier b": ["2.0000 +- 0.2500", "", "1.0000", "0.5000"],
        "precision, recall": ["0.250, 0.500", "", "0.750 +- 0.125, 1.000", ""],
        "classification accuracy score": ["0.5000", "", "", "0.8750"],
        "near copies by ratio, by distance": ["-, 0.0100", "", "", ""],
        "bits per dimension of test, of training images": ["2.500 +- 0.250, 2.250", "", "", ""],
    }


def test_of_several_runs_the_mean_and_their_spread_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    records = ["results/distilled-1", "results/distilled-2"]
    publish.print_scores(*records)
    scores = [json.loads(Path(each, "record.json").read_text())["metrics"]["evaluate/scores"] for each in records]
    distances = [each["b"]["samples"]["frechet"] for each in scores]
    expected = f"{mean(distances):.4f}\u00a0±\u00a0{stdev(distances):.4f}"
    assert f"| Frechet distance, classifier b | {expected} |" in capsys.readouterr().out


@pytest.mark.parametrize("page", [publish.README, publish.RESULTS], ids=str)
def test_pages_have_the_numbers_of_metrics(page: Path) -> None:
    text = page.read_text()
    assert publish.filled(text) == text, "python -m scripts.publish pages writes it"
    b = json.loads(Path("metrics/evaluate/scores.json").read_text())["b"]
    cells = text.partition("[Frechet distance, classifier b](")[2].split(" | ")[2:5]
    assert [float(each.split()[0]) for each in cells] == pytest.approx(
        [b[row]["frechet"] for row in ("test", "baseline", "samples")], abs=6e-5
    )
