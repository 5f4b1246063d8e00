"""Compare this project with others: images a second, minutes to a quality, and quality, after equal CPU time.

    python -m studies.speed.run --minutes 3
    python -m studies.speed.run --minutes 20 40 60 --only default diffusers --count 1000

All train on the workspace's real images, on one core of the CPU. Peers use the loops and samplers of their
documentation, and continue from one number of minutes to the next. This project trains from the start for each of
them. It samples as sample.population does, the default also without guidance, to compare with the peers; nothing is
filtered. A row has, after commas, what each number of minutes gives. Five random subsets of as many real test images
are scored, too.
"""

import argparse
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from ddpm.compute.device import Runtime, start
from ddpm.images.splits import Processed, load_split, to_float, to_uint8
from exact_stages.console import progress, run
from exact_stages.params import load_params
from stages.train import TRAIN, Params
from studies.arguments import at_least, parser
from studies.scoring import Scorer, sampled
from studies.speed.peers import BATCH, PEERS
from studies.trainings import WITHOUT_END, on_noise, plain_params, population_sampler, trained

WARMUP_STEPS, TIMED_STEPS = 5, 70
TOGETHER = 250  # images in a batch of a peer's sampler
SUBSETS = 5
REPORTED = ["frechet_a", "frechet_b", "c2st_a"]
OURS = {"default": lambda: load_params(Params), "plain_ddpm": plain_params}
HEAD = ["", "parameters", "images/s, training", "sampling", "minutes to the quality", "images seen"]
HEAD += ["Frechet distance, a", "b", "told"]


class Trained(NamedTuple):
    """A network, how many images it has seen in its CPU seconds; samples by name, uint8 (N, C, H, W), with theirs."""

    network: nn.Module
    seen: int
    seconds: float
    samples: dict[str, tuple[Tensor, float]]


def main() -> None:
    """Train, sample and score each contestant, and print a row for it."""
    args = arguments()
    os.environ["DDPM_DEVICE"] = "cpu"
    runtime = start(alone=True)
    scorer, train = Scorer(runtime), load_split(TRAIN)
    print(row(HEAD), row(["---"] * len(HEAD)), sep="\n")
    found = [scorer.scores(*scorer.real(f"quality {index}", args.count)) for index in range(SUBSETS)]
    real = pd.DataFrame(found)[REPORTED].astype(float)
    spreads = [f"{mean:.3f} +- {spread:.3f}" for mean, spread in zip(real.mean(), real.std(), strict=True)]
    print(row(["real test images", "", "", "", "", "", *spreads]), flush=True)
    for name in args.only:
        if name in OURS:
            works: Iterable[Trained] = (ours(name, train, each, args.count, runtime) for each in args.minutes)
        else:
            works = theirs(name, train, args.minutes, args.count)
        try:
            each = [*works]
        except ImportError as error:
            print(f"{name}: left out, {error}; make .venv/.with-peers")
            continue
        for kind in each[0].samples:
            scores = pd.DataFrame([scorer.scores(work.samples[kind][0], None) for work in each])[REPORTED].astype(float)
            print(row(cells(kind, each, scores, args)), flush=True)


def cells(name: str, each: list[Trained], scores: pd.DataFrame, args: argparse.Namespace) -> list[str]:
    """Return the cells of a row, from what each number of minutes gave."""
    last, good = each[-1], scores["frechet_b"] <= args.quality
    until = f"{args.minutes[good.argmax()]:g}" if good.any() else f"more than {args.minutes[-1]:g}"
    rates = [last.seen / last.seconds, args.count / last.samples[name][1]]
    size = sum(weight.numel() for weight in last.network.parameters())
    seen = ", ".join(str(work.seen) for work in each)
    values = [", ".join(f"{value:.3g}" for value in scores[score]) for score in REPORTED]
    return [name, str(size), *(f"{rate:.0f}" for rate in rates), until, seen, *values]


def ours(name: str, train: Processed, minutes: float, count: int, runtime: Runtime) -> Trained:
    """Train and sample with this project; the recipe is as long as the minutes allow."""
    params = OURS[name]()
    steps = on_noise(params, params.train.batch_size * (WARMUP_STEPS + TIMED_STEPS), runtime, train.card).run()
    for _ in itertools.islice(steps, WARMUP_STEPS):
        pass
    began = time.process_time()
    for _ in itertools.islice(steps, TIMED_STEPS):
        pass
    images = round(TIMED_STEPS * params.train.batch_size / (time.process_time() - began) * 60 * minutes)
    length = {"images_seen": images, "epochs": WITHOUT_END, "classes": (), "validation": 0.0}
    scaled = params.model_copy(update={"train": params.train.model_copy(update=length)})
    began = time.process_time()
    loaded, training = trained(train, scaled, runtime, name)
    found = Trained(training.model, training.step * training.params.batch_size, time.process_time() - began, {})
    changes = {name: {}, f"{name}, no guidance": {"guidance": 1}} if loaded.guide else {name: {}}
    for kind, change in changes.items():
        began = time.process_time()
        samples, _ = sampled(loaded, population_sampler(**change), count, runtime)
        found.samples[kind] = samples, time.process_time() - began
    return found


def theirs(name: str, train: Processed, minutes: list[float], count: int) -> Iterator[Trained]:
    """Train a peer until each number of minutes, and sample with it."""
    peer = PEERS[name](to_float(train.split.images))
    spent, seen = 0.0, 0
    with progress(desc=name, total=round(60 * minutes[-1]), unit="s") as bar:
        for until in minutes:
            peer.network.train()
            began = time.process_time() - spent
            while (spent := time.process_time() - began) < 60 * until:
                next(peer.steps)
                seen += BATCH
                bar.update(int(spent) - bar.n)
            began = time.process_time()
            with torch.inference_mode():
                images = torch.cat([peer.sample(len(part)) for part in torch.arange(count).split(TOGETHER)])
            yield Trained(peer.network, seen, spent, {name: (to_uint8(images), time.process_time() - began)})


def row(cells: list[str]) -> str:
    """Return a row of the table."""
    return f"| {' | '.join(cells)} |"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    names = [*OURS, *PEERS]
    options.add_argument("--minutes", type=float, nargs="+", default=[3.0], help="CPU minutes of training, ascending")
    options.add_argument("--only", nargs="+", choices=names, default=names, help="contestants; by default all")
    options.add_argument("--count", type=at_least(2), default=2000, help="samples that are scored")
    options.add_argument("--quality", type=float, default=10.0, help="a Frechet distance by classifier b")
    args = options.parse_args()
    if args.minutes[0] <= 0 or args.minutes != sorted(set(args.minutes)):
        options.error("--minutes: must be above 0, and ascending")
    return args


if __name__ == "__main__":
    run(main)
