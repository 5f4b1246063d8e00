"""Compare this project with others after equal CPU time: images a second, and the quality of samples.

    python -m studies.speed.run
    DDPM_PRECISION=float32 python -m studies.speed.run --names default
    python -m studies.speed.run --names default diffusers --minutes 20

Run it with nothing beside. All train on the workspace's real images, on one core of the CPU. Peers use the loops and
samplers of their examples, in float32. This project trains in the precision of DDPM_PRECISION, and samples as
sample.scored does; the default also without guidance, to compare with the peers. Nothing is filtered, and scores are
told no label. Adds the rows of each contestant to peers.csv, and makes none of them again; keeps a picture of samples.
"""

import argparse
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm.diffusion.sets import sample_images
from ddpm.diffusion.training import new_training
from ddpm.images.splits import SplitFile, load_split, to_float, to_uint8
from ddpm.params.sample import fitted
from ddpm.pictures.figures import image_png, tile
from ddpm.processes.device import Runtime, start
from ddpm.processes.workers import cores, set_workers
from ddpm.scores.classifier import NAMES
from ddpm.scores.evaluation import evaluate
from exact_stages.console import UserError, progress, run
from exact_stages.files import write_whole
from stages.train import TRAIN, Params
from studies.scores.judge import facts
from studies.speed.peers import PEERS
from studies.table import Table
from studies.trainings import WITHOUT_END, default_params, scored_sampler, trained

MODELS, TEST = Path("models"), Path("data/processed/test.safetensors")
TABLE, PICTURES = Path("studies/speed/peers.csv"), Path("studies/speed")
SEED = 2  # of samples; differs from those of params.yaml
WARMUP_STEPS, TIMED_SECONDS = 10, 15
COUNT, SHOWN = 2000, 16  # samples that are scored, and in the picture
TOGETHER = 250  # images in a batch of a peer's sampler
MANY = 10_000_000  # images or steps of a training whose first steps are timed
OURS = {"default": default_params}
DISTANCES = ("frechet", "frechet_error", "frechet_excess", "frechet_excess_error")
Kind = tuple[dict[str, Any], Tensor]  # what a row says of samples, and the samples, uint8 (N, C, H, W)


def main() -> None:
    """Train, sample and score each contestant that the table does not have."""
    args = arguments()
    os.environ["DDPM_DEVICE"] = "cpu"
    runtime, table = start(alone=True), Table(TABLE)
    train, test = load_split(TRAIN), load_split(TEST)
    files = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
    classes = [*range(len(train.card.classes))]
    for name in args.names:
        made_in = facts(runtime) | ({} if name in OURS else {"precision": "float32"})
        key = {"name": name, "minutes": args.minutes, "precision": made_in["precision"]}
        if table.has(key):
            continue
        torch.manual_seed(SEED)  # peers take torch's own noise
        print(f"{name}: {args.minutes} CPU minutes of training, then {COUNT} samples", flush=True)
        rows = []
        for kind, images in contest(name, train, args.minutes, runtime):
            write_whole(PICTURES / f"{name}.png", image_png(tile(images[:SHOWN], SHOWN), scale=2))
            set_workers(cores())  # scoring is not timed
            scores = evaluate((images, None), test.split, train.split, classes, files, runtime, "a").scores
            set_workers(1)
            distances = {f"{score}_{each}": scores[each]["samples"][score] for each in NAMES for score in DISTANCES}
            told = scores["samples"]["c2st_8_levels_accuracy"]
            rows.append({**key, **kind, **distances, "c2st_8_levels": told, **made_in})
            print(*(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        table.add(*rows)


def contest(name: str, train: SplitFile, minutes: int, runtime: Runtime) -> Iterator[Kind]:
    """Train a network and sample with it.

    Raises:
        UserError: the package of a peer is not installed.
    """
    try:
        yield from ours(name, train, minutes, runtime) if name in OURS else theirs(name, train, minutes)
    except ImportError as error:
        raise UserError(f"{name}: {error}; run make .venv/.with-peers") from None


def ours(name: str, train: SplitFile, minutes: int, runtime: Runtime) -> Iterator[Kind]:
    """Train with this project; the recipe is as long as the minutes allow, by the rate of the first steps."""
    params = OURS[name]()
    steps = new_training(train, params.schedule, params.model, of_length(params, MANY).train, runtime).run()
    images = round(rate(steps) * params.train.batch_size * 60 * minutes)
    began = time.process_time()
    loaded, training = trained(train, of_length(params, images), runtime, name)
    found = of_training(training.model, training.step * training.params.batch_size, time.process_time() - began)
    for change in ({"guidance": 1.0}, {}) if loaded.guide else ({},):
        sampler = fitted(scored_sampler(**change), loaded.card)
        began = time.process_time()
        parts = [each for _, each in sample_images(loaded, sampler, SEED, range(COUNT), runtime, "sample")]
        yield {"guidance": sampler.guidance, **found, **of_sampling(time.process_time() - began)}, torch.cat(parts)


def of_length(params: Params, images: int) -> Params:
    """Return the params of a training on all images that sees so many."""
    length = {"images_seen": images, "epochs": WITHOUT_END, "classes": (), "validation": 0.0}
    return params.model_copy(update={"train": params.train.model_copy(update=length)})


def theirs(name: str, train: SplitFile, minutes: int) -> Iterator[Kind]:
    """Train a peer for as many steps as the minutes allow, by the rate of the first ones."""
    images = to_float(train.split.images)
    total = round(rate(PEERS[name](images, MANY).steps) * 60 * minutes)
    peer = PEERS[name](images, total)
    began = time.process_time()
    for _ in progress(islice(peer.steps, total), desc=name, total=total, unit="step"):
        pass
    found = of_training(peer.network, total * peer.batch, time.process_time() - began)
    began = time.process_time()
    with torch.inference_mode():
        samples = torch.cat([peer.sample(len(part)) for part in torch.arange(COUNT).split(TOGETHER)])
    yield {"guidance": 1.0, **found, **of_sampling(time.process_time() - began)}, to_uint8(samples)


def rate(steps: Iterator[Any]) -> float:
    """Return the steps that a training takes in a second of CPU time."""
    for _ in islice(steps, WARMUP_STEPS):
        pass
    began, count, spent = time.process_time(), 0, 0.0
    while spent < TIMED_SECONDS:
        next(steps)
        count, spent = count + 1, time.process_time() - began
    return count / spent


def of_training(network: nn.Module, seen: int, seconds: float) -> dict[str, Any]:
    """Return what a row says of a training."""
    size = sum(weight.numel() for weight in network.parameters())
    rate = {"train_seconds": f"{seconds:.0f}", "images_a_second": f"{seen / seconds:.1f}"}
    return {"parameters": size, "images_seen": seen, **rate}


def of_sampling(seconds: float) -> dict[str, Any]:
    """Return what a row says of sampling."""
    return {"samples": COUNT, "samples_a_second": f"{COUNT / seconds:.1f}"}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = [*OURS, *PEERS]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--names", nargs="+", choices=names, default=names, help="contestants; by default all")
    options.add_argument("--minutes", type=int, default=10, help="CPU minutes of training")
    return options.parse_args()


if __name__ == "__main__":
    run(main)
