"""How fast a device trains and draws, and the memory that this takes."""

import statistics
from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch

from benchmarks.on_a_card.setting import NOT_MEASURED, Row, Setting, mode, networks, seconds_of, take
from benchmarks.trainings import NOISE, gradient_steps, on_noise
from ddpm.compute.device import Runtime, to_device
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import LoadedModel, ModelCard
from ddpm.networks.unet import UNet
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.params import load_params
from ddpm.sampling.drawing import batches, draw_batch, sample_batch
from ddpm.sampling.samplers import SamplerParams
from stages.sample import SampleParams
from stages.train import Params

WARM_STEPS = 10  # in which kernels are loaded and steps captured
EPOCHS = 10
SAMPLE_REPEATS = 3


def epochs(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Ten of the article's network, behind the first steps."""
    training = on_noise(networks(setting)["the article's network"], setting.images, runtime)
    size, total = training.params.batch_size, training.steps_per_epoch * EPOCHS
    steps = gradient_steps(training)
    first = seconds_of(partial(take, steps, WARM_STEPS), runtime)
    bar = progress(islice(steps, total), desc=f"{EPOCHS} epochs, {mode()}", total=total, unit="step")
    seconds = seconds_of(lambda: sum(1 for _ in bar), runtime)
    what = f"{EPOCHS} epochs of the article's network, {mode()}"
    yield Row(f"{what}: {size * total:,} images", f"{seconds:.2f} s", setting.target("10 s, then 8.5 s, on an H100"))
    yield Row(f"{what}: a step of {size} images", f"{1000 * seconds / total:.2f} ms")
    yield Row(f"{what}: the first {WARM_STEPS} steps, before these", f"{first:.2f} s")
    yield peak_memory(what, runtime)


def steps(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """A gradient step of the default: the median of repeats."""
    training = on_noise(networks(setting)["the default"], setting.images, runtime)
    steps = gradient_steps(training)
    take(steps, WARM_STEPS)
    timed = partial(seconds_of, partial(take, steps, setting.steps), runtime)
    each = [1000 * timed() / setting.steps for _ in progress(range(setting.repeats), desc=f"steps, {mode()}")]
    what = f"a step of {training.params.batch_size} images, the default, {mode()}"
    value = f"{statistics.median(each):.2f} ms ({min(each):.2f} to {max(each):.2f})"
    yield Row(f"{what}, median of {setting.repeats} times {setting.steps}", value, setting.target("1.7 ms on an H100"))
    yield peak_memory(what, runtime)


def samples(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """As the stage `sample` draws the population, guided and not; of weights as they begin, which cost the same."""
    loaded = untrained(networks(setting)["the default"], runtime)
    population = load_params(SampleParams, "sample.population")
    for name, guidance in (("guided", population.guidance), ("unguided", 1.0)):
        params = population.model_copy(update={"guidance": guidance})
        draw(loaded, params, min(setting.samples, sample_batch(loaded, runtime)), runtime)
        timed = partial(seconds_of, partial(draw, loaded, params, setting.samples, runtime), runtime)
        each = [timed() for _ in progress(range(SAMPLE_REPEATS), desc=f"samples, {name}, {mode()}")]
        what = f"{setting.samples:,} samples, {params.steps} evaluations, {name}, {mode()}"
        yield Row(
            what,
            f"{statistics.median(each):.2f} s ({min(each):.2f} to {max(each):.2f})",
            setting.target("2 s on an H100"),
        )
        yield peak_memory(what, runtime)


def batch_sizes(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Images per second of the default's training, and memory, against the batch size; it ends where memory does."""
    default = networks(setting)["the default"]
    for size in progress(setting.batch_sizes, desc=f"batch sizes, {mode()}", unit="size"):
        what = f"training of the default, batches of {size}, {mode()}"
        params = default.model_copy(update={"train": default.train.model_copy(update={"batch_size": size})})
        try:
            training = on_noise(params, max(setting.images, 2 * size), runtime)
            steps = gradient_steps(training)
            take(steps, WARM_STEPS)
            count = max(5, min(500, round(5 * setting.seconds / seconds_of(partial(take, steps, 5), runtime))))
            rate = count * size / seconds_of(partial(take, steps, count), runtime)
            memory = peak_memory("", runtime).value
        except (torch.cuda.OutOfMemoryError, UserError):
            yield Row(what, "does not fit in memory")
            return
        if (parts := training.gradient_step.parts) > 1:
            yield Row(what, f"does not fit in memory; {rate:,.0f} images/s in {parts} parts")
            return
        yield Row(what, f"{rate:,.0f} images/s; memory: {memory}")
        del steps
        torch.cuda.empty_cache()


def draw(loaded: LoadedModel, params: SamplerParams, count: int, runtime: Runtime) -> None:
    """So many images, brought to the host."""
    for indices in batches(0, count, sample_batch(loaded, runtime)):
        *_, last = draw_batch(loaded, params, 0, indices, runtime)
        to_uint8(last.x_prev).cpu()


def untrained(params: Params, runtime: Runtime) -> LoadedModel:
    """A model with a guide, both with weights as they begin."""
    schedule = NoiseSchedule(params.schedule)
    networks = (UNet(params.model, schedule, NOISE), UNet(params.model, schedule, NOISE))
    model, early = (to_device(each, runtime.device).eval() for each in networks)
    counts = (1,) * len(NOISE.classes)
    card = ModelCard(
        data=NOISE, model=model.params, schedule=params.schedule, class_counts=counts, guides=("early", "unlabelled")
    )
    return LoadedModel(model, schedule, card, early)


def peak_memory(what: str, runtime: Runtime) -> Row:
    """The most that tensors took on the card since the last asking."""
    name = f"{what}: most memory in tensors"
    if runtime.device.type != "cuda":
        return Row(name, NOT_MEASURED)
    peak = torch.cuda.max_memory_allocated(runtime.device)
    torch.cuda.reset_peak_memory_stats(runtime.device)
    return Row(name, f"{peak / 2**30:.2f} GiB")
