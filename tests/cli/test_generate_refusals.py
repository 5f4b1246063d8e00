"""What the command line refuses: before it draws, in one line, with nothing written."""

import re
from pathlib import Path

import pytest
import torch

from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError
from tests.cli.generating import call, ended, started, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_too_many_steps_are_refused(model: Path, image_format: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        call(model, tmp_path / "out", "--format", image_format, "--steps", 21)
    assert str(caught.value) == "steps is 21, but the model has only 20 timesteps"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("eta", ["2", "-0.5", "nan", "inf"])
def test_a_wrong_eta_is_refused(model: Path, eta: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^command line: 1 invalid\n  eta: "):
        call(model, tmp_path / "out", f"--eta={eta}")
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        call(tmp_path / "none.safetensors", tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path}/none.safetensors: no such file; ")
    assert not (tmp_path / "out").exists()


def test_a_foreign_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_arrays(path, {"x": torch.zeros(1)})
    with pytest.raises(UserError) as caught:
        call(path, tmp_path / "out")
    assert str(caught.value) == f"{path}: not a model file of this project"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "argument --count: '0' is not a whole number from 1 to 1000000"),
        (["--count", "-3"], "argument --count: '-3' is not a whole number from 1 to 1000000"),
        (["--count", "1.5"], "argument --count: '1.5' is not a whole number from 1 to 1000000"),
        (["--first", "-1"], "argument --first: '-1' is not a whole number from 0 to 1000000000000"),
        (["--seed", "x"], "argument --seed: 'x' is not a whole number from 0 to 9223372036854775807"),
        (["--steps", "0"], "argument --steps: '0' is not a whole number from 1 to 100000"),
        (["--eta", "much"], "argument --eta: invalid float value: 'much'"),
        (["--format", "jpg"], "argument --format: invalid choice: 'jpg'"),
        (["--sampler", "plms"], "argument --sampler: invalid choice: 'plms'"),
        (["--classes"], "argument --classes: expected at least one argument"),
    ],
)
def test_a_wrong_option_is_named(
    options: list[str], message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(model, tmp_path / "out", *options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


NUMBERS = {
    "--count": ["1000001", "10000000000", "9" * 5000, "1e3", "\u0663e", ""],
    "--seed": ["-1", "9223372036854775808", "9" * 400],
    "--first": ["1000000000001", "9" * 5000, "0x10"],
    "--steps": ["1000000000", "1e9", "9" * 5000],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in NUMBERS.items() for value in values],
    ids=lambda text: text[:20],
)
def test_numbers_that_are_none_or_too_large_are_refused_at_once(
    option: str, value: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(model, tmp_path / "out", f"{option}={value}")
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    line = rf"python -m ddpm\.generate: error: argument {option}: '.*' is not a whole number from [01] to \d+"
    assert re.fullmatch(line, errors.splitlines()[-1])
    assert len(errors) < 2000
    assert list(tmp_path.iterdir()) == []


def test_the_largest_numbers_are_taken(model: Path, tmp_path: Path) -> None:
    out = call(model, tmp_path / "out", "--seed", 2**63 - 1, "--first", 10**12, "--count", 2)
    assert sorted(path.name for path in out.iterdir()) == ["1000000000000.png", "1000000000001.png"]


def test_help_names_every_option() -> None:
    output, errors = started("--help").communicate(timeout=100)
    assert errors == ""
    words = "model out count format seed first sampler steps spacing eta guidance guide guidance-interval"
    words += " variance classes clip"
    assert " ".join(re.findall(r"^  --([a-z-]+)", output, flags=re.MULTILINE)) == words
    assert "{ddpm,ddim,dpmpp_2m}" in output
    assert "{posterior,beta}" in output
    assert "{early,unlabelled}" in output


def test_the_command_line_ends_with_one_line(tmp_path: Path, model: Path) -> None:
    message = "error: steps is 21, but the model has only 20 timesteps"
    assert ended(started("--model", model, "--out", tmp_path / "out", "--steps", 21)) == (1, message, f"{message}\n")
    assert list(tmp_path.iterdir()) == []
