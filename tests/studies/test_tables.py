"""The tables of the study of rare classes: values that were worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from ddpm.pipeline.console import UserError
from studies.rare_class.tables import main, spaced

WITHOUT, WITH = "oversample", "oversample+sampled"


def matrix(right: int) -> list[list[int]]:
    """Of two classes with 100 images each, the second, rare one is found `right` times, and never wrongly."""
    return [[100, 0], [100 - right, right]]


def write(folder: Path, found: dict[str, dict[str, list[int]]], oracle: bool = True) -> None:
    """Rows of classifiers that found so many, by subset and method."""
    rows: list[dict[str, Any]] = []
    for subset, methods in found.items():
        rows.append({"of": "generator", "subset": subset, "rare": {"five": 1}})
        for method, each in methods.items():
            of = {"of": "classifier", "subset": subset, "method": method, "traces": 0.25}
            rows += [{**of, "seed": seed, "confusion": matrix(right)} for seed, right in enumerate(each)]
            if method == WITH:
                rows.append({"of": "copies", "subset": subset, "method": method, "near_copies": {"distance": 0.004}})
    if oracle:
        rows.append({"of": "oracle", "confusion": matrix(100)})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def f1(right: int) -> float:
    return 2 * right / (100 + right)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_was_confirmed_is_held_against_the_first_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"10-0": {WITHOUT: [20, 20], WITH: [20, 40]}, "10-1": {WITHOUT: [20, 20], WITH: [40, 60]}}
    write(tmp_path, {**few, "100-0": {WITHOUT: [80, 80], WITH: [90, 90]}})
    main(tmp_path)
    scores, gained = (
        [cells(line) for line in table.splitlines()[2:]] for table in capsys.readouterr().out.strip().split("\n\n")
    )
    arms = [[count, spaced(method)] for count in ("10", "100") for method in (WITHOUT, WITH)]
    assert [line[:2] for line in scores] == [*arms, ["all", "oracle"]]
    assert [line[:2] for line in gained] == arms[1::2]
    base = f1(20)
    gains = [(f1(20) + f1(40)) / 2 - base, (f1(40) + f1(60)) / 2 - base]
    mean = sum(gains) / 2
    # The quantile of Student's t for one degree of freedom; the deviation is |d| / sqrt 2.
    spread = 12.7062 * abs(gains[1] - gains[0]) / 2
    # Of the way from 10 to 100 images, in logarithms; both counts have the first subset alone.
    worth = 10 * 10 ** (((f1(20) + f1(40)) / 2 - base) / (f1(80) - base))
    way = f"({100 * mean / (1 - base):.0f} %)"
    assert gained[0][2:] == [f"{mean:+.4f} ± {spread:.4f} {way}", "+0.0000 ± 0.0000", f"{worth:.0f}", "0.4 %"]
    gain = f1(90) - f1(80)
    way = f"({100 * gain / (1 - f1(80)):.0f} %)"
    assert gained[1][2:] == [f"{gain:+.4f} {way}", "+0.0000", "over 100", "0.4 %"]
    assert (tmp_path / "f1.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_method_must_be_without_a_generator(tmp_path: Path) -> None:
    write(tmp_path, {"10-0": {WITH: [20], WITHOUT: [40]}})
    with pytest.raises(UserError, match=r"^methods: "):
        main(tmp_path)


@pytest.mark.parametrize("text", [None, "{"])
def test_absent_or_damaged_rows_are_named(text: str | None, tmp_path: Path) -> None:
    if text:
        (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"rows\.jsonl: "):
        main(tmp_path)


def test_the_recorded_rows_give_the_documented_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    page = (root / "studies/rare_class/README.md").read_text()
    for folder in (root / "studies/rare_class/results").iterdir():
        (tmp_path / "rows.jsonl").write_bytes((folder / "rows.jsonl").read_bytes())
        main(tmp_path)
        assert capsys.readouterr().out in page, folder.name
