"""The table of results: every value in its column, from the files that the stages write."""

import json
from pathlib import Path

import pytest

from ddpm.pipeline.console import UserError
from scripts import results

SCORES = {
    "b": {
        "samples": {"frechet": 2, "frechet_over_floor": 4},
        "test": {"frechet": 1, "frechet_over_floor": 2},
        "floor": {"frechet": 0.5, "frechet_over_floor": 1},
    },
    "samples": {"precision": 0.25, "recall": 0.5, "copying_z_pixels": -1.5, "copying_z_features": 2},
    "test": {"precision": 0.75, "recall": 1},
}
FILTER = {"drawn": 8, "kept": 6, "share": 0.75}
BITS = {"images": 10, "test": {"bits_per_dim": 2.5}, "train": {"bits_per_dim": 2.25}}
ACCURACY = {"samples": {"accuracy": 0.5}, "real": {"accuracy": 0.875}}


def test_values_stand_in_their_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, values in zip(results.FILES.values(), (SCORES, FILTER, BITS, ACCURACY), strict=True):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(json.dumps(values))
    article = tmp_path / "article"  # of which only a part is there
    (article / "likelihood").mkdir(parents=True)
    (article / results.FILES["bits"]).write_text(json.dumps({"test": {"bits_per_dim": 3}}))
    monkeypatch.setattr(
        results, "FOLDERS", {"default": [tmp_path], "article": [article], "other": [tmp_path / "absent"]}
    )
    results.main()
    table = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in capsys.readouterr().out.splitlines())
    }
    assert table[""] == ["default", "article", "test images", "training images"]
    assert table["kept by the filter"] == ["0.750", "", "", ""]
    assert table["Frechet distance, classifier b"] == ["2.0000", "", "1.0000", "0.5000"]
    assert table["... over the floor"] == ["4.0", "", "2.0", "1.0"]
    assert table["precision, recall"] == ["0.250, 0.500", "", "0.750, 1.000", ""]
    assert table["copying z in pixels, in features"] == ["-1.5, 2.0", "", "", ""]
    assert table["bits per dimension of test, of training images"] == ["2.500, 2.250", "3.000", "", ""]
    assert table["classification accuracy score"] == ["0.5000", "", "", "0.8750"]


def test_of_one_class_there_are_no_class_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"precision": 0.5, "recall": 0.25, "confident_share": None, "class_imbalance": None}
    values = {"scores": {"samples": row, "test": row}, "accuracy": {"count": 0, "samples": None, "real": None}}
    for name, each in values.items():
        (tmp_path / results.FILES[name]).parent.mkdir(parents=True)
        (tmp_path / results.FILES[name]).write_text(json.dumps(each))
    results.main({"samples": [tmp_path]})
    lines = capsys.readouterr().out.splitlines()
    assert "| precision, recall | 0.500, 0.250 | 0.500, 0.250 |  |" in lines
    for name in ("recognised", "class imbalance, chi-square", "classification accuracy score"):
        assert f"| {name} |  |  |  |" in lines


def test_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path / 'absent'}: no such folder of metrics$"):
        results.main({"samples": [tmp_path, tmp_path / "absent"]})


def test_without_any_run_it_is_said_how_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^metrics: no such folder; make it by `dvc repro`$"):
        results.main()


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / results.FILES["scores"]
    path.parent.mkdir()
    path.write_text("{\n<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"scores\.json: not valid JSON"):
        results.main({"samples": [tmp_path]})
