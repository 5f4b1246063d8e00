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
from benchmarks.samplers import PROCESSED, SEED, Judge
from ddpm.data.images import to_float, to_uint8
from ddpm.data.labels import CLASSES
from ddpm.data.splits import Split, load_split
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.generate import at_least, draw_images
from ddpm.networks.checkpoint import LoadedModel, ModelCard
from ddpm.runtime.console import progress, run
from ddpm.runtime.device import Runtime, start
from ddpm.runtime.params import load_params
from scripts.check_params import AllParams
from stages.train import Params, new_training

TOGETHER = 250  # images that a peer draws side by side


def main() -> None:
    """Let one after the other learn and draw, then print the table."""
    args = arguments()
    runtime = start()
    judge = Judge(tuple(range(CLASSES)), runtime)
    train = load_split(PROCESSED / "train.safetensors")
    print("| | parameters | images seen | evaluations | Frechet distance, a | b |\n" + "| --- " * 6 + "|")
    for name, parameters, seen, evaluations, images in contestants(train, args.minutes, args.count, runtime):
        distances = judge.frechet(to_float(to_uint8(images)))
        scores = " | ".join(f"{distance:.2f}" for distance in distances.values())
        print(f"| {name} | {parameters} | {seen} | {evaluations} | {scores} |", flush=True)


def contestants(
    train: Split, minutes: float, count: int, runtime: Runtime
) -> Iterator[tuple[str, int, int, int | None, Tensor]]:
    """Name, parameters, images seen in training, evaluations for a drawn image, and what each has drawn."""
    params = load_params(AllParams)
    epochs = images_per_second("the default", runtime) * 60 * minutes / len(train.images)
    recipe = Params(
        schedule=params.schedule, model=params.model, train=params.train.model_copy(update={"epochs": epochs})
    )
    training = new_training(recipe, train, train.take(slice(0)), runtime)
    for _ in progress(training.run(), desc="the default", total=training.total_steps, unit="step"):
        pass
    counts = tuple(train.labels.bincount(minlength=CLASSES).tolist())
    card = ModelCard(model=params.model, schedule=params.schedule, class_counts=counts)
    loaded = LoadedModel(training.model.eval(), NoiseSchedule(params.schedule), card)
    sampler = params.sample.population
    drawn = torch.cat([images for _, images in draw_images(loaded, sampler, SEED, range(count), runtime)])
    seen = training.total_steps * params.train.batch_size
    yield "the default", size(training.model), seen, sampler.steps, to_float(drawn.unsqueeze(1))
    for peer in peers(runtime.device, train.images):
        seen = learn(peer, minutes)
        with torch.inference_mode():
            images = torch.cat([peer.draw(len(each)) for each in torch.arange(count).split(TOGETHER)])
        yield peer.name, size(peer.network), seen, EVALUATIONS, images.cpu()


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
