"""What a classifier that learns from samples lacks beside one that learns from real images.

    DDPM_THREADS=1 python -m benchmarks.accuracy_gap

Real training images are noised to a timestep of the population's walk and drawn from there on, as sample.population
says, told their class, and filtered as the population is: what new classifiers lose that learn from these was lost
below that noise level. Beside them stand real images without those that no sample comes near: whether it is the odd
ones that are missing.
"""

import argparse
import statistics

import torch
from torch import Tensor

from benchmarks.class_errors import drawn_from
from benchmarks.samplers import MODEL, MODELS, PROCESSED, SEED
from ddpm.classifier.fit import fit_classifier
from ddpm.classifier.model import accuracy, features_and_logits, load_classifier
from ddpm.cli.drawing_options import at_least
from ddpm.compute.device import start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Split, load_samples, load_split
from ddpm.judging.accuracy_score import new_recipe
from ddpm.judging.filtering import class_probability
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.params import load_params
from ddpm.sampling.samplers import spaced_timesteps
from ddpm.scoring.manifold import CHUNK, manifold
from scripts.check_params import AllParams
from stages.classification_accuracy_score import FILTERED

SPARE = 1.2  # times as many images, of which some are thrown away


def main() -> None:
    """Print a row for each set of images to learn from."""
    args = arguments()
    runtime = start()
    params = load_params(AllParams)
    loaded = load_model(MODEL, runtime.device)
    judge = load_classifier(MODELS / "classifier-a.safetensors")
    every, test = (load_split(PROCESSED / f"{name}.safetensors").split for name in ("train", "test"))
    order = torch.randperm(len(every.images), generator=generator(SEED, "accuracy gap"))
    real = every.take(order[: int(SPARE * args.count)])
    population, data, _ = load_samples(FILTERED)
    if "labels" not in population:
        raise UserError("model.class_conditional: a model that is told no class draws nothing to learn a class from")
    samples = Split(population["images"], population["labels"])
    sampler = params.sample.population.for_images(data.shape[0])
    walk = spaced_timesteps(loaded.schedule, sampler.steps, sampler.spacing)
    if max(args.first, default=0) >= len(walk):
        raise UserError(f"--first: the walk has {len(walk)} steps, 0 to {len(walk) - 1}")
    recipe = new_recipe(judge.params, judge.params.epochs_of(len(every.images)), args.count)
    print(f"| {args.count:,} images | thrown away | score |\n| --- | --- | --- |")

    def show(name: str, images: Split, kept: Tensor) -> None:
        """The mean of several classifiers that learn from the first of those that are kept, bool (N,)."""
        thrown = f"{1 - kept.double().mean():.1%}"
        if kept.sum() < args.count:
            print(f"| {name} | {thrown} | too few are left |", flush=True)
            return
        chosen = images.take(kept.nonzero().flatten()[: args.count])
        found = []
        for number in range(args.classifiers):
            new = recipe.model_copy(update={"seed": recipe.seed + number})
            found.append(accuracy(fit_classifier(name, chosen, data, new, runtime), *test, runtime.device))
        print(f"| {name} | {thrown} | {statistics.mean(found):.4f} +- {statistics.stdev(found):.4f} |", flush=True)

    for name, images in (("real images", real), ("samples", samples)):
        show(name, images, torch.ones(len(images.images), dtype=torch.bool))
    reached = among(*(features_and_logits(judge, each.images, runtime.device)[0] for each in (samples, real)))
    show("real ones that a sample is near to", real, reached)
    for first in args.first:
        drawn = Split(torch.cat([*drawn_from(loaded, real, walk, first, sampler, runtime)]), real.labels)
        probability, _ = class_probability(judge, *drawn, list(range(len(data.classes))), runtime)
        log_snr = float(loaded.schedule.alphas_cumprod.logit()[walk[first]])
        show(
            f"real ones, drawn anew from t = {walk[first]}, log-SNR {log_snr:.1f}, on",
            drawn,
            probability >= params.filter.least_probability,
        )


def among(references: Tensor, queries: Tensor) -> Tensor:
    """Which features (N, D) lie in a neighbourhood of the references (M, D): those that recall counts; bool (N,)."""
    balls = manifold(references)
    inside = [
        (torch.cdist(rows.double(), balls.features).square() <= balls.radii).any(1) for rows in queries.split(CHUNK)
    ]
    return torch.cat(inside)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=at_least(2), default=10000, help="images that each classifier learns from")
    parser.add_argument("--classifiers", type=at_least(2), default=3, help="for each set")
    steps = "steps of the walk to begin at"
    parser.add_argument("--first", type=at_least(0), nargs="*", default=[19, 16, 12, 8, 4], help=steps)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
