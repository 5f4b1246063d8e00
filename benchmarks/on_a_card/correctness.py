"""Whether a device computes what the CPU does in float32: gradients of one batch, and the losses of the first steps."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.on_a_card.setting import Row, Setting, networks
from benchmarks.trainings import NOISE, gradient_steps, on_noise
from ddpm.compute.device import Runtime, to_device
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images.splits import Split
from ddpm.networks.unet import UNet
from ddpm.training.loop import Logged
from ddpm.training.losses import Denoising
from stages.train import Params

EXACT = Runtime(torch.device("cpu"), torch.float32)
FIRST_STEPS = 20
KICK = 0.02  # standard deviation of what every weight is moved by: those that begin at zero hide others' gradients
# Float32 sums in another order: with the residual network two libraries of one CPU are 1e-5 apart, and TF32, of 11 bits
# in place of 24, would be 5e-3. Where ReLU and max-pooling switch at a rounding, as in double_conv, single terms come
# and go: two libraries are 5e-3 apart.
# A rounding to bfloat16 is off by up to 2^-9, and some sixty follow one another: sqrt(60) / 2^9 is 1.5%; weights whose
# gradient is what is left of large parts that cancel are several times as far off, and those beside a switch again.
# On a CPU it is 0.05 and 0.25. A wrong operation gives 1 and more.
GRADIENT_BOUNDS = {
    "residual": {torch.float32: 1e-4, torch.bfloat16: 0.1},
    "double_conv": {torch.float32: 0.02, torch.bfloat16: 0.5},
}
LOSS_BOUND = 0.05  # between precisions, whose draws are the same
DRAWS_BOUND = 0.25  # of the mean of the first losses on another device, which draws other noise and timesteps


def gradients(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """The largest difference of a weight's gradient, for each network and precision."""
    for name, params in networks(setting).items():
        exact = gradient(params, EXACT)
        for precision, bound in GRADIENT_BOUNDS[params.model.block].items():
            found = gradient(params, Runtime(runtime.device, precision))
            where, largest = largest_difference(exact, found)
            what = f"gradients of {name} in {_named(precision)}: largest relative difference from float32 on the CPU"
            yield Row(what, f"{largest:.1e} (`{where}`)", f"{bound:g}", largest <= bound)


def gradient(params: Params, runtime: Runtime) -> dict[str, Tensor]:
    """Of every weight, float32 on the CPU, by one batch; weights, images, t and noise are the same on every device."""
    source = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    count, schedule = params.train.batch_size, NoiseSchedule(params.schedule)
    network = UNet(params.model, schedule, NOISE)
    for weight in network.parameters():
        weight.data += KICK * torch.randn(weight.shape, generator=source)
    images = torch.randint(256, (count, *NOISE.shape), generator=source, dtype=torch.uint8)
    labels = torch.arange(count) % len(NOISE.classes)
    t = torch.linspace(0, schedule.timesteps - 1, count).long()
    noise = torch.randn(count, *NOISE.shape, generator=source)
    network = to_device(network, runtime.device).train()
    denoising = Denoising(schedule, NOISE.shape, params.train.loss, runtime)
    images, labels, t, noise = (each.to(runtime.device) for each in (images, labels, t, noise))
    errors = denoising.errors(network, Split(images, labels), t, noise)
    denoising.trained(errors, t).mean().backward()
    return {name: weight.grad.cpu() for name, weight in network.named_parameters() if weight.grad is not None}


def largest_difference(exact: dict[str, Tensor], found: dict[str, Tensor]) -> tuple[str, float]:
    """The tensor that differs most, and the Euclidean norm of its difference relative to its own.

    A norm that is not finite is the largest.
    """
    differences = {name: float((found[name] - each).norm() / each.norm()) for name, each in exact.items()}
    return max(differences.items(), key=lambda item: item[1] if item[1] < float("inf") else float("inf"))


def losses(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Of the first steps: as they are, beside those in float32 on this device, and beside the CPU's."""
    for name, params in networks(setting).items():
        what = f"losses of the first {FIRST_STEPS} steps of {name}"
        on_cpu = first_losses(params, EXACT)
        single = first_losses(params, Runtime(runtime.device, torch.float32))
        own = first_losses(params, runtime)
        yield Row(f"{what}: the 1st, 10th and last", ", ".join(f"{own[step]:.3f}" for step in (0, 9, -1)))
        apart = max(abs(each - other) / other for each, other in zip(own, single, strict=True))
        what_apart = f"{what}: largest relative difference of {_named(runtime.precision)} from float32"
        yield Row(what_apart, f"{apart:.1e}", f"{LOSS_BOUND:g}", apart <= LOSS_BOUND)
        means = abs(sum(own) / sum(on_cpu) - 1)
        what_means = f"{what}: relative difference of their mean from the CPU's, of other draws"
        yield Row(what_means, f"{means:.1e}", f"{DRAWS_BOUND:g}", means <= DRAWS_BOUND)


def first_losses(params: Params, runtime: Runtime) -> list[float]:
    """Of the first steps, on images and from weights that are the same on every device."""
    each_step = params.model_copy(update={"train": params.train.model_copy(update={"log_every": 1})})
    torch.manual_seed(0)
    training = on_noise(each_step, FIRST_STEPS * params.train.batch_size, runtime)
    events = (event for event in gradient_steps(training) if isinstance(event, Logged))
    return [next(events).loss for _ in range(FIRST_STEPS)]


def _named(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")
