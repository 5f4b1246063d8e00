"""The tables of runs: every value in its column, with what chance may move it by; and the pages that have them."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

from exact_stages.console import UserError
from scripts import publish
from scripts.reporting import tables
from scripts.reporting.runs import Run
from tests.browser.runs import SCORES, whole_run


def test_values_stand_in_their_columns() -> None:
    changed = {"samples": {"near_copies_ratio_pixels": None, "near_copies_pixels": 0.01}}
    changed["test"] = {"precision": 0.75, "precision_deviation": 0.125, "recall": 1, "confident_share": None}
    run = whole_run(**{"filter/summary": {"share": 0.75}, "evaluate/scores": SCORES | changed})
    rows = tables.scores([tables.numbers(run), {}])
    assert rows == {
        "kept by the filter": ["0.750", "", "", ""],
        "Frechet distance, classifier b": ["2.0000 +- 0.5000", "", "1.0000", "0.5000"],
        "precision, recall": ["", "", "0.750 +- 0.125, 1.000", ""],
        "classification accuracy score": ["0.5000", "", "", "0.8750"],
        "near copies by ratio, by distance": ["-, 0.0100", "", "", ""],
        "bits per dimension of test, of training images": ["2.500, 2.250", "", "", ""],
    }
    assert tables.MEANINGS.keys() == tables.MEASURES.keys()


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


def test_only_a_run_that_is_up_to_date_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = Run("workspace", {}, stale={"train": "train.lr"})
    monkeypatch.setattr(publish, "open_run", lambda _: found)
    with pytest.raises(UserError, match=r"not up to date.*train \(train.lr\)"):
        publish.up_to_date()
