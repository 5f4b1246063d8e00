"""Compare what equal minutes of training give here and in other projects, by Frechet distances of samples.

    DDPM_WORKERS=1 python -m studies.peers.run --minutes 3
    DDPM_WORKERS=1 python -m studies.peers.run --minutes 20 60 --only diffusers denoising_diffusion_pytorch

All train on the real images for equal CPU time. The peers use the loops and samplers of their documentation, and
continue from one number of minutes to the next. Ours uses the default's recipe, from the start for each number of
minutes. It samples as sample.population does, and again without guidance, to compare with the peers; nothing is
filtered. Five random subsets of as many real test images are scored, too.
"""

import argparse
import itertools
import time
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from ddpm.compute.device import Runtime, start
from ddpm.images.card import DataCard
from ddpm.images.splits import Processed, load_split, to_float, to_uint8
from exact_stages.console import progress, run
from exact_stages.params import load_params
from stages.train import TRAIN, Params
from studies.arguments import at_least, parser
from studies.peers.networks import EVALUATIONS, PEERS, Peer, peers
from studies.scoring import Scorer, sampled
from studies.trainings import WITHOUT_END, on_noise, population_sampler, trained

WARMUP_STEPS, TIMED_STEPS = 5, 70
TOGETHER = 250  # images in a batch of a peer's sampler
SUBSETS = 5
REPORTED = ["frechet_a", "frechet_b", "two_sample_a"]
DEFAULT = "default"


def main() -> None:
    """Train and sample with each contestant, and print the table."""
    args = arguments()
    runtime = start()
    scorer, train = Scorer(runtime), load_split(TRAIN)
    print(
        "| | parameters | minutes | images seen | evaluations | Frechet distance, a | b | told |\n" + "| --- " * 8 + "|"
    )
    real = pd.DataFrame([scorer.scores(*scorer.real(f"quality {index}", args.count)) for index in range(SUBSETS)])[
        REPORTED
    ]
    scores = " | ".join(f"{mean:.3f} +- {spread:.3f}" for mean, spread in zip(real.mean(), real.std(), strict=True))
    print(f"| real test images | | | | | {scores} |", flush=True)
    for cells, images in contestants(train, args.minutes, args.only, args.count, runtime):
        found = scorer.scores(images, None)
        cells += [f"{found[name]:.3g}" for name in REPORTED]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def contestants(
    train: Processed, minutes: list[float], names: list[str], count: int, runtime: Runtime
) -> Iterator[tuple[list[object], Tensor]]:
    """Yield each contestant's cells of the table after each number of minutes, and samples, uint8 (count, C, H, W)."""
    if DEFAULT in names:
        for each in minutes:
            yield from by_default(train, each, count, runtime)
    for peer in peers(runtime.device, to_float(train.split.images), [name for name in names if name != DEFAULT]):
        seen = 0
        for before, now in itertools.pairwise([0.0, *minutes]):
            seen += learn(peer, now - before)
            with torch.inference_mode():
                images = torch.cat([peer.sample(len(part)) for part in torch.arange(count).split(TOGETHER)])
            yield [peer.name, size(peer.network), now, seen, EVALUATIONS], to_uint8(images.cpu())


def by_default(train: Processed, minutes: float, count: int, runtime: Runtime) -> Iterator[tuple[list[object], Tensor]]:
    """Train by the default's recipe, scaled to the minutes by its speed; yield samples with guidance and without."""
    params = load_params(Params)
    images = round(images_per_second(params, train.card, runtime) * 60 * minutes)
    scaled = params.train.model_copy(update={"images": images, "epochs": WITHOUT_END, "classes": (), "validation": 0.0})
    loaded, training = trained(train, params.model_copy(update={"train": scaled}), runtime, "the default")
    seen = training.step * training.params.batch_size
    for name, changes in {"the default": {}, "... without guidance": {"guidance": 1}}.items():
        sampler = population_sampler(**changes)
        samples, _ = sampled(loaded, sampler, count, runtime)
        yield [name, size(training.model), minutes, seen, sampler.steps], samples


def images_per_second(params: Params, data: DataCard, runtime: Runtime) -> float:
    """Measure how many such images train in a second of CPU time."""
    steps = on_noise(params, params.train.batch_size * (WARMUP_STEPS + TIMED_STEPS), runtime, data).run()
    for _ in range(WARMUP_STEPS):
        next(steps)
    began = time.process_time()
    for _ in range(TIMED_STEPS):
        next(steps)
    return TIMED_STEPS * params.train.batch_size / (time.process_time() - began)


def learn(peer: Peer, minutes: float) -> int:
    """Train a peer for these minutes; return how many images it has seen."""
    peer.network.train()
    began, steps = time.process_time(), 0
    with progress(desc=peer.name, total=round(60 * minutes), unit="s") as bar:
        while (spent := time.process_time() - began) < 60 * minutes:
            next(peer.steps)
            steps += 1
            bar.update(int(spent) - bar.n)
    return steps * len(peer.inputs[0])


def size(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(weight.numel() for weight in network.parameters())


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, nargs="+", default=[3.0], help="CPU minutes of training, ascending")
    names = [DEFAULT, *PEERS]
    options.add_argument("--only", nargs="+", choices=names, default=names, help="contestants; by default all")
    options.add_argument("--count", type=at_least(2), default=2000, help="samples that are scored")
    args = options.parse_args()
    if args.minutes[0] <= 0 or args.minutes != sorted(set(args.minutes)):
        options.error("--minutes: must be above 0, and ascending")
    return args


if __name__ == "__main__":
    run(main)
