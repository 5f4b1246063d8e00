"""Compare what equal minutes of training give here and in other projects, by Frechet distances of samples.

    DDPM_THREADS=1 python -m benchmarks.quality --minutes 3
    DDPM_THREADS=1 python -m benchmarks.quality --minutes 20 60 --only diffusers denoising_diffusion_pytorch

All train on the real images for equal CPU time. The peers use the loops and samplers of their documentation, and
continue from one number of minutes to the next. Ours uses the default's recipe, from the start for each number of
minutes, and samples as sample.population does. Five random subsets of as many real test images are scored, too.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.arguments import at_least
from benchmarks.peers import EVALUATIONS, PEERS, Peer, peers
from benchmarks.recipe import images_per_second
from benchmarks.scoring import SEED, Scorer, channels_first, picture_rows
from benchmarks.trainings import WITHOUT_END, left_by
from ddpm.cli.generate import sample_images
from ddpm.compute.device import Runtime, start
from ddpm.images.splits import Processed, load_split, to_float, to_uint8
from ddpm.pictures.figures import to_png
from ddpm.train import new_training, prepare
from exact_stages.console import progress, run
from exact_stages.files import write_whole
from exact_stages.params import load_params
from stages.check import AllParams
from stages.train import TRAIN

TOGETHER = 250  # images in a batch of a peer's sampler
SUBSETS = 5
SHOWN = 20  # images in a row of the picture
DEFAULT = "default"


class Learned(NamedTuple):
    """A trained network and how it samples, as in the table."""

    name: str
    parameters: int
    minutes: float
    images_seen: int
    evaluations: int | None


def main() -> None:
    """Train and sample with each contestant, and print the table."""
    args = arguments()
    runtime = start()
    scorer, train = Scorer(runtime), load_split(TRAIN)
    print("| | parameters | minutes | images seen | evaluations | Frechet distance, a | b |\n" + "| --- " * 7 + "|")
    real = pd.DataFrame([scorer.frechet(scorer.real(f"quality {index}", args.count)[0]) for index in range(SUBSETS)])
    scores = " | ".join(f"{mean:.3f} +- {spread:.3f}" for mean, spread in zip(real.mean(), real.std(), strict=True))
    print(f"| real test images | | | | | {scores} |", flush=True)
    strips = {}
    for learned, images in contestants(train, args.minutes, args.only, args.count, runtime):
        name, parameters, minutes, seen, evaluations = learned
        scores = " | ".join(f"{distance:.2f}" for distance in scorer.frechet(images).values())
        print(f"| {name} | {parameters} | {minutes:g} | {seen} | {evaluations} | {scores} |", flush=True)
        strips[f"{name}\n{minutes:g} minutes"] = images[:SHOWN]
        if args.pictures is not None:
            write_whole(args.pictures, to_png(picture_rows(strips)))


def contestants(
    train: Processed, minutes: list[float], names: list[str], count: int, runtime: Runtime
) -> Iterator[tuple[Learned, Tensor]]:
    """Yield each contestant after each number of minutes, with its samples, uint8 (count, C, H, W)."""
    if DEFAULT in names:
        for each in minutes:
            yield by_default(train, each, count, runtime)
    for peer in peers(runtime.device, to_float(train.split.images), [name for name in names if name != DEFAULT]):
        seen = 0
        for before, now in itertools.pairwise([0.0, *minutes]):
            seen += learn(peer, now - before)
            with torch.inference_mode():
                images = torch.cat([peer.sample(len(part)) for part in torch.arange(count).split(TOGETHER)])
            yield Learned(peer.name, size(peer.network), now, seen, EVALUATIONS), to_uint8(images.cpu())


def by_default(train: Processed, minutes: float, count: int, runtime: Runtime) -> tuple[Learned, Tensor]:
    """Train by the default's recipe, which is scaled to the minutes by its speed; return `count` samples, too."""
    params = load_params(AllParams)
    images_seen = images_per_second("the default", runtime, train.card) * 60 * minutes
    whole = {"images": round(images_seen), "epochs": WITHOUT_END, "classes": (), "validation": 0.0}
    setup = prepare(train, params.model, params.train.model_copy(update=whole))
    training = new_training(setup, params.schedule, None, runtime)
    for _ in progress(training.run(), desc="the default", total=training.total_steps, unit="step"):
        pass
    loaded = left_by(training, setup, params.schedule)
    sampler = params.sample.population
    samples = torch.cat([images for _, images in sample_images(loaded, sampler, SEED, range(count), runtime)])
    seen = training.total_steps * setup.train.batch_size
    return Learned("the default", size(training.model), minutes, seen, sampler.steps), channels_first(samples)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0], help="CPU minutes of training, ascending")
    names = [DEFAULT, *PEERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="contestants; by default all")
    parser.add_argument("--count", type=at_least(2), default=2000, help="samples that are scored")
    parser.add_argument("--pictures", type=Path, help="PNG to write: some images for each row of the table")
    args = parser.parse_args()
    if args.minutes[0] <= 0 or args.minutes != sorted(set(args.minutes)):
        parser.error("--minutes: must be above 0, and ascending")
    return args


if __name__ == "__main__":
    run(main)
