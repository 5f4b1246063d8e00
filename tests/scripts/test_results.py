"""The table of results: every value in its column, with what chance may move it by."""

import json
from pathlib import Path

import pytest

from scripts import readme, results
from scripts.documenting import distances

SCORES = {
    "b": {
        "samples": {"frechet": 2, "frechet_deviation": 0.25},
        "test": {"frechet": 1},
        "baseline": {"frechet": 0.5},
    },
    "samples": {"precision": 0.25, "recall": 0.5, "near_copies_pixels": None, "near_copies_features": 0.01},
    "test": {"precision": 0.75, "precision_deviation": 0.125, "recall": 1, "label_accuracy": None},
}
FILTER = {"sampled": 8, "kept": 6, "share": 0.75}
BITS = {"images": 10, "test": {"bits_per_dim": 2.5, "standard_error": 0.25}, "train": {"bits_per_dim": 2.25}}
ACCURACY = {"samples": {"accuracy": 0.5}, "real": {"accuracy": 0.875}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("")


def record(name: str, **values: object) -> str:
    folder = Path("results", name)
    for key, each in values.items():
        path = folder / "metrics" / results.FILES[key]
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(each))
    (folder / "params.yaml").write_text("")
    (folder / "run.json").write_text('{"up_to_date": true}')
    return str(folder)


def table(printed: str) -> dict[str, list[str]]:
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines())
    return {name: cells for name, *cells in rows}


def test_values_stand_in_their_columns(capsys: pytest.CaptureFixture[str]) -> None:
    whole = record("whole", scores=SCORES, filter=FILTER, bits=BITS, accuracy=ACCURACY)
    part = record("part", bits={"test": {"bits_per_dim": 3}})
    results.main({"default": [whole], "article": [part]})
    rows = table(capsys.readouterr().out)
    assert rows[""] == ["default", "article", "test images", "training images"]
    assert rows["kept by the filter"] == ["0.750", "", "", ""]
    assert rows["Frechet distance, classifier b"] == ["2.0000 +- 0.2500", "", "1.0000", "0.5000"]
    assert rows["precision, recall"] == ["0.250, 0.500", "", "0.750 +- 0.125, 1.000", ""]
    assert rows["near copies in pixels, in features"] == ["-, 0.0100", "", "", ""]
    assert rows["bits per dimension of test, of training images"] == ["2.500 +- 0.250, 2.250", "3.000", "", ""]
    assert rows["classification accuracy score"] == ["0.5000", "", "", "0.8750"]
    assert rows["shows the class asked for"] == ["", "", "", ""]


def test_of_several_runs_the_mean_and_the_spread_between_them(capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for seed, frechet in enumerate([1.0, 2.0, 6.0]):
        row = {"frechet": frechet, "frechet_deviation": 9}
        test = {"frechet": 0.5, "frechet_deviation": 9}
        lacking = {"recall": 0.25} if seed else {}
        scores = {"b": {"samples": row, "test": test}, "samples": {"precision": 0.5, **lacking}}
        runs.append(record(str(seed), scores=scores))
    results.main({"samples": runs})
    rows = table(capsys.readouterr().out)
    assert rows["Frechet distance, classifier b"] == ["3.0000 +- 2.6458", "0.5000 +- 9.0000", ""]
    assert rows["precision, recall"] == ["0.500 +- 0.000", "", ""]  # one has no recall: there is no mean of all


def test_a_null_leaves_its_place_empty_in_tables_and_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    null = {"frechet": None, "frechet_deviation": None}
    folder = record("null", scores={"b": {"why_null": "alike", "samples": null, "test": null}})
    for module in (results, distances):
        monkeypatch.setattr(module, "CONFIGURATIONS", {"null": (folder, "make null")})
    assert table(results.configuration_table())[f"[null](../{folder}/params.yaml)"] == ["`make null`", *[""] * 5]
    assert distances.distance_plot()
    assert readme.cell(results.recorded(Path(folder)), "{:.3f}", "scores.b.samples.frechet") == "-"
