"""Sampling from a loaded model, one batch at a time: checks of the params, labels, guidance, noise."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.compute.randomness import ImageNoise, generator
from ddpm.images.card import listed
from ddpm.networks.checkpoint import LoadedModel, ModelCard
from ddpm.networks.unet import NO_LABEL, UNet
from ddpm.sampling.guidance import Denoise, guided
from ddpm.sampling.samplers import SamplerParams, Step, p_sample_loop, spaced_timesteps
from exact_stages.console import UserError, shown

GUIDED_BY = {"autoguidance": "guide_share", "classifier_free": "label_dropout"}  # the param of `train` that makes it


def sample_batch(
    loaded: LoadedModel, params: SamplerParams, seed: int, indices: Sequence[int], runtime: Runtime
) -> Iterator[Step]:
    """Sample the images `indices`, and yield the steps of the reverse process.

    Image i depends on (seed, i), not on the batch. The last step's `x_prev` holds the images, (len(indices), C, H, W),
    on the runtime's device. `sample_labels` returns their labels.

    Raises:
        UserError: params do not fit the model, see `check_sampler`; or, after the last step, an image is not finite.
    """
    check_sampler(loaded, params)
    params = params.for_model(loaded.card)
    noise = ImageNoise(seed, indices, loaded.card.data.shape, runtime.device)
    labels = sample_labels(loaded.card, params, seed, indices)
    denoise = guided_denoiser(loaded, labels, params, runtime)
    steps = p_sample_loop(denoise, loaded.schedule, params, noise, loaded.card.timesteps)
    last: Step | None = None
    while True:
        with torch.inference_mode():  # entered for each step: it must not leak into the caller
            step = next(steps, None)
        if step is None:
            break
        last = step
        yield step
    if last and not (finite := last.x_prev.isfinite().flatten(1).all(1)).all():  # only here: it synchronises
        image = indices[int(finite.int().argmin())]
        raise UserError(f"image {image}: the model's predictions are not finite; fetch the model again, or retrain it")


def guided_denoiser(loaded: LoadedModel, labels: Tensor, params: SamplerParams, runtime: Runtime) -> Denoise:
    """Return the function that a sampler calls: the model with the labels (B,), guided as params say.

    Estimates that are not finite become NaN: clipping would turn infinities into black or white pixels.
    """
    labels = labels.to(runtime.device)

    def bound(network: UNet, labels: Tensor) -> Denoise:
        denoiser = loaded.denoiser(runtime, network)

        def denoise(x_t: Tensor, t: int) -> Tensor:
            pred_x_start = denoiser(x_t, torch.full_like(labels, t), labels).x_start
            return pred_x_start.masked_fill(~pred_x_start.isfinite(), torch.nan)

        return denoise

    denoise = bound(loaded.network, labels)
    if params.guidance in {None, 1}:
        return denoise
    if params.guide == "autoguidance":
        assert loaded.guide
        guide = bound(loaded.guide, labels)
    else:
        guide = bound(loaded.network, torch.full_like(labels, NO_LABEL))
    return guided(denoise, guide, loaded.schedule, params.guidance, params.guidance_interval)


def sample_labels(card: ModelCard, params: SamplerParams, seed: int, indices: Sequence[int]) -> Tensor:
    """Sample the labels of the images `indices`, (len(indices),), as frequent as among the training images.

    Only class-conditional models use them.

    Raises:
        UserError: the model cannot sample one of the classes.
    """
    wanted = wanted_classes(card, params)
    places = torch.cat([torch.rand(1, generator=generator(seed, "label", index)) for index in indices])
    shares = torch.tensor(card.class_counts, dtype=torch.float64)[wanted].cumsum(0)
    return torch.tensor(wanted)[torch.searchsorted(shares, places * shares[-1], right=True)]


def wanted_classes(card: ModelCard, params: SamplerParams) -> list[int]:
    """Return the labels of the classes to sample, each once and in order; "all" means all classes of the model.

    Raises:
        UserError: the model cannot sample one of the classes.
    """
    if not params.classes:
        return list(card.classes)
    if not card.model.class_conditional:
        raise UserError("classes: this model is not class-conditional; set all, or train one on only these classes")
    labels = card.data.labels(params.classes, "classes")
    if unknown := sorted(set(labels) - set(card.classes)):
        seen = listed(card.data.classes[label] for label in card.classes)
        raise UserError(f"classes: the model has not seen {shown(card.data.classes[unknown[0]])}; choose from {seen}")
    return list(labels)


def sample_batch_size(loaded: LoadedModel, runtime: Runtime) -> int:
    """Return how many images to sample in one batch on this runtime."""
    channels, height, width = loaded.card.data.shape
    assert loaded.card.model.channels
    first = loaded.card.model.channels[0]
    float32_bytes = 4 * height * width * (channels + 8 * first)  # of eight tensors
    return runtime.sample_batch_size(height * width, float32_bytes)


def batches(first: int, count: int, size: int) -> Iterator[range]:
    """Split `count` indices, from `first` on, into ranges of at most `size`."""
    for start in range(first, first + count, size):
        yield range(start, min(start + size, first + count))


def check_sampler(loaded: LoadedModel, params: SamplerParams) -> int:
    """Check that params fit a model, and return the number of steps.

    Raises:
        UserError: params ask for more steps than the model has timesteps, or for classes or guidance that it lacks; or
            they do not fit a distilled model, see `check_distilled`.
    """
    wanted_classes(loaded.card, params)
    if loaded.card.timesteps:
        check_distilled(len(loaded.card.timesteps), params)
        return len(loaded.card.timesteps)
    if params.needs_guide and params.guide not in loaded.card.guides:
        known = listed(loaded.card.guides) if loaded.card.guides else "none"
        raise UserError(
            f"guidance: this model has no guide {params.guide} (it has {known}); "
            f"set guidance to 1, or train a model with train.{GUIDED_BY[params.guide]}"
        )
    try:
        return len(spaced_timesteps(loaded.schedule, params.steps, params.spacing))
    except ValueError as error:
        raise UserError(str(error)) from None


def check_distilled(steps: int, params: SamplerParams) -> None:
    """Check that params fit a model distilled to `steps`: it needs the ancestral process over its own timesteps.

    Raises:
        UserError: a param differs; the message begins with it.
    """
    for key, fitting in (
        ("sampler", ("ddpm", "ddim")),
        ("variance", ("posterior",)),
        ("eta", (1,)),
        ("steps", (None, steps)),
        ("spacing", (None,)),
    ):
        if (value := getattr(params, key)) not in fitting:
            own = "null" if fitting[0] is None else fitting[0]
            distilled = f"a model distilled to {steps} evaluations needs {own}"
            raise UserError(f"{key}: {value}, but {distilled}; set that, or leave it out")
    if params.needs_guide:
        raise UserError("guidance: a distilled model has no guide; set 1")
