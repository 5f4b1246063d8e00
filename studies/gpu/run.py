"""Check a GPU against the CPU, and time it.

    python -m studies.gpu.run
    DDPM_DEVICE=cpu python -m studies.gpu.run --small

Prints a table. The exit code is 1 if a result exceeds its bound. Run it from the repository's root.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.device import Runtime, start, to_device
from ddpm.denoiser import Denoiser
from ddpm.images.splits import to_float
from ddpm.sampling.params import fitted
from ddpm.sampling.sets import sample_images
from ddpm.schedule import NoiseSchedule
from ddpm.train import loss_weights, mean_squared_error
from exact_stages.console import UserError, run
from exact_stages.params import load_params
from stages.train import Params
from studies.arguments import parser
from studies.trainings import NOISE, new_network, on_noise, plain_params, population_sampler, untrained

EXACT = Runtime(torch.device("cpu"), torch.float32)
FIRST_STEPS, WARM_STEPS, ROUNDS = 20, 10, 3
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
    options = parser(__doc__)
    options.add_argument("--small", action="store_true", help="use tiny networks; the times then mean nothing")
    small, runtime = options.parse_args().small, start()
    print(f"{head(runtime)}\n\n| what | value | bound |\n| --- | --- | --- |")
    beyond = []
    for row in rows(networks(small), runtime, small):
        print(f"| {row.what} | {row.value}{'' if row.kept else ', beyond the bound'} | {row.bound} |", flush=True)
        beyond += [] if row.kept else [row.what]
    if beyond:
        raise UserError(f"beyond the bound: {'; '.join(beyond)}")


def head(runtime: Runtime) -> str:
    """Describe the machine, the versions and the commit."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    facts = [f"{name} {value}" for name, value in runtime.describe().items()]
    return ", ".join([*facts, f"CUDA {torch.version.cuda or 'none'}", f"commit {commit or 'unknown'}"])


def networks(small: bool) -> dict[str, Params]:
    """Return the default and the plain DDPM with their recipes; `small` makes them narrow."""
    found = {"the default": load_params(Params), "the plain DDPM": plain_params()}
    model, train = ({"channels": (4, 8), "patch_size": 2}, {"batch_size": 8}) if small else ({}, {})
    return {
        name: params.model_copy(
            update={"model": params.model.model_copy(update=model), "train": params.train.model_copy(update=train)}
        )
        for name, params in found.items()
    }


