"""Check a GPU against the CPU, and time it.

    python -m studies.gpu.run
    DDPM_DEVICE=cpu python -m studies.gpu.run --small

Prints a table. The exit code is 1 if a result exceeds its bound. Run it from the repository's root.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.diffusion.sets import sample_images
from ddpm.diffusion.train import loss_weights, mean_squared_error
from ddpm.images.splits import to_float
from ddpm.params.card import ModelCard
from ddpm.params.sample import fitted
from ddpm.processes.device import Runtime, start, to_device
from exact_stages.console import UserError, run
from stages.train import Params
from studies.trainings import NOISE, PLAIN, default_params, on_noise, plain_params, random_network, scored_sampler

EXACT = Runtime(torch.device("cpu"), torch.float32)
EPOCH, STEPS = 20, 50  # of the compared trainings, which end in the middle of an epoch
KICK = 0.02  # standard deviation of noise on every weight: weights that start at zero would hide gradients
# Float32 sums in another order. With the residual network, two CPU libraries differ by 1e-5; TF32 would by 5e-3.
# ReLU and max-pooling, as in double_conv, can switch by rounding: two CPU libraries differ by 5e-3.
# Bfloat16 rounds by up to 2^-9, about sixty times in a row: on a CPU its errors are 0.05 and 0.25.
# Wrong results give 1.
GRADIENT_BOUNDS = {
    "residual": {torch.float32: 1e-4, torch.bfloat16: 0.1},
    "double_conv": {torch.float32: 0.02, torch.bfloat16: 0.5},
}
LOSS_BOUND = 0.05  # between precisions with the same noise


class Row(NamedTuple):
    """A measurement; `kept` tells whether it is within its bound."""

    what: str
    value: str
    bound: str = ""
    kept: bool = True


def main() -> None:
    """Print all rows as they come, then fail if a result exceeds its bound.

    Raises:
        UserError: a result exceeds its bound.
    """
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", action="store_true", help="use tiny networks; the times then mean nothing")
    small, runtime = options.parse_args().small, start()
    print(", ".join(f"{name} {value}" for name, value in runtime.describe().items()))
    named = networks(small)
    print("\n| what | value | bound |\n| --- | --- | --- |")
    beyond = []
    for row in rows(named, runtime, small):
        print(f"| {row.what} | {row.value}{'' if row.kept else ', beyond the bound'} | {row.bound} |", flush=True)
        beyond += [] if row.kept else [row.what]
    if beyond:
        raise UserError(f"beyond the bound: {'; '.join(beyond)}")


def networks(small: bool) -> dict[str, Params]:
    """Return the default and the plain DDPM with their recipes; `small` makes them narrow."""
    found = {"the default": default_params()}
    if PLAIN.exists():
        found["the plain DDPM"] = plain_params()
    else:
        print(f"{PLAIN}: no such file, so without the plain DDPM")
    if small:
        changes = {"model": {"channels": (4, 8), "patch_size": 2}, "train": {"batch_size": 8}}
        for name, params in found.items():
            sections = {key: getattr(params, key).model_copy(update=change) for key, change in changes.items()}
            found[name] = params.model_copy(update=sections)
    return found


def rows(named: dict[str, Params], runtime: Runtime, small: bool) -> Iterator[Row]:
    """Yield every measurement, results first and times last."""
    for name, params in named.items():
        yield from gradients(name, params, runtime)
        yield from trainings(name, params, runtime)
    for name, params in named.items():
        yield steps(name, params, 4 if small else 100, runtime)
    yield samples(named["the default"], 8 if small else 10_000, runtime)


def gradients(name: str, params: Params, runtime: Runtime) -> Iterator[Row]:
    """Compare the gradient of every weight with the CPU's in float32, by relative error; show the worst weight."""
    exact = gradient(params, EXACT)
    for precision, bound in GRADIENT_BOUNDS[params.model.block].items():
        found = gradient(params, Runtime(runtime.device, precision))
        errors = torch.stack([(found[key] - each).norm() / each.norm() for key, each in exact.items()])
        worst, error = [*exact][int(errors.argmax())], float(errors.max())  # or one that is not finite
        what = f"gradients of {name} in {str(precision).removeprefix('torch.')}: largest relative error"
        yield Row(what, f"{error:.1e} (`{worst}`)", f"{bound:g}", error <= bound)


