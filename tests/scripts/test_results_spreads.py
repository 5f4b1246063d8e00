"""The table of results: values with what chance may move them by."""

import json
from pathlib import Path

import pytest

from scripts import results

SCORES = {
    "b": {
        "samples": {"frechet": 0.5, "frechet_deviation": 0.25, "kid": 0.001, "kid_error": 0.0005},
        "test": {"frechet": 0.125, "frechet_deviation": 0.03125, "kid": -0.002, "kid_deviation": 1},
    },
    "samples": {"precision": 0.75, "near_copies_pixels": None, "near_copies_features": 0.01},
    "test": {
        "precision": 0.875,
        "precision_deviation": 0.125,
        "recall": 0.5,
        "twins_pixels": 0.02,
        "twins_features": 0,
    },
}
BITS = {"test": {"bits_per_dim": 2.5, "standard_error": 0.25}, "train": {"bits_per_dim": 2.25}}


def test_values_have_their_spreads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values in (("scores", SCORES), ("bits", BITS)):
        file = tmp_path / results.FILES[name]
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    results.main({"samples": [tmp_path]})
    table = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in capsys.readouterr().out.splitlines())
    }
    assert table["Frechet distance, classifier b"] == ["0.5000 +- 0.2500", "0.1250 +- 0.0312", ""]
    assert table["KID, classifier b"] == ["0.00100 +- 0.00050", "-0.00200", ""]  # a deviation of subsets is no error
    assert table["precision, recall"] == ["0.750", "0.875 +- 0.125, 0.500", ""]
    assert table["near copies in pixels, in features"] == ["-, 0.0100", "", ""]
    assert table["twins in pixels, in features"] == ["", "0.0200, 0.0000", ""]
    assert table["bits per dimension of test, of training images"] == ["2.500 +- 0.250, 2.250", "", ""]


def test_of_several_runs_the_mean_and_the_spread_between_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for seed, (frechet, kid, precision) in enumerate([(1.0, 0.001, 0.5), (2.0, 0.003, 0.5), (6.0, 0.002, 0.5)]):
        row = {"frechet": frechet, "frechet_deviation": 9, "kid": kid, "kid_error": 9}
        test = {"frechet": 0.5, "frechet_deviation": 9}
        file = tmp_path / str(seed) / results.FILES["scores"]
        file.parent.mkdir(parents=True)
        lacking = {"recall": 0.25} if seed else {}
        scores = {"b": {"samples": row, "test": test}, "samples": {"precision": precision, **lacking}}
        file.write_text(json.dumps(scores))
        folders.append(tmp_path / str(seed))
    results.main({"samples": folders})
    lines = capsys.readouterr().out.splitlines()
    assert "| Frechet distance, classifier b | 3.0000 +- 2.6458 | 0.5000 +- 9.0000 |  |" in lines
    assert "| KID, classifier b | 0.00200 +- 0.00100 |  |  |" in lines
    assert "| precision, recall | 0.500 +- 0.000 |  |  |" in lines  # one has no recall: there is no mean of all
