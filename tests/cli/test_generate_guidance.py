"""Guidance on the command line: by the early guide where the file has it, and by what is asked for or not at all."""

import re
from pathlib import Path

import numpy as np
import pytest

from ddpm.cli.drawing_options import GUIDED
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params
from ddpm.pipeline.process import ROOT
from ddpm.sampling.drawing import draw_batch
from stages.sample import SampleParams
from tests.cli.generating import CPU, call, ended, sampler, started, tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files with both guides, with one of them, and with none."""
    found = {}
    for name in ("both", "early", "unlabelled", "none"):
        early, unlabelled = (name in (guide, "both") for guide in ("early", "unlabelled"))
        folder = tmp_path_factory.mktemp(name)
        found[name] = tiny_model(folder, class_conditional=True, early=early, unlabelled=unlabelled)
    return found


def drawn(model: Path, out: Path, *options: object) -> np.ndarray:
    with np.load(call(model, out, "--format", "npz", "--count", 2, "--seed", 3, *options) / "images.npz") as arrays:
        images: np.ndarray = arrays["images"]
        return images


def expected(model: Path, **changes: object) -> np.ndarray:
    *_, last = draw_batch(load_model(model), sampler(**changes), 3, [0, 1], CPU)
    return to_uint8(last.x_prev).squeeze(1).numpy()


@pytest.mark.parametrize(
    ("model", "options", "changes"),
    [
        ("early", [], {"guidance": 1.3}),
        ("both", [], {"guidance": 1.3}),
        ("unlabelled", [], {"guidance": 1.0}),
        ("none", [], {"guidance": 1.0}),
        ("both", ["--guidance", 1], {"guidance": 1.0}),
        ("none", ["--guidance", 1, "--guidance-interval", -9, 9], {"guidance": 1.0}),
        ("both", ["--guidance", 0], {"guidance": 0.0}),
        ("both", ["--guidance", 4.5], {"guidance": 4.5}),
        ("both", ["--guidance-interval", -1.5, 0.25], {"guidance": 1.3, "guidance_interval": (-1.5, 0.25)}),
        ("both", ["--guide", "unlabelled"], {"guidance": 1.3, "guide": "unlabelled"}),
        ("unlabelled", ["--guide", "unlabelled", "--guidance", 3], {"guidance": 3.0, "guide": "unlabelled"}),
    ],
    ids=str,
)
def test_options_reach_the_sampler(
    model: str, options: list[object], changes: dict[str, object], models: dict[str, Path], tmp_path: Path
) -> None:
    assert np.array_equal(drawn(models[model], tmp_path / "out", *options), expected(models[model], **changes))


def test_options_change_the_images(models: dict[str, Path], tmp_path: Path) -> None:
    choices = ["", "--guidance 1", "--guidance 3", "--guide unlabelled", "--guidance-interval -1 1"]
    results = [
        drawn(models["both"], tmp_path / str(number), *options.split()).tobytes()
        for number, options in enumerate(choices)
    ]
    assert len(set(results)) == len(choices)


def test_the_defaults_are_those_of_the_pipeline() -> None:
    for name in ("gallery", "population"):
        params = load_params(SampleParams, f"sample.{name}", ROOT / "params.yaml")
        assert {key: getattr(params, key) for key in GUIDED} == GUIDED


def test_help_tells_the_defaults() -> None:
    output, _ = started("--help").communicate(timeout=100)
    words = " ".join(output.split())
    assert "(default: 1.3; 1 where it has no early guide, and none of these three is set) --guide" in words
    assert "(default: early) --guidance-interval" in words
    assert "(default: -4 2) --variance" in words
    assert (GUIDED["guidance"], GUIDED["guide"], GUIDED["guidance_interval"]) == (1.3, "early", (-4.0, 2.0))


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("none", ["--guidance", 1.5], "guidance: 1.5, but this model has no guide early (it has none)"),
        ("none", ["--guide", "early"], "guidance: 1.3, but this model has no guide early (it has none)"),
        ("none", ["--guidance-interval", 0, 1], "guidance: 1.3, but this model has no guide early (it has none)"),
        ("unlabelled", ["--guidance", 0], "guidance: 0, but this model has no guide early (it has unlabelled)"),
        ("early", ["--guide", "unlabelled"], "guidance: 1.3, but this model has no guide unlabelled (it has early)"),
    ],
    ids=str,
)
def test_a_guide_that_was_asked_for_and_is_not_there_is_refused(
    model: str, options: list[object], says: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        call(models[model], tmp_path / "out", *options)
    comes_from = "label_dropout" if "unlabelled" in options else "early"
    assert str(caught.value) == f"{says}; set guidance to 1, or train one with train.{comes_from}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--guidance", "-1"], "guidance: input should be greater than or equal to 0, got -1.0"),
        (["--guidance", "1001"], "guidance: input should be less than or equal to 1000, got 1001.0"),
        (["--guidance", "nan"], "guidance: input should be a finite number, got NaN"),
        (["--guidance", "inf"], "guidance: input should be a finite number, got Infinity"),
        (
            ["--guidance-interval", "2", "-4"],
            "guidance_interval: must be from, to in ascending order, got [2.0, -4.0]",
        ),
        (["--guidance-interval", "-101", "0"], "guidance_interval.0: input should be greater than or equal to -100, "),
        (["--guidance-interval", "0", "nan"], "guidance_interval.1: input should be a finite number, got NaN"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused_by_name(
    options: list[str], says: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        call(models["both"], tmp_path / "out", *options)
    first, line = str(caught.value).split("\n  ")
    assert first == "command line: 1 invalid"
    assert line.startswith(says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--guidance", "much"], "argument --guidance: invalid float value: 'much'"),
        (["--guidance"], "argument --guidance: expected one argument"),
        (["--guide", "late"], "argument --guide: invalid choice: 'late'"),
        (["--guidance-interval", "1"], "argument --guidance-interval: expected 2 arguments"),
        (["--guidance-interval", "1", "2", "3"], "unrecognized arguments: 3"),
        (["--guidance-interval", "a", "b"], "argument --guidance-interval: invalid float value: 'a'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(
    options: list[str], says: str, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(models["both"], tmp_path / "out", *options)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_command_line_ends_with_one_line(models: dict[str, Path], tmp_path: Path) -> None:
    code, line, errors = ended(started("--model", models["none"], "--out", tmp_path / "out", "--guidance", 2))
    assert code == 1
    assert re.fullmatch(r"error: guidance: 2, but this model has no guide early .*", line)
    assert errors == f"{line}\n"
    assert list(tmp_path.iterdir()) == []
