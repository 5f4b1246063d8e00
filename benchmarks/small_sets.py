"""What so many training images give: quality, and how many samples are copies of training images.

    DDPM_THREADS=1 python -m benchmarks.small_sets --images 100 500 2000

Random subsets of the training images are trained on by the default's recipe, in which length and held-out share follow
from their number. Distances are those of as many samples from all training images, on the features of classifier a;
copies are told by the test images, in pixels and on features of classifier b. docs/small_sets gets a picture of each.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.samplers import MODELS, PROCESSED, SEED, Judge, channels_first
from benchmarks.trainings import left_by
from ddpm.classifier.model import features_and_logits, load_classifier
from ddpm.cli.drawing_options import at_least
from ddpm.cli.generate import all_labels, draw_images
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Processed, load_split
from ddpm.networks.checkpoint import LoadedModel
from ddpm.pictures.grids import by_class_picture
from ddpm.pipeline.console import progress, run
from ddpm.pipeline.files import write_whole
from ddpm.pipeline.params import load_params
from ddpm.scoring.copying import near_copies, nearness
from ddpm.training.setup import Setup, new_training, prepare
from scripts.check_params import AllParams

OUT = Path("docs/small_sets")


def main() -> None:
    """A row for each number of images."""
    args = arguments()
    runtime, params = start(), load_params(AllParams)
    judge = Judge(runtime)
    whole, test = (load_split(PROCESSED / f"{split}.safetensors") for split in ("train", "test"))
    classifier = load_classifier(MODELS / "classifier-b.safetensors")
    print(
        "| training images | held out | epochs | steps | kept at | Frechet distance, a | near copies in pixels | "
        "in features |\n" + "| --- " * 8 + "|"
    )
    for number in args.images:
        setup = prepare(subset(whole, number), params.model, params.train)
        loaded, steps, kept = trained(setup, params, number, runtime)
        sampler, numbers = params.sample.population, range(args.count)
        drawn = torch.cat([images for _, images in draw_images(loaded, sampler, SEED, numbers, runtime)])
        samples, labels = channels_first(drawn), all_labels(loaded, sampler, SEED, numbers)
        sets = ((samples, labels), test.split, setup.images)
        copied = []
        for space in ("pixels", "features"):
            seen = [
                images if space == "pixels" else features_and_logits(classifier, images, runtime.device)[0]
                for images, _ in sets
            ]
            near = [
                nearness(each, own, seen[2], setup.images.labels)
                for each, own in ((seen[0], labels), (seen[1], test.split.labels))
            ]
            copied.append(near_copies(*near).distance)
        distance = judge.frechet(samples)["frechet_a"]
        print(
            f"| {len(setup.images.images)} | {len(setup.held_out.images)} | {setup.train.epochs:.1f} | {steps} | "
            f"{kept} | {distance:.3f} | {copied[0]:.1%} | {copied[1]:.1%} |",
            flush=True,
        )
        write_whole(OUT / f"{number}.png", by_class_picture(samples, labels, whole.card.classes))


def subset(whole: Processed, number: int) -> Processed:
    """So many of the images, at random."""
    chosen = torch.randperm(len(whole.groups), generator=generator(SEED, "small sets"))[:number].sort().values
    return Processed(whole.card, whole.split.take(chosen), torch.arange(number), whole.test_counts)


def trained(setup: Setup, params: AllParams, number: int, runtime: Runtime) -> tuple[LoadedModel, int, int]:
    """The model that is kept, the steps of the training, and the step that the model is of."""
    training = new_training(setup, params.schedule, None, runtime)
    with progress(desc=f"{number} images", total=training.total_steps, unit="step") as bar:
        for _ in training.run():
            bar.update(training.step - bar.n)
    kept = training.validation.kept
    return left_by(training, setup, params.schedule), training.step, kept.step if kept else training.step


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=at_least(20), nargs="+", default=[100, 500, 2000, 10000])
    parser.add_argument("--count", type=at_least(100), default=2000, help="samples that are scored")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
