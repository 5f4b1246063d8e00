"""Reverse processes, without a network or with a tiny one, for tests."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ddpm.diffusion.model import LoadedModel, load_model, new_network, save_model
from ddpm.diffusion.sample import Denoise, Step, p_sample_loop, spaced_timesteps
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.diffusion.sets import OF_STEP, sample_batch
from ddpm.images.card import DataCard
from ddpm.params.card import ModelCard
from ddpm.params.sample import SamplerParams
from ddpm.params.schedule import ScheduleParams
from tests.small import CPU, DIGITS, randomised, unet_params

OF_REFERENCE = ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02)
REFERENCE = NoiseSchedule(linear_betas(**dict(OF_REFERENCE)))
OF_TEN = ScheduleParams(timesteps=10, beta_start=1e-2, beta_end=0.5)
TEN = NoiseSchedule(linear_betas(**dict(OF_TEN)))
SHAPE = (3, 1, 4, 4)


def sampler(name: str = "ddpm", **changes: object) -> SamplerParams:
    """All timesteps of the ancestral process, without guidance or clipping, but for what is changed: fitted params."""
    plain = {"sampler": name, "steps": None, "clip": False, "guidance": 1.0}
    return SamplerParams.model_validate({**plain, **changes})


def normals(seed: int = 0) -> Iterator[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=rng, dtype=torch.float64)


def reverse(
    denoise: Denoise,
    params: SamplerParams,
    schedule: NoiseSchedule = REFERENCE,
    noise: Callable[[], Tensor] | None = None,
    timesteps: Sequence[int] = (),
) -> list[Step]:
    timesteps = timesteps or spaced_timesteps(schedule, params.steps)
    options = params.model_dump(include=OF_STEP)
    return [*p_sample_loop(denoise, schedule, noise or normals().__next__, timesteps, **options)]


def model_card(
    data: DataCard = DIGITS, counts: tuple[int, ...] = (), schedule: ScheduleParams = OF_TEN, **facts: object
) -> ModelCard:
    """The card of a tiny class-conditional model of v, but for facts of the card or of its network that are changed."""
    given = {"channels": (4, 8), "patch_size": 2, "class_conditional": True, "prediction": "v"}
    network = unet_params(**given | {key: facts.pop(key) for key in [*facts] if key not in ModelCard.model_fields})
    counts = counts or tuple(range(1, len(data.classes) + 1))
    shared = {"data": data, "model": network, "schedule": schedule, "class_counts": counts}
    learned = {"guides": (), "images_seen": 320_000, "faint": 0}
    return ModelCard.model_validate(shared | learned | facts)


def tiny_model(folder: Path, **facts: object) -> LoadedModel:
    """A tiny model of such a card, through its file, and another that stands for what it was early, if it has one."""
    card = model_card(**facts)  # type: ignore[arg-type]
    shape = card.data.shape, len(card.data.classes), card.schedule.timesteps
    now, before = (randomised(new_network(card.model, *shape), seed).train() for seed in (0, 1))
    for network in (now, before):
        if network.label:
            network.label.weight.data *= 10  # loud beside the time
    guide = dict(before.state_dict()) if "autoguidance" in card.guides else None
    save_model(folder / "model.safetensors", now, card, guide)
    return load_model(folder / "model.safetensors")


def sampled(loaded: LoadedModel, indices: list[int], params: SamplerParams | None = None, seed: int = 0) -> Tensor:
    *_, last = sample_batch(loaded, params or sampler(), seed, indices, CPU)
    return last.x_prev.clone()
