"""A distilled file on the command line: drawn in its own way by default, and refused by name in another."""

import re
from pathlib import Path

import numpy as np
import pytest

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import draw_batch
from tests.cli.generating import CPU, call, sampler
from tests.networks.random_weights import randomised
from tests.small import DIGITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.001, beta_end=0.5))
OWN = ["--steps", 3]  # `call` gives --steps 5; the file says 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "distilled.safetensors"
    network = randomised(UNet(unet_params(channels=(4, 8), patch_size=2, prediction="v"), SCHEDULE, DIGITS))
    save_model(path, network, SCHEDULE, (9,) * 10, timesteps=(19, 12, 5))
    return path


def test_it_draws_in_its_own_way_where_nothing_is_said(model: Path, tmp_path: Path) -> None:
    with np.load(call(model, tmp_path / "out", "--format", "npz", "--count", 2, *OWN) / "images.npz") as arrays:
        drawn = arrays["images"]
    params = sampler(sampler="ddpm", steps=None, spacing=None)
    *_, last = draw_batch(load_model(model), params, 0, [0, 1], CPU)
    assert np.array_equal(drawn, to_uint8(last.x_prev).squeeze(1).numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", 4], "steps: 4, but this model is distilled to 3; set 3, or null"),
        ([*OWN, "--sampler", "dpmpp_2m"], "sampler: a distilled model draws by ddpm with the posterior variance"),
        ([*OWN, "--spacing", "trailing"], "spacing: trailing, but a distilled model has timesteps of its own"),
        ([*OWN, "--guidance", 1.5], "guidance: 1.5, but a distilled model has no guide; set 1"),
    ],
    ids=str,
)
def test_another_way_is_refused_and_nothing_written(
    options: list[object], message: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        call(model, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--sampler", "ddpm"], ["--sampler", "ddim"]], ids=str)
def test_naming_its_own_way_is_no_other(options: list[object], model: Path, tmp_path: Path) -> None:
    images = call(model, tmp_path / "out", "--count", 1, *OWN, *options)
    assert (images / "000000.png").exists()