def gradient(params: Params, runtime: Runtime) -> dict[str, Tensor]:
    """Return the gradient of every weight, on the CPU, for one batch of fixed weights, images, t and noise."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    count, schedule = params.train.batch_size, NoiseSchedule(linear_betas(**dict(params.schedule)))
    network = random_network(params)
    for weight in network.parameters():
        weight.data += KICK * torch.randn(weight.shape, generator=rng)
    images = torch.randint(256, (count, *NOISE.shape), generator=rng, dtype=torch.uint8)
    labels, t = torch.arange(count) % len(NOISE.classes), torch.linspace(0, schedule.timesteps - 1, count).long()
    noise = torch.randn(count, *NOISE.shape, generator=rng)
    network = to_device(network, runtime.device).train()
    denoiser = Denoiser(network, schedule, params.model.prediction, runtime.device, runtime.precision)
    images, labels, t, noise = (each.to(runtime.device) for each in (images, labels, t, noise))
    x_t = denoiser.schedule.q_sample(to_float(images), t, noise)
    errors = mean_squared_error(denoiser(x_t, t, labels).noise, noise)
    (loss_weights(params.train.loss, denoiser.schedule)[t] * errors).mean().backward()
    return {name: weight.grad.cpu() for name, weight in network.named_parameters() if weight.grad is not None}


def trainings(name: str, params: Params, runtime: Runtime) -> Iterator[Row]:
    """Compare the losses of the first epoch with float32 on the same device, and the weights of two trainings."""
    single, _ = short_training(params, EPOCH, Runtime(runtime.device, torch.float32))
    (losses, first), (_, second) = (short_training(params, STEPS, runtime) for _ in range(2))
    error = max(abs(each - other) / other for each, other in zip(losses, single, strict=False))
    what = f"losses of the first {EPOCH} steps of {name}: largest relative error against float32"
    yield Row(what, f"{error:.1e}", f"{LOSS_BOUND:g}", error <= LOSS_BOUND)
    other = [key for key, weight in first.items() if not torch.equal(weight, second[key])]
    value = f"{len(other)} of {len(first)} weights differ" if other else "equal"
    yield Row(f"two trainings of {STEPS} steps of {name}", value, "equal", not other)


def short_training(params: Params, count: int, runtime: Runtime) -> tuple[list[float], dict[str, Tensor]]:
    """Return the losses of `count` steps, and the EMA weights after them."""
    each_step = params.model_copy(update={"train": params.train.model_copy(update={"log_every": 1})})
    torch.manual_seed(0)
    training = on_noise(each_step, EPOCH * params.train.batch_size, runtime)
    losses = [loss for loss in islice(training.run(), count) if loss is not None]
    return losses, {name: weight.cpu() for name, weight in training.model.state_dict().items()}


def steps(name: str, params: Params, count: int, runtime: Runtime) -> Row:
    """Time gradient steps."""
    size = params.train.batch_size
    training = on_noise(params, 60_000, runtime).run()
    seconds, memory = timed(lambda: [*islice(training, count)], runtime)
    rate = f"{1000 * seconds / count:.2f} ms, {size * count / seconds:,.0f} images/s{memory}"
    return Row(f"a step of {name}, batch {size}", rate)


def samples(params: Params, count: int, runtime: Runtime) -> Row:
    """Time the guided sampling of the set `scored`, with untrained weights, which cost the same."""
    model, guide = (to_device(random_network(params), runtime.device).eval() for _ in range(2))
    counts = (1,) * len(NOISE.classes)
    card = ModelCard(
        data=NOISE,
        model=params.model.for_images(NOISE.shape),
        schedule=params.schedule,
        class_counts=counts,
        guides=("autoguidance",),
        images_seen=10**9,
        faint=0,
    )
    loaded = LoadedModel(model, NoiseSchedule(linear_betas(**dict(params.schedule))), card, guide)
    sampler = fitted(scored_sampler(), loaded.card)
    seconds, memory = timed(lambda: [*sample_images(loaded, sampler, 0, range(count), runtime)], runtime)
    return Row(f"{count:,} samples, {sampler.steps} evaluations", f"{seconds:.2f} s{memory}")


def timed(work: Callable[[], object], runtime: Runtime) -> tuple[float, str]:
    """Return the mean seconds of two calls after two others, synchronised with a GPU, and its peak memory."""
    seconds = Timer("work()", globals={"work": work}).timeit(2).mean
    memory = torch.cuda.max_memory_allocated(runtime.device) / 2**30 if runtime.device.type == "cuda" else 0
    return seconds, f", {memory:.2f} GiB" if memory else ""


if __name__ == "__main__":
    run(main)
