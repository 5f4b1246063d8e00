"""What the same minutes of training buy here and in other projects: Frechet distances of what is drawn afterwards.

    DDPM_THREADS=1 python -m benchmarks.quality --minutes 3

All train on the real images for so many minutes of CPU time: the peers in the loops that their documentation shows,
drawing by their own samplers; ours by the default's recipe, drawn as sample.population says.
"""

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.peers import EVALUATIONS, Peer, peers
from benchmarks.recipe import images_per_second
from benchmarks.samplers import SEED, Judge, channels_first
from benchmarks.trainings import WITHOUT_END, left_by
from ddpm.data.images import to_float, to_uint8
from ddpm.data.splits import Processed, load_split
from ddpm.drawing_options import at_least
from ddpm.generate import draw_images
from ddpm.runtime.console import progress, run
from ddpm.runtime.device import Runtime, start
from ddpm.runtime.params import load_params
from ddpm.training.setup import new_training, prepare
from scripts.check_params import AllParams
from stages.train import TRAIN

TOGETHER = 250  # images that a peer draws side by side


def main() -> None:
    """Let one after the other learn and draw, then print the table."""
    args = arguments()
    runtime = start()
    judge, train = Judge(runtime), load_split(TRAIN)
    print("| | parameters | images seen | evaluations | Frechet distance, a | b |\n" + "| --- " * 6 + "|")
    for name, parameters, seen, evaluations, images in contestants(train, args.minutes, args.count, runtime):
        distances = judge.frechet(images)
        scores = " | ".join(f"{distance:.2f}" for distance in distances.values())
        print(f"| {name} | {parameters} | {seen} | {evaluations} | {scores} |", flush=True)


def contestants(
    train: Processed, minutes: float, count: int, runtime: Runtime
) -> Iterator[tuple[str, int, int, int | None, Tensor]]:
    """Name, parameters, images seen in training, evaluations for a drawn image, and images, uint8 (count, C, H, W)."""
    params = load_params(AllParams)
    images_seen = images_per_second("the default", runtime, train.card) * 60 * minutes
    whole = {"images": round(images_seen), "epochs": WITHOUT_END, "classes": (), "validation": 0.0}
    setup = prepare(train, params.model, params.train.model_copy(update=whole))
    training = new_training(setup, params.schedule, None, runtime)
    for _ in progress(training.run(), desc="the default", total=training.total_steps, unit="step"):
        pass
    loaded = left_by(training, setup, params.schedule)
    sampler = params.sample.population
    drawn = torch.cat([images for _, images in draw_images(loaded, sampler, SEED, range(count), runtime)])
    seen = training.total_steps * setup.train.batch_size
    yield "the default", size(training.model), seen, sampler.steps, channels_first(drawn)
    for peer in peers(runtime.device, to_float(train.split.images)):
        seen = learn(peer, minutes)
        with torch.inference_mode():
            images = torch.cat([peer.draw(len(each)) for each in torch.arange(count).split(TOGETHER)])
        yield peer.name, size(peer.network), seen, EVALUATIONS, to_uint8(images.cpu())


def learn(peer: Peer, minutes: float) -> int:
    """Let it train for so long; how many images it has seen."""
    began, steps = time.process_time(), 0
    with progress(desc=peer.name, total=round(60 * minutes), unit="s") as bar:
        while (spent := time.process_time() - began) < 60 * minutes:
            next(peer.steps)
            steps += 1
            bar.update(int(spent) - bar.n)
    return steps * len(peer.inputs[0])


def size(network: torch.nn.Module) -> int:
    """How many parameters it has."""
    return sum(weight.numel() for weight in network.parameters())


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU minutes of training for each")
    parser.add_argument("--count", type=at_least(2), default=2000, help="samples that are scored")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
