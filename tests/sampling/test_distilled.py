"""Files of distilled models: they say how they are sampled, and are sampled in no other way."""

from pathlib import Path

import pytest
import torch

from ddpm.compute.device import Runtime
from ddpm.compute.randomness import ImageNoise
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import LoadedModel, load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import check_sampler, draw_batch, draw_labels
from tests.networks.random_weights import randomised
from tests.sampling.walks import sampler
from tests.small import DIGITS, unet_params

CPU = Runtime(torch.device("cpu"), torch.float32)
SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=1e-2, beta_end=0.5))
WALK = (9, 6, 2)


def distilled(folder: Path, timesteps: tuple[int, ...] = WALK) -> LoadedModel:
    params = unet_params(channels=(4, 8), block="residual", patch_size=2, prediction="v")
    path = folder / "distilled.safetensors"
    save_model(path, randomised(UNet(params, SCHEDULE, DIGITS)), SCHEDULE, (9,) * 10, timesteps=timesteps)
    return load_model(path)


@pytest.mark.parametrize(
    "params", [sampler(spacing=None), sampler("ddim", spacing=None, steps=3)], ids=["ddpm", "ddim"]
)
def test_it_draws_by_the_timesteps_of_its_file(params: object, tmp_path: Path) -> None:
    loaded = distilled(tmp_path)
    assert loaded.card.timesteps == WALK
    assert check_sampler(loaded, params) == 3  # type: ignore[arg-type]
    steps = list(draw_batch(loaded, params, 0, [4, 7], CPU))  # type: ignore[arg-type]
    assert [step.t for step in steps] == [*WALK]
    noise, schedule = ImageNoise(0, [4, 7], DIGITS.shape), SCHEDULE.to(CPU.device)
    labels, x_t = draw_labels(loaded.card, params, 0, [4, 7]), noise()  # type: ignore[arg-type]
    for t, s in zip(WALK, [*WALK[1:], None], strict=True):
        times = torch.tensor([t, t])
        with torch.inference_mode():
            estimate = schedule.predict_x_start(x_t, times, loaded.model(x_t, times, labels))
        x_t = estimate if s is None else schedule.q_between(estimate, x_t, torch.tensor([s, s]), times, noise())
    torch.testing.assert_close(steps[-1].x_prev, x_t, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "dpmpp_2m"}, "sampler: a distilled model draws by ddpm with the posterior variance; set that"),
        ({"variance": "beta"}, "sampler: a distilled model draws by ddpm with the posterior variance; set that"),
        ({"name": "ddim", "eta": 0.5}, "sampler: a distilled model draws by ddpm"),
        ({"steps": 4}, "steps: 4, but this model is distilled to 3; set 3, or null"),
        ({"spacing": "trailing"}, "spacing: trailing, but a distilled model has timesteps of its own; leave it out"),
        ({"guidance": 1.3}, "guidance: 1.3, but a distilled model has no guide; set 1"),
    ],
    ids=str,
)
def test_another_way_is_refused_by_name(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    loaded = distilled(tmp_path)
    with pytest.raises(UserError, match=f"^{message}"):
        check_sampler(loaded, sampler(**{"spacing": None, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("timesteps", [(9, 2, 6), (9, 9), (8, 2), (9, -1), (10,)], ids=str)
def test_timesteps_that_are_no_walk_are_refused(timesteps: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="timesteps"):
        distilled(tmp_path, timesteps)
