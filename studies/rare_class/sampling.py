"""Sample all classes from the model of an imbalanced subset; filter them by a classifier of the same subset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from ddpm.balancing.candidates import SPAN, sample_class
from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.params import Section, parse
from ddpm.sampling.generation import check_sampler
from ddpm.sampling.samplers import SamplerParams
from studies.rare_class.learning import LearnParams, learn
from studies.rare_class.methods import Method, RealMethodName, Sampled, Seed


class SamplingParams(Section):
    """Params of sampling and filtering: images of each rare class, sampler, and the method that trains the filter."""

    rare: Annotated[int, Field(ge=1, le=SPAN)]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    guidance: Annotated[float, Field(ge=0, le=1000)]
    filter: RealMethodName
    seed: Seed

    def sampler(self) -> SamplerParams:
        """Return the sampler's params; what is not set here is the default of `sample.population`."""
        as_population = {
            "sampler": "dpmpp_2m",
            "spacing": None,
            "variance": "posterior",
            "eta": 1.0,
            "clip": True,
            "guide": "autoguidance",
            "guidance_interval": [-4.0, 2.0],
            "classes": "all",
        }
        return parse(SamplerParams, {**as_population, "steps": self.steps, "guidance": self.guidance}, "sample")


def sample(
    name: str,
    images: Processed,
    rare: Sequence[int],
    frequent: int,
    model: Path,
    params: SamplingParams,
    learning: LearnParams,
    runtime: Runtime,
    path: Path,
) -> dict[str, Any]:
    """Train the filter, sample, and write the samples and which of them the filter takes.

    Args:
        name: of the progress bars.
        rare: the labels of the rare classes.
        frequent: the number of samples of each other class.

    Returns:
        The share that the filter takes of each class.
    """
    loaded, sampler = load_model(model, runtime.device), params.sampler()
    try:
        steps = check_sampler(loaded, sampler)
    except UserError as error:
        raise UserError(f"sample.{error}") from None
    method, card = Method.parse(params.filter), images.card
    judge = learn(f"{name}: filter", images.split, None, rare, method, card, learning, params.seed, runtime)
    counts = {label: params.rare if label in rare else frequent for label in range(len(card.classes))}
    with progress(desc=f"{name}: sample", total=steps * sum(counts.values()), unit="eval", unit_scale=True) as bar:

        def after_step(images: int) -> None:
            bar.update(images)

        sampled = {
            label: sample_class(loaded, judge, sampler, label, params.seed, 0, count, runtime, after_step)
            for label, count in counts.items()
        }
    taken = {label: each.taken(label) for label, each in sampled.items()}
    arrays = {
        "images": torch.cat([each.images for each in sampled.values()]),
        "labels": torch.cat([torch.full_like(each.numbers, label) for label, each in sampled.items()]),
        "taken": torch.cat([*taken.values()]),
    }
    save_arrays(path, arrays)
    return {"taken": {card.classes[label]: round(float(each.double().mean()), 4) for label, each in taken.items()}}


def load_samples(path: Path) -> Sampled:
    """Read what `sample` wrote."""
    arrays, _ = load_arrays(path, {*Sampled._fields})
    return Sampled(**arrays)
