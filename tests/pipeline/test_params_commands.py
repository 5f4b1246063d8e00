import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddpm.pipeline import console
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import DEFAULTS
from tests.pipeline.test_params_values import REMOVED, REPOSITORY, changed, written


def stage(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a stage of this repository in another folder."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        pytest.param(
            ["stages.preprocess", "data/mnist"],
            [("data.set", ["mnist"]), ("data.mirror", "http://x/")],
            "error: params.yaml: 2 invalid\n"
            '  data.set: input should be a valid string, got ["mnist"]\n'
            "  data.mirror: unknown key; remove it or mend its spelling\n",
            id="preprocess",
        ),
        pytest.param(
            ["stages.train"],
            [("schedule.timesteps", 0), ("train.lr", "fast"), ("train.epochs", REMOVED), ("model.block", "x")],
            "error: params.yaml: 4 invalid\n"
            "  schedule.timesteps: input should be greater than or equal to 1, got 0\n"
            "  model.block: input should be 'double_conv' or 'residual', got \"x\"\n"
            '  train.lr: input should be a valid number, got "fast"\n'
            "  train.epochs: missing; add it (params.yaml in the repository's history has the default)\n",
            id="train",
        ),
        pytest.param(
            ["stages.sample", "gallery"],
            [("sample.gallery", REMOVED)],
            f"error: params.yaml: sample.gallery: missing; add it ({DEFAULTS})\n",
            id="sample",
        ),
    ],
)
def test_a_stage_ends_with_a_line_for_each_error(
    arguments: list[str], changes: list[tuple[str, Any]], message: str, tmp_path: Path
) -> None:
    written(tmp_path, changed(*changes))
    result = stage(tmp_path, *arguments)
    assert result.stderr == message
    assert result.stdout == ""
    assert result.returncode == 1
    assert {path.name for path in tmp_path.iterdir()} - {".resume"} == {"params.yaml"}


def exit_of(error: BaseException) -> str | int | None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        console.run(main)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("train.lr: too high"), "error: train.lr: too high"),
        (FileNotFoundError(2, "No such file or directory", "data/x"), "error: data/x: No such file or directory"),
        (PermissionError(13, "Permission denied", "models"), "error: models: Permission denied"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError("something else"), "error: something else"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_run_makes_one_line_of_an_expected_error(error: BaseException, message: str) -> None:
    assert exit_of(error) == message


def test_run_makes_one_line_of_a_real_oserror(tmp_path: Path) -> None:
    def main() -> None:
        (tmp_path / "absent").read_text()

    with pytest.raises(SystemExit) as caught:
        console.run(main)
    assert caught.value.code == f"error: {tmp_path}/absent: No such file or directory"


def test_run_lets_a_bug_through() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        console.run(main)


def test_run_returns_where_nothing_is_wrong() -> None:
    called = []
    console.run(lambda: called.append(1))
    assert called == [1]
