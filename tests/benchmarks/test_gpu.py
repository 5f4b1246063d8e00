import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import gpu
from benchmarks.gpu import PARTS, Outcome, Part, outcome, read, table
from benchmarks.on_a_card import correctness
from benchmarks.on_a_card.correctness import gradient, gradients, largest_difference
from benchmarks.on_a_card.setting import FULL, SMALL, Row, networks
from benchmarks.synthetic import ROOT
from benchmarks.trainings import article_params
from ddpm.compute.device import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)
COLUMNS = ["what", "value", "bound or target"]


def cells(text: str) -> list[list[str]]:
    """Of the table in the text, which is all that begins with a bar."""
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("|")]


def later(seconds: float = 1000) -> float:
    return time.monotonic() + seconds


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple["subprocess.CompletedProcess[str]", str]:
    """What ran where a part cannot work, since its data are not where they are said to be, and what it wrote."""
    folder = tmp_path_factory.mktemp("gpu")
    out, command = folder / "table.md", [sys.executable, "-m", "benchmarks.gpu", "--small", "--out"]
    variables = {"DDPM_DATA_DIR": str(folder / "nowhere"), "DDPM_DEVICE": "cpu", "DDPM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(out), "stages", "gradients", "steps-captured"],
        cwd=ROOT,
        env={**os.environ, **variables, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    return done, out.read_text()


@pytest.mark.long
def test_a_failed_part_is_named_and_the_others_go_on(measured: tuple["subprocess.CompletedProcess[str]", str]) -> None:
    done, written = measured
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: failed: stages; ")
    assert done.stdout == written
    rows = cells(written)
    assert rows[0] == COLUMNS
    assert rows[2][0] == "the part `stages`"
    assert rows[2][1].startswith("failed: dvc repro: DDPM_DATA_DIR=")
    assert rows[2][1].endswith("not a folder; name the one that has the raw files, or unset it")
    assert rows[-1] == ["steps-captured", "not measured", ""]


@pytest.mark.long
def test_the_table_has_every_measure_and_its_bound(measured: tuple["subprocess.CompletedProcess[str]", str]) -> None:
    rows = [row for row in cells(measured[1]) if row[0].startswith("gradients")]
    networks = ["the default", "the default", "the article's network", "the article's network"]
    precisions = ["float32", "bfloat16"] * 2
    for row, network, precision in zip(rows, networks, precisions, strict=True):
        assert len(row) == len(COLUMNS)
        assert row[0].startswith(f"gradients of {network} in {precision}: ")
        assert float(row[1].split()[0]) <= float(row[2])


@pytest.mark.long
def test_the_head_says_on_what(measured: tuple["subprocess.CompletedProcess[str]", str]) -> None:
    head, nothing, *_ = measured[1].splitlines()
    assert head.startswith("no card, a CPU (")
    for fact in (
        f"torch {torch.__version__}",
        "CUDA none" if not torch.version.cuda else torch.version.cuda,
        "commit ",
    ):
        assert fact in head
    assert not nothing


def test_a_part_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(PARTS, "gradients", Part(gradients, 0.01))
    assert outcome("gradients", False, CPU, later()) == Outcome([], "not done after 0.01 s")


def test_a_part_is_not_begun_when_all_time_is_over() -> None:
    assert outcome("gradients", True, CPU, later(-1)) == Outcome([], "not begun, for the time of all was over")


def test_what_a_card_alone_can_measure() -> None:
    captured = [name for name, part in PARTS.items() if part.captured]
    kinds = ["states", "synchronisations", "epochs", "steps", "samples", "batch-sizes"]
    assert captured == [f"{kind}-captured" for kind in kinds]
    for name in captured:
        assert outcome(name, True, CPU, later()) == Outcome([f"| {name} | not measured |  |"])


def test_rows_count_though_their_part_failed() -> None:
    printed = "noise\n| a | 1 | 2 |\nerror: first\nmore noise\nerror: the card is gone\n"
    assert read(printed, "", 1) == Outcome(["| a | 1 | 2 |"], "the card is gone")
    assert read(printed, "not done after 3 s", -9) == Outcome(["| a | 1 | 2 |"], "not done after 3 s")
    assert read("| a | 1 | 2 |\n", "", -11) == Outcome(["| a | 1 | 2 |"], "exit code -11")
    assert read("| a | 1 | 2 |\n", "", 0) == Outcome(["| a | 1 | 2 |"])


def test_a_reason_with_bars_stays_in_its_cell() -> None:
    *_, last = cells(table({"stages": Outcome([], "one | two")}))
    assert last == ["the part `stages`", "failed: one / two", ""]


def test_a_measure_beyond_its_bound_fails_its_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("a", "1", "2"), Row("b", "3", "2", kept=False), Row("c", "4", "2", kept=False)]
    monkeypatch.setitem(PARTS, "gradients", Part(lambda setting, runtime: iter(rows), 1))
    with pytest.raises(SystemExit) as end:
        gpu.measure("gradients", SMALL)
    assert end.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "| a | 1 | 2 |",
        "| b | 3, beyond the bound | 2 |",
        "| c | 4, beyond the bound | 2 |",
        "error: b: beyond its bound, and 1 more",
    ]


def test_an_error_of_any_kind_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(setting: object, runtime: object) -> object:
        raise RuntimeError("CUDA error: an illegal memory access\nand much more")

    monkeypatch.setitem(PARTS, "gradients", Part(broken, 1))  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        gpu.measure("gradients", SMALL)
    printed = capsys.readouterr()
    assert printed.out == "error: RuntimeError: CUDA error: an illegal memory access\n"
    assert "Traceback" in printed.err


def test_the_largest_difference_of_gradients() -> None:
    exact = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1000.0])}
    assert largest_difference(exact, {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([1001.0])}) == (
        "a",
        pytest.approx(0.1),
    )
    where, largest = largest_difference(exact, {"a": torch.tensor([3.0, 9.0]), "b": torch.tensor([math.nan])})
    assert where == "b"
    assert math.isnan(largest)


def test_a_wrong_gradient_is_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(row.kept for row in gradients(SMALL, CPU))
    right = correctness.gradient

    def wrong(params: object, runtime: Runtime) -> dict[str, Tensor]:
        found = right(params, runtime)  # type: ignore[arg-type]
        if runtime.precision is torch.bfloat16:
            found["down.0.conv1.weight"] = -found["down.0.conv1.weight"]
        return found

    monkeypatch.setattr(correctness, "gradient", wrong)
    assert [row.kept for row in gradients(SMALL, CPU)] == [True, False, True, False]


def test_every_weight_of_the_default_has_a_gradient() -> None:
    found = gradient(networks(SMALL)["the default"], CPU)
    assert len(found) > 40
    assert all(each.abs().max() > 0 for each in found.values())


def test_the_article_as_it_was_run() -> None:
    params = article_params()
    assert (params.model.block, params.model.channels) == ("double_conv", (64, 128, 256))
    assert (params.train.batch_size, params.train.epochs, params.train.early) == (128, 10, 0)
    assert FULL.images // params.train.batch_size * params.train.batch_size * 10 == 599_040


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "gradient"])
    with pytest.raises(SystemExit) as end:
        gpu.arguments()
    assert end.value.code == 2
    assert "no part 'gradient'; choose from gradients, losses," in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(ROOT))
