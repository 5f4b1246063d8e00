"""Measure images per second in training and sampling: this project, a tutorial's loop, and peers, in turns.

    python -m studies.throughput.run --rounds 5 --seconds 5

Prints a table of medians over the rounds, with floating-point operations per second. A matrix product shows what the
machine can do.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm.compute.device import Runtime, start
from ddpm.sample import sample_batch
from ddpm.sampling.params import fitted, sample_batch_size
from exact_stages.console import progress, run
from exact_stages.params import load_params
from stages.train import Params
from studies.arguments import at_least, parser
from studies.peers.networks import BATCH, peers, plain_loop
from studies.trainings import NOISE, gradient_steps, new_network, on_noise, plain_params, population_sampler, untrained

SIDE = 2048  # of the square matrices


class Contestant(NamedTuple):
    """A workload in steps: its name, images and operations in each step, and the steps."""

    name: str
    images: int
    operations: float
    steps: Iterator[Any]


def main() -> None:
    """Run all workloads in turns, then print the table."""
    args = arguments()
    runtime = start()
    contestants = [*products(runtime), *trainings(runtime), sampling(runtime)]
    rates: dict[str, list[float]] = {each.name: [] for each in contestants}
    with progress(desc="throughput", total=args.rounds * len(contestants), unit="turn") as bar:
        for _ in range(args.rounds):
            for each in contestants:
                rates[each.name].append(rate(each.steps, args.seconds, runtime))
                bar.update()
    print("| | GFLOP/image | images/s | GFLOP/s |\n| --- | --- | --- | --- |")
    for each in contestants:
        steps = statistics.median(rates[each.name])
        images = f"{each.operations / each.images / 1e9:.3f} | {steps * each.images:.0f}" if each.images else " | "
        print(f"| {each.name} | {images} | {steps * each.operations / 1e9:.0f} |")


def rate(steps: Iterator[Any], seconds: float, runtime: Runtime) -> float:
    """Return the steps per second, after one that is not counted."""
    next(steps)
    synchronise(runtime)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(steps)
        synchronise(runtime)
        count += 1
    return count / (time.perf_counter() - began)


def synchronise(runtime: Runtime) -> None:
    """Wait for the device."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()


def operations(model: nn.Module, *inputs: Any) -> float:
    """Count the floating-point operations of a forward pass."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*(each.to(device) for each in inputs))
    return counter.get_total_flops()


def forever(work: Callable[[], Any]) -> Iterator[Any]:
    """Yield the results of `work`, again and again."""
    while True:
        yield work()


def products(runtime: Runtime) -> Iterator[Contestant]:
    """Yield matrix products in float32, and in the precision that the machine computes natively."""
    for precision in dict.fromkeys([torch.float32, runtime.precision]):
        left, right = (torch.randn(SIDE, SIDE, device=runtime.device).to(precision) for _ in range(2))
        name = f"product of matrices, {str(precision).removeprefix('torch.')}"
        yield Contestant(name, 0, 2 * SIDE**3, forever(partial(torch.matmul, left, right)))


def trainings(runtime: Runtime) -> Iterator[Contestant]:
    """Yield our default, the plain DDPM in our loop and in a tutorial's loop, and the peers."""
    default, plain = load_params(Params), plain_params()
    pictures = torch.rand(10_000, *NOISE.shape, device=runtime.device) * 2 - 1  # speed does not depend on content
    for name, params in (("training, default", default), ("training, plain DDPM", plain)):
        batch = params.train.batch_size
        cost = 3 * operations(new_network(params), *inputs(batch))
        steps = gradient_steps(on_noise(params, len(pictures), runtime))
        yield Contestant(f"{name}, batch {batch}", batch, cost, steps)
    for batch in (2, 128):
        model = new_network(plain).to(runtime.device)
        cost = 3 * operations(model, *inputs(batch))
        steps = plain_loop(model, model, batch, pictures)
        yield Contestant(f"training, tutorial's loop, batch {batch}", batch, cost, steps)
    for peer in peers(runtime.device, pictures):
        cost = 3 * operations(peer.network, *peer.inputs)
        parameters = sum(weight.numel() for weight in peer.network.parameters())
        name = f"training, {peer.name}, {parameters / 1e6:.2f} M parameters, batch {BATCH}"
        yield Contestant(name, BATCH, cost, peer.steps)


def sampling(runtime: Runtime) -> Contestant:
    """Return the population's sampler, without its guide: an evaluation runs one network once."""
    loaded = untrained(load_params(Params), runtime)
    sampler = fitted(population_sampler(guidance=1.0), loaded.card)
    batch = sample_batch_size(loaded.card, runtime)
    steps = chain.from_iterable(forever(partial(sample_batch, loaded, sampler, 0, range(batch), runtime)))
    cost = batch * operations(loaded.network, *inputs(1))
    return Contestant(f"sampling, population, batch {batch}", batch, cost, steps)


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch of noise, its timesteps and its labels."""
    return torch.randn(batch, *NOISE.shape), torch.full((batch,), 500), torch.zeros(batch, dtype=torch.int64)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=at_least(1), default=5, help="turns of each")
    options.add_argument("--seconds", type=at_least(1), default=5, help="length of a turn")
    return options.parse_args()


if __name__ == "__main__":
    run(main)
