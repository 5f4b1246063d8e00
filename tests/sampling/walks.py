"""Reverse processes to walk without a network, for tests."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.sampling.samplers import SamplerParams, Step

REFERENCE = NoiseSchedule(ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02))
SHAPE = (3, 1, 4, 4)


def sampler(name: str = "ddpm", **changes: object) -> SamplerParams:
    defaults = {
        "sampler": name,
        "steps": None,
        "spacing": "trailing",
        "variance": "posterior",
        "eta": 1.0,
        "clip": False,
        "guidance": 1.0,
        "guide": "early",
        "guidance_interval": (-4.0, 2.0),
        "classes": "all",
    }
    return SamplerParams.model_validate({**defaults, **changes})


def fake_model(x_t: Tensor, t: int) -> Tensor:
    """Stands for a network: any fixed function, bent enough that no coefficient can hide."""
    return 0.8 * torch.sin(1.3 * x_t + 0.01 * t) + 0.1 * x_t


def normals(seed: int = 0) -> Iterator[Tensor]:
    source = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=source, dtype=torch.float64)


def noise_from(draws: Iterator[Tensor]) -> Callable[[], Tensor]:
    return lambda: next(draws)


def assert_same_walk(ours: list[Step], theirs: list[Step]) -> None:
    assert [step.t for step in ours] == [step.t for step in theirs]
    for our, their in zip(ours, theirs, strict=True):
        # diffusers adds noise of variance 1e-20 at the last step, hence 1e-9.
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(our.pred_x_start, their.pred_x_start, rtol=1e-8, atol=1e-9)
