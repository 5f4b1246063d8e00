"""The tables of the study of rare classes: values that were worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from ddpm.pipeline.console import UserError
from scripts.rare import main

WITHOUT, WITH = "oversample", "oversample+drawn"


def matrix(right: int) -> list[list[int]]:
    """Of two classes with 100 images each, the second, rare one is found `right` times, and never wrongly."""
    return [[100, 0], [100 - right, right]]


def write(folder: Path, stage: str, name: str, arms: dict[str, list[int]]) -> None:
    path = folder / "metrics" / stage / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {
        arm: {"confusions": [*map(matrix, each)], "traces": [0.25] * len(each)} for arm, each in arms.items()
    }
    if WITH in found:
        found[WITH]["near_copies"] = {"distance": 0.004}
    path.write_text(json.dumps({"rare": {"five": 1}, "arms": found}))


def confirmed(folder: Path) -> None:
    write(folder, "rare_confirm", "10-0", {WITHOUT: [20, 20], WITH: [20, 40]})
    write(folder, "rare_confirm", "10-1", {WITHOUT: [20, 20], WITH: [40, 60]})
    write(folder, "rare_confirm", "100-0", {WITHOUT: [80, 80], WITH: [90, 90]})
    oracle = folder / "metrics/rare_oracle/0.json"
    oracle.parent.mkdir()
    oracle.write_text(json.dumps({"confusions": [matrix(100)]}))


def f1(right: int) -> float:
    return 2 * right / (100 + right)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_arms_that_were_compared_stand_best_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "rare_choose", "50-5", {WITHOUT: [50, 50], WITH: [80, 80]})
    write(tmp_path, "rare_choose", "50-6", {WITHOUT: [50, 50], WITH: [60, 60]})
    main(tmp_path)
    _, _, best, worst = map(cells, capsys.readouterr().out.strip().splitlines())
    assert best == [
        "50",
        WITH,
        f"{(f1(80) + f1(60)) / 2:.4f}",
        "0.7000",
        "1.0000",
        "0.8500",
        "1.0000",
        "0.2500",
        f"{f1(80):.4f}, {f1(60):.4f}",
    ]
    assert worst[1:3] == [WITHOUT, f"{f1(50):.4f}"]


def test_what_was_confirmed_is_held_against_the_first_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confirmed(tmp_path)
    main(tmp_path)
    lines = [cells(line) for line in capsys.readouterr().out.strip().splitlines()]
    assert [line[:2] for line in lines[2:]] == [
        ["10", WITHOUT],
        ["10", WITH],
        ["100", WITHOUT],
        ["100", WITH],
        ["all", "oracle"],
    ]
    base = f1(20)
    gains = [(f1(20) + f1(40)) / 2 - base, (f1(40) + f1(60)) / 2 - base]
    mean = sum(gains) / 2
    spread = (
        12.7062 * abs(gains[1] - gains[0]) / 2
    )  # the quantile of one degree of freedom; the deviation is |d| / sqrt 2
    f1_gained, way, others, worth, copies = lines[3][8:]
    assert f1_gained == f"{mean:+.4f} ± {spread:.4f}"
    assert way == f"{100 * mean / (1 - base):.0f} %"
    assert others == "+0.0000 ± 0.0000"
    assert copies == "0.4 %"
    # Of the way from 10 to 100 images, in logarithms; both counts have the first subset alone.
    share = ((f1(20) + f1(40)) / 2 - base) / (f1(80) - base)
    assert worth == f"{10 * 10**share:.0f}"
    assert lines[5][8:] == [
        f"{f1(90) - f1(80):+.4f}",
        f"{100 * (f1(90) - f1(80)) / (1 - f1(80)):.0f} %",
        "+0.0000",
        "over 100",
        "0.4 %",
    ]
    assert (tmp_path / "f1.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no metrics of rare_choose or rare_confirm; run `make rare`"):
        main(tmp_path)


def test_without_an_oracle_nothing_is_held_against_it(tmp_path: Path) -> None:
    write(tmp_path, "rare_confirm", "10-0", {WITHOUT: [20], WITH: [40]})
    with pytest.raises(UserError, match="has no metrics of rare_oracle"):
        main(tmp_path)


def test_the_first_arm_must_be_without_a_generator(tmp_path: Path) -> None:
    write(tmp_path, "rare_confirm", "10-0", {WITH: [20], WITHOUT: [40]})
    oracle = tmp_path / "metrics/rare_oracle/0.json"
    oracle.parent.mkdir()
    oracle.write_text(json.dumps({"confusions": [matrix(100)]}))
    with pytest.raises(UserError, match="put one without drawn there"):
        main(tmp_path)


def test_where_nothing_is_left_to_gain_no_share_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "rare_confirm", "10-0", {WITHOUT: [100], WITH: [100]})
    oracle = tmp_path / "metrics/rare_oracle/0.json"
    oracle.parent.mkdir()
    oracle.write_text(json.dumps({"confusions": [matrix(100)]}))
    main(tmp_path)
    assert cells(capsys.readouterr().out.splitlines()[3])[8:10] == ["+0.0000", ""]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, "rare_choose", "50-5", {WITHOUT: [50]})
    (tmp_path / "metrics/rare_choose/50-5.json").write_text("{")
    with pytest.raises(UserError, match=r"50-5\.json: not valid JSON"):
        main(tmp_path)
