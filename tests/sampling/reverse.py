"""Reverse processes, without a network or with a tiny one, for tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.model import LoadedModel, load_model, new_network, save_model
from ddpm.sample import SamplerParams, Step, sample_batch
from ddpm.schedule import NoiseSchedule, ScheduleParams
from tests.networks.random_weights import randomised
from tests.small import CPU, DIGITS, unet_params

REFERENCE = NoiseSchedule(ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02))
TEN = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=1e-2, beta_end=0.5))
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
        "guide": "autoguidance",
        "guidance_interval": (-4.0, 2.0),
        "classes": "all",
    }
    return SamplerParams.model_validate({**defaults, **changes})


def fake_model(x_t: Tensor, t: int) -> Tensor:
    """Stands for a network that predicts the noise: any fixed function, bent enough that no coefficient can hide."""
    return 0.8 * torch.sin(1.3 * x_t + 0.01 * t) + 0.1 * x_t


def fake_denoise(x_t: Tensor, t: int) -> Tensor:
    """The estimate of x_0 that its noise implies."""
    abar = REFERENCE.alphas_cumprod[t]
    return (x_t - (1 - abar).sqrt() * fake_model(x_t, t)) / abar.sqrt()


def normals(seed: int = 0) -> Iterator[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=rng, dtype=torch.float64)


def noise_from(draws: Iterator[Tensor]) -> Callable[[], Tensor]:
    return lambda: next(draws)


def assert_same_steps(ours: list[Step], theirs: list[Step]) -> None:
    assert [step.t for step in ours] == [step.t for step in theirs]
    for our, their in zip(ours, theirs, strict=True):
        # diffusers adds noise of variance 1e-20 at the last step, hence 1e-9.
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(our.pred_x_start, their.pred_x_start, rtol=1e-8, atol=1e-9)


def tiny_model(
    folder: Path,
    data: DataCard = DIGITS,
    counts: tuple[int, ...] = (),
    guide: bool = False,
    classifier_free: bool = False,
    timesteps: tuple[int, ...] = (),
    **changes: object,
) -> LoadedModel:
    """A tiny model through its file, and another that stands for what it was early; none of their weights zero."""
    given = {"channels": (4, 8), "patch_size": 2, "class_conditional": True, "prediction": "v", **changes}
    now, before = (randomised(new_network(unet_params(**given), data, TEN.params), seed).train() for seed in (0, 1))
    for network in (now, before):
        if network.label:
            network.label.weight.data *= 10  # loud beside the time
    path = folder / "model.safetensors"
    counts = counts or tuple(range(1, len(data.classes) + 1))
    weights = before.state_dict() if guide else None
    save_model(path, now, data, TEN, counts, guide=weights, classifier_free=classifier_free, timesteps=timesteps)
    return load_model(path)


def sample(loaded: LoadedModel, indices: list[int], params: SamplerParams | None = None, seed: int = 0) -> Tensor:
    """The images of the last step."""
    *_, last = sample_batch(loaded, params or sampler(), seed, indices, CPU)
    return last.x_prev.clone()
