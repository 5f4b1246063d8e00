"""The tables of runs: every value in its column, with what chance may move it by; and the pages that have them."""

import json
import subprocess
from pathlib import Path

import pytest

from exact_stages.console import UserError
from exact_stages.files import read_yaml
from scripts import publish, tables
from scripts.runs import RECORD, Run
from tests.with_dvc.dvc_clone import ROOT, Clone

SCORES = {
    "b": {
        "samples": {"frechet": 2, "frechet_error": 0.25, "frechet_excess": 1.5, "frechet_excess_error": 0.3125},
        "test": {"frechet": 1},
        "real": {"frechet": 0.5},
    },
    "unfiltered": {"images": 10203, "c2st_8_levels_accuracy": 0.75, "c2st_8_levels_accuracy_error": 0.125},
    "samples": {"precision": 0.25, "recall": 0.5, "near_copies_ratio_pixels": 0.01, "c2st_accuracy": 1},
    "test": {"precision": 0.75, "precision_deviation": 0.125, "recall": 1, "specks": None},
}
BITS = {"images": 10, "test": {"bits_per_dim": 2.5, "standard_error": 0.25}, "train": {"bits_per_dim": 2.25}}
FILES = {"scores": SCORES, "filter": {"share": 0.75}, "bits": BITS}
FILES["accuracy"] = {"samples": {"accuracy": 0.5}, "real": {"accuracy": 0.875}}


def test_values_stand_in_their_columns() -> None:
    run = Run("mine", {tables.FILES[name]: json.dumps(values).encode() for name, values in FILES.items()})
    found = tables.numbers(run)
    rows = tables.scores([*((found, row) for row in tables.ROWS), ({}, "samples")])
    assert rows == {
        "kept by the filter": ["", "0.750", "", "", "", ""],
        "images": ["10203", "", "", "", "", ""],
        "Frechet distance, classifier b": ["", "2.0000 +- 0.2500", "0.5000", "", "1.0000", ""],
        "excess, classifier b": ["", "1.5000 +- 0.3125", "", "", "", ""],
        "C2ST accuracy at 256, 8, 2 levels": ["-, 0.750 +- 0.125, -", "1.000, -, -", "", "", "", ""],
        "precision, recall": ["", "0.250, 0.500", "", "", "0.750 +- 0.125, 1.000", ""],
        "classification accuracy score": ["", "0.5000", "0.8750", "", "", ""],
        "near copies": ["", "0.0100", "", "", "", ""],
        "bits per dimension of test, of training images": ["", "2.500 +- 0.250, 2.250", "", "", "", ""],
    }


def test_readmes_table_has_a_row_for_each_seed_their_mean_and_each_set_that_was_scored() -> None:
    def seed(number: int, distance: float) -> Run:
        scores = SCORES | {"b": SCORES["b"] | {"samples": SCORES["b"]["samples"] | {"frechet": distance}}}
        files = {tables.FILES["scores"]: json.dumps(scores).encode()}
        return Run("mine", files | {"params.yaml": f"train: {{seed: {number}}}".encode()})

    head, _, *rows = publish.set_table([seed(1, 2), seed(2, 3), seed(3, 4)]).splitlines()
    cells = {row.split(" | ")[0]: row.split(" | ")[1:] for row in rows}
    real = ["| training images of the same classes", "| test images"]
    of_seeds = [f"| samples, seed {number}" for number in (1, 2, 3)]
    assert [*cells] == [*of_seeds, "| their mean", "| before the filter, mean", *real]
    column = [*publish.SHOWN].index("Frechet distance, classifier b")
    assert "Frechet" in head.split(" | ")[1:][column]
    assert [cells[each][column] for each in (*of_seeds, "| their mean", "| before the filter, mean")] == [
        *(f"{distance}.0000\u00a0±\u00a00.2500" for distance in (2, 3, 4)),
        "3.0000\u00a0±\u00a01.0000",
        "",
    ]


def write_record(name: str, distance: float, images: int, version: int) -> None:
    scores = {"version": version, "b": {"samples": {"frechet": distance}}}
    metrics = {"evaluate/scores": scores, "preprocess/summary": {"train": {"images": images}, "test": {}}}
    Path(name).mkdir(parents=True)
    Path(name, RECORD).write_text(json.dumps({"metrics": metrics}))


def test_of_several_runs_the_mean_and_their_spread_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    for name, *facts in (("a", 1, 60, 4), ("b", 3, 60, 4), ("clothes", 3, 50, 4), ("early", 3, 60, 3)):
        write_record(name, *facts)
    publish.print_scores("a", "b")
    assert "| Frechet distance, classifier b |  | 2.0000\u00a0±\u00a01.4142 |" in capsys.readouterr().out
    for other, what in (("clothes", "data set"), ("early", "version of the scores")):
        with pytest.raises(UserError, match=f"^{other}: has another {what} than a"):
            publish.print_scores("a", "b", other)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("page", [publish.README, publish.RESULTS], ids=str)
def test_pages_have_the_numbers_of_metrics(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were committed: the workspace may have the numbers of another processor, or of other images."""
    files = [*map(str, (publish.README, page)), "params.yaml", "metrics", "results"]
    archive = subprocess.run(["git", "archive", "HEAD", *files], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip(f"not in the last commit: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x"], cwd=tmp_path, input=archive.stdout, check=True)
    monkeypatch.chdir(tmp_path)
    if (
        "<!-- from metrics -->" not in publish.README.read_text()
        or read_yaml(Path("params.yaml"))["data"]["set"] != publish.MNIST
    ):
        pytest.skip("README has no table of the committed run on MNIST")
    text = page.read_text()
    assert publish.filled(text) == text, "python -m scripts.publish pages writes it"


def test_pages_are_filled_by_an_up_to_date_run_on_mnist_alone(clone: Clone) -> None:
    with pytest.raises(UserError, match=r"^data\.set: is data/mine"):
        publish.write_pages()
    (clone.path / "library/code.py").write_text("# later")
    with pytest.raises(UserError, match=r"^workspace: not up to date"):
        publish.write_pages()
