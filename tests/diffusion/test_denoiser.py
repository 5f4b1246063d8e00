"""The denoiser: whatever its network predicts, x_0 and noise come out, as truly as float32 can say them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.params.schedule import LEAST_NOISE

REFERENCE = NoiseSchedule(linear_betas(1000, 1e-4, 0.02))
LIMIT = NoiseSchedule(linear_betas(2, LEAST_NOISE, 1 - 1.01e-10))  # signal 1e-5 at last


class Known(nn.Module):
    """Stands for a network whose answer is known; under autocast it is rounded, as that of convolutions."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer.float()

    def forward(self, *_: Any) -> Tensor:
        return self.answer.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else self.answer


def truth(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """x_t of images with noise, and all that a network may say of it, in float64."""
    rng = torch.Generator().manual_seed(0)
    x_start = 2 * torch.rand(len(t), 1, 8, 8, generator=rng, dtype=torch.float64) - 1
    noise = torch.randn(x_start.shape, generator=rng, dtype=torch.float64)
    abar = schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    v = abar.sqrt() * noise - (1 - abar).sqrt() * x_start  # Salimans and Ho 2022
    return abar.sqrt() * x_start + (1 - abar).sqrt() * noise, {"x_start": x_start, "noise": noise, "v": v}


@pytest.mark.parametrize("prediction", ["noise", "v"])
@pytest.mark.parametrize(("schedule", "timesteps"), [(REFERENCE, [0, 1, 500, 999]), (LIMIT, [0, 1])], ids=["1000", "2"])
def test_what_is_known_comes_back_at_every_t(schedule: NoiseSchedule, timesteps: list[int], prediction: Any) -> None:
    t = torch.tensor(timesteps)
    x_t, expected = truth(schedule, t)
    found = Denoiser(Known(expected[prediction]), schedule, prediction)(x_t.float(), t)
    for name in ("x_start", "noise"):
        error = (getattr(found, name).double() - expected[name]).abs()
        if prediction == "noise" and name != "noise":  # a division by the signal enlarges the rounding of x_t
            error *= schedule.sqrt_alphas_cumprod[t].view(-1, 1, 1, 1)
        assert error.max() < 1e-6, name


def test_nearly_pure_noise_goes_past_the_network_in_float32_also_where_that_is_in_bfloat16() -> None:
    t = torch.tensor([999, 999])
    x_t, expected = truth(REFERENCE, t)
    found = Denoiser(Known(expected["v"]), REFERENCE, "v", dtype=torch.bfloat16)(x_t.float(), t)
    assert found.noise.dtype == found.x_start.dtype == torch.float32
    # The answer is of three digits, of which the noise takes 0.006 and x_0 nearly all.
    torch.testing.assert_close(found.noise.double(), expected["noise"], rtol=0, atol=2e-5)
    torch.testing.assert_close(found.x_start.double(), expected["x_start"], rtol=0, atol=4e-3)


@pytest.mark.parametrize(("width", "rounded"), [(8, False), (16, True)])
def test_images_that_are_narrow_and_taller_pass_the_network_in_float32(width: int, rounded: bool) -> None:
    """In bfloat16, convolutions of such images read memory that nobody wrote on some processors."""
    x_t, third = torch.zeros(1, 1, 16, width), torch.full((1, 1, 16, width), 1 / 3)
    found = Denoiser(Known(third), REFERENCE, dtype=torch.bfloat16)(x_t, torch.tensor([0])).noise
    assert torch.equal(found, third) is not rounded
