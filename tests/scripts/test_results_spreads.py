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
    results.main({"samples": tmp_path})
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
