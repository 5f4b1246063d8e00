"""Compare this project with others after equal CPU time: images a second, and the quality of samples.

    python -m studies.speed.run --minutes 10

All train on the workspace's real images, on one core of the CPU. Peers use the loops and samplers of their
documentation. This project samples as sample.scored does, the default also without guidance, to compare with the
peers; nothing is filtered. Five random subsets of as many real test images are scored, too.
"""

import argparse
import os
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from ddpm.diffusion.randomness import generator
from ddpm.diffusion.sets import sample_images
from ddpm.images.splits import SplitFile, load_split, to_float, to_uint8
from ddpm.params.sample import fitted
from ddpm.processes.device import Runtime, start
from ddpm.scores.classifier import NAMES
from ddpm.scores.evaluation import evaluate
from exact_stages.console import progress, run
from stages.train import TRAIN
from studies.speed.peers import BATCH, PEERS
from studies.trainings import WITHOUT_END, default_params, on_noise, plain_params, scored_sampler, trained

MODELS, PROCESSED = Path("models"), Path("data/processed")
SEED = 2  # of samples; differs from those of params.yaml
WARMUP_STEPS, TIMED_STEPS = 5, 70
COUNT = 2000  # samples that are scored
TOGETHER = 250  # images in a batch of a peer's sampler
SUBSETS = 5
OURS = {"default": default_params, "plain_ddpm": plain_params}
HEAD = ["", "parameters", "images/s, training", "sampling", "images seen", "Frechet distance, a", "b", "told"]


class Trained(NamedTuple):
    """A network, how many images it has seen in its CPU seconds; samples by name, uint8 (N, C, H, W), with theirs."""

    network: nn.Module
    seen: int
    seconds: float
    samples: dict[str, tuple[Tensor, float]]


def main() -> None:
    """Train, sample and score each contestant, and print a row for it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=int, default=3, help="CPU minutes of training")
    minutes = options.parse_args().minutes
    os.environ["DDPM_DEVICE"] = "cpu"
    runtime = start(alone=True)
    train, test = load_split(TRAIN), load_split(PROCESSED / "test.safetensors")

    def scores(images: Tensor) -> list[float]:
        files = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
        classes = [*range(len(train.card.classes))]
        found = evaluate((images, None), test.split, train.split, classes, files, runtime, "a").scores
        return [*(found[name]["samples"]["frechet"] for name in NAMES), found["samples"]["c2st_accuracy"]]

    print(row(HEAD), row(["---"] * len(HEAD)), sep="\n")
    orders = [torch.randperm(len(test.split.images), generator=generator(SEED, f"quality {i}")) for i in range(SUBSETS)]
    real = pd.DataFrame([scores(test.split.images[order[:COUNT]]) for order in orders])
    spreads = [f"{mean:.3f} +- {spread:.3f}" for mean, spread in zip(real.mean(), real.std(), strict=True)]
    print(row(["real test images", "", "", "", "", *spreads]), flush=True)
    for name in [*OURS, *PEERS]:
        try:
            work = ours(name, train, minutes, runtime) if name in OURS else theirs(name, train, minutes)
        except ImportError as error:
            print(f"{name}: left out, {error}; make .venv/.with-peers")
            continue
        size = sum(weight.numel() for weight in work.network.parameters())
        for kind, (samples, seconds) in work.samples.items():
            rates = [f"{rate:.0f}" for rate in (work.seen / work.seconds, COUNT / seconds)]
            found = [f"{value:.3g}" for value in scores(samples)]
            print(row([kind, str(size), *rates, str(work.seen), *found]), flush=True)


def ours(name: str, train: SplitFile, minutes: int, runtime: Runtime) -> Trained:
    """Train and sample with this project; the recipe is as long as the minutes allow."""
    params = OURS[name]()
    steps = on_noise(params, params.train.batch_size * (WARMUP_STEPS + TIMED_STEPS), runtime, train.card).run()
    for _ in islice(steps, WARMUP_STEPS):
        pass
    began = time.process_time()
    for _ in islice(steps, TIMED_STEPS):
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
        sampler = fitted(scored_sampler(**change), loaded.card)
        batches = sample_images(loaded, sampler, SEED, range(COUNT), runtime, "sample")
        found.samples[kind] = torch.cat([images for _, images in batches]), time.process_time() - began
    return found


def theirs(name: str, train: SplitFile, minutes: int) -> Trained:
    """Train a peer for the minutes, and sample with it."""
    peer = PEERS[name](to_float(train.split.images))
    peer.network.train()
    began, seen, spent = time.process_time(), 0, 0.0
    with progress(desc=name, total=60 * minutes, unit="s") as bar:
        while (spent := time.process_time() - began) < 60 * minutes:
            next(peer.steps)
            seen += BATCH
            bar.update(int(spent) - bar.n)
    began = time.process_time()
    with torch.inference_mode():
        images = torch.cat([peer.sample(len(part)) for part in torch.arange(COUNT).split(TOGETHER)])
    return Trained(peer.network, seen, spent, {name: (to_uint8(images), time.process_time() - began)})


def row(cells: list[str]) -> str:
    """Return a row of the table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    run(main)