def rows(named: dict[str, Params], runtime: Runtime, small: bool) -> Iterator[Row]:
    """Yield every measurement, results first and times last."""
    count = 4 if small else 100
    for name, params in named.items():
        yield from gradients(name, params, runtime)
        yield losses(name, params, runtime)
        yield repeats(name, params, count // 2, runtime)
    for name, params in named.items():
        yield steps(name, params, count, small, runtime)
    yield samples(named["the default"], 8 if small else 10_000, runtime)


# Results --------------------------------------------------------------------------------------------------------------


def gradients(name: str, params: Params, runtime: Runtime) -> Iterator[Row]:
    """Compare the gradient of every weight with the CPU's in float32, by relative error; show the worst weight."""
    exact = gradient(params, EXACT)
    for precision, bound in GRADIENT_BOUNDS[params.model.block].items():
        found = gradient(params, Runtime(runtime.device, precision))
        worst, error = largest_error(exact, found)
        what = f"gradients of {name} in {str(precision).removeprefix('torch.')}: largest relative error"
        yield Row(what, f"{error:.1e} (`{worst}`)", f"{bound:g}", error <= bound)


def gradient(params: Params, runtime: Runtime) -> dict[str, Tensor]:
    """Return the gradient of every weight, on the CPU, for one batch of fixed weights, images, t and noise."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    count, schedule = params.train.batch_size, NoiseSchedule(params.schedule)
    network = new_network(params)
    for weight in network.parameters():
        weight.data += KICK * torch.randn(weight.shape, generator=rng)
    images = torch.randint(256, (count, *NOISE.shape), generator=rng, dtype=torch.uint8)
    labels, t = torch.arange(count) % len(NOISE.classes), torch.linspace(0, schedule.timesteps - 1, count).long()
    noise = torch.randn(count, *NOISE.shape, generator=rng)
    network = to_device(network, runtime.device).train()
    denoiser = Denoiser(network, schedule, params.model.prediction, runtime)
    images, labels, t, noise = (each.to(runtime.device) for each in (images, labels, t, noise))
    x_t = denoiser.schedule.q_sample(to_float(images), t, noise)
    errors = mean_squared_error(denoiser(x_t, t, labels).noise, noise)
    (loss_weights(params.train.loss, denoiser)[t] * errors).mean().backward()
    return {name: weight.grad.cpu() for name, weight in network.named_parameters() if weight.grad is not None}


def largest_error(exact: dict[str, Tensor], found: dict[str, Tensor]) -> tuple[str, float]:
    """Return the tensor with the largest relative error in the Euclidean norm, or one that is not finite."""
    errors = {name: float((found[name] - each).norm() / each.norm()) for name, each in exact.items()}
    return max(errors.items(), key=lambda item: item[1] if item[1] < float("inf") else float("inf"))


def losses(name: str, params: Params, runtime: Runtime) -> Row:
    """Compare the losses of the first steps with float32 on the same device."""
    own, single = (first_losses(params, each) for each in (runtime, Runtime(runtime.device, torch.float32)))
    error = max(abs(each - other) / other for each, other in zip(own, single, strict=True))
    what = f"losses of the first {FIRST_STEPS} steps of {name}: largest relative error against float32"
    return Row(what, f"{error:.1e}", f"{LOSS_BOUND:g}", error <= LOSS_BOUND)


def first_losses(params: Params, runtime: Runtime) -> list[float]:
    """Return the losses of the first steps."""
    each_step = params.model_copy(update={"train": params.train.model_copy(update={"log_every": 1})})
    torch.manual_seed(0)
    losses = on_noise(each_step, FIRST_STEPS * params.train.batch_size, runtime).run()
    return [loss for loss in islice(losses, FIRST_STEPS) if loss is not None]


def repeats(name: str, params: Params, count: int, runtime: Runtime) -> Row:
    """Train twice, and compare the weights bit by bit."""
    first, second = (weights_after(count, params, runtime) for _ in range(2))
    other = [key for key, weight in first.items() if not torch.equal(weight, second[key])]
    value = f"{len(other)} of {len(first)} weights differ" if other else "equal"
    return Row(f"two trainings of {count} steps of {name}", value, "equal", not other)


def weights_after(count: int, params: Params, runtime: Runtime) -> dict[str, Tensor]:
    """Return the EMA weights after `count` steps, the last in the middle of an epoch."""
    torch.manual_seed(0)
    training = on_noise(params, params.train.batch_size * max(1, 2 * count // 3), runtime)
    _take(training.run(), count)
    return {name: weight.cpu().clone() for name, weight in training.model.state_dict().items()}


# Times ----------------------------------------------------------------------------------------------------------------


def steps(name: str, params: Params, count: int, small: bool, runtime: Runtime) -> Row:
    """Time gradient steps."""
    size = params.train.batch_size
    training = on_noise(params, 10 * size if small else 60_000, runtime).run()
    _take(training, WARM_STEPS)
    seconds, memory = _median_seconds(partial(_take, training, count), runtime)
    rate = f"{1000 * seconds / count:.2f} ms, {size * count / seconds:,.0f} images/s{memory}"
    return Row(f"a step of {name}, batch {size}", rate)


def samples(params: Params, count: int, runtime: Runtime) -> Row:
    """Time the guided sampling of the population, with untrained weights, which cost the same."""
    loaded = untrained(params, runtime)
    sampler = fitted(population_sampler(), loaded.card)

    def sample() -> None:
        for _ in sample_images(loaded, sampler, 0, range(count), runtime):
            pass

    sample()
    seconds, memory = _median_seconds(sample, runtime)
    return Row(f"{count:,} samples, {sampler.steps} evaluations", f"{seconds:.2f} s{memory}")


def _take(events: Iterator[object], count: int) -> None:
    for _ in range(count):
        next(events)


def _median_seconds(work: Callable[[], object], runtime: Runtime) -> tuple[float, str]:
    """Return the median seconds over some rounds, synchronised with the device, and on a GPU the peak memory."""
    found, on_gpu = [], runtime.device.type == "cuda"
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(runtime.device)
        found.append(time.perf_counter() - began)
    memory = f", {torch.cuda.max_memory_allocated(runtime.device) / 2**30:.2f} GiB" if on_gpu else ""
    return statistics.median(found), memory


if __name__ == "__main__":
    run(main)
