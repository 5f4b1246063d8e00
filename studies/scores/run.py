"""Test the scores themselves on MNIST: a stage of studies/dvc.yaml.

    python -m studies.scores.run PART

- errors: are they right? Real images are scored as samples: z is the difference from others over its error.
- tests: the same for the C2ST, which takes longer.
- faults: does the C2ST see a change of real images?
- mix: what does the mix of classes add to the Frechet distance by chance?

All images are of the judge's reference or of the test split, so that the judge learned none of them.
"""

import math
import sys
from collections.abc import Callable
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transform

from ddpm.cli.reading import Real
from ddpm.cli.summary import CHANCE, SURE, compared
from ddpm.diffusion.randomness import generator
from ddpm.images.splits import Split
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import Runtime, start
from ddpm.scores.c2st import c2st_pairs, run_c2st
from ddpm.scores.classifier import load_classifier
from ddpm.scores.comparisons import compare, draw_places
from ddpm.scores.components import principal_components
from ddpm.scores.distances import frechet_distance
from ddpm.scores.evaluation import Classified, Sets, classify, examine
from ddpm.scores.judges import judge_of
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.trials import make_rows, mnist

ROWS = Path("studies/scores/rows")
SCORED = [(200, 100), (2_000, 100), (5_000, 50)]  # images, pairs of sets
TESTED = [(200, 100), (600, 30)]  # the same, for the C2ST
CHANGED = [(200, 10), (600, 10)]  # images on each side, draws
MIXED, MIXES = 10_000, 20  # images in a draw, draws
MOST_EXAMINED = 2_000  # more take long: recognition, copies and specks look at every pair of images
TRAIN = 6  # training images for each sample, as for MNIST, or what there is
NETWORK, MELTED = "b", 3


def main() -> None:
    """Make the rows of a part."""
    part = sys.argv[1]
    with Stage("scores", part) as stage:
        runtime = start()
        keys, row = PARTS[part](Seen(mnist(), runtime))

        def made(key: tuple[Any, ...], _checkpoints: Checkpoints) -> dict[str, Any]:
            return row(*key)

        make_rows(stage, ROWS / f"{part}.json", keys, made, runtime)


class Seen:
    """The images that the judge did not learn, shuffled, and what it sees in them."""

    def __init__(self, real: Real, runtime: Runtime) -> None:
        judge = judge_of(real.train, range(10))
        assert judge, "it comes with the package"
        train, test = real.train.split.take(judge.reference.nonzero().squeeze(1)), real.test.split
        images, labels = (torch.cat(parts) for parts in zip(train, test, strict=True))
        order = torch.randperm(len(images), generator=generator(0, "pool"))
        self.split, self.count = Split(images, labels).take(order), len(images)
        self.judge, self.runtime = judge.path, runtime

    @cached_property
    def classified(self) -> Classified:
        """Return what the judge sees."""
        return classify(load_classifier(self.judge), *self.split, self.runtime)

    def orders(self, seed: int, name: str, count: int) -> tuple[Tensor, ...]:
        """Return random places: of `count` images, of as many others, and of TRAIN times as many, or what there is."""
        order = torch.randperm(self.count, generator=generator(seed, name))[: (2 + TRAIN) * count]
        return order[:count], order[count : 2 * count], order[2 * count :]


Part = tuple[list[tuple[Any, ...]], Callable[..., dict[str, Any]]]


def errors(seen: Seen) -> Part:
    """Score random images as samples, beside others as test and training images. All sets are disjoint."""
    judged, labels = seen.classified, seen.split.labels
    spaces = {NETWORK: judged.features, "pixels": principal_components(seen.split.images)(seen.split.images)}

    def row(count: int, pair: int) -> dict[str, Any]:
        samples, others, train = seen.orders(pair, "errors", count)
        kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (samples, train))
        places = draw_places(labels[samples], labels[others], labels[train], kept, passing, pair)
        scores: dict[str, Any] = {
            name: compare(each[samples], each[others], each[train], places) for name, each in spaces.items()
        }
        if count <= MOST_EXAMINED:
            scores |= examine(Sets(*map(judged.take, (samples, others, train))), places, [*range(10)])[0]
        return {"count": count, "pair": pair, **z_of(scores)}

    return [(count, pair) for count, pairs in SCORED for pair in range(pairs)], row


def tests(seen: Seen) -> Part:
    """Tell random images from others by the C2ST, at each of its levels."""

    def row(count: int, pair: int) -> dict[str, Any]:
        ours, others = (seen.split.images[each] for each in seen.orders(pair, "tests", count)[:2])
        scores: dict[str, Any] = {"samples": {}}
        for (_, name), both in c2st_pairs({"samples": ours}, others).items():
            scores["samples"] |= run_c2st(*both, NETWORK, pair, seen.runtime).accuracy.row(name)
        return {"count": count, "pair": pair, **z_of(scores)}

    return [(count, pair) for count, pairs in TESTED for pair in range(pairs)], row


def z_of(scores: dict[str, Any]) -> dict[str, float]:
    """Return the difference from real images over its error, of each score that has one."""
    real = {"real": {}, "test": {}} | scores
    return {each.key: round(each.excess / each.error, 2) for each in compared(real) if each.error}


def faults(seen: Seen) -> Part:
    """Tell changed images from other ones that are not changed, at all their levels."""

    def row(name: str, count: int, draw: int) -> dict[str, Any]:
        ours, others = (seen.split.images[each] for each in seen.orders(draw, "faults", count)[:2])
        accuracy, error = run_c2st(CHANGES[name](ours), others, NETWORK, draw, seen.runtime).accuracy
        assert accuracy is not None
        assert error is not None
        measured = {"accuracy": round(accuracy, 4), "error": round(error, 4)}
        found = abs(accuracy - CHANCE) > SURE * error
        return {"change": name, "count": count, "draw": draw, **measured, "found": found}

    return [(name, count, draw) for name in CHANGES for count, draws in CHANGED for draw in range(draws)], row


def mix(seen: Seen) -> Part:
    """Compare random images with the other ones; their mix of classes is by chance, or that of all."""
    features, labels = seen.classified.features, seen.split.labels

    def row(draw: int, name: str) -> dict[str, Any]:
        order = torch.randperm(seen.count, generator=generator(draw, "mix"))
        places = torch.arange(MIXED)
        if name == "of all":  # sorted by class, every N/MIXED-th image
            order = order[labels[order].argsort(stable=True)]
            places = torch.linspace(0, len(order) - 1, MIXED).round().long()
        ours = torch.zeros(len(order), dtype=torch.bool).index_fill(0, places, True)
        distance = frechet_distance(features[order[~ours]], features[order[ours]])
        return {"mix": name, "count": MIXED, "draw": draw, "frechet": round(distance, 5)}

    return [*product(range(MIXES), ("by chance", "of all"))], row


def blurred(pixels: float) -> Callable[[Tensor], Tensor]:
    """Return a change that blurs by a Gaussian of this deviation."""
    size = 2 * math.ceil(3 * pixels) + 1
    return lambda images: transform.gaussian_blur(images, [size, size], [pixels, pixels])


def noisy(images: Tensor) -> Tensor:
    """Add -1, 0 or 1 to each level."""
    noise = torch.randint(-1, 2, images.shape, generator=generator(0, "noise"))
    return (images + noise).clamp(0, 255).byte()


def turned(images: Tensor) -> Tensor:
    """Turn images by 3 degrees, with bilinear interpolation."""
    return transform.rotate(images, 3, transform.InterpolationMode.BILINEAR, fill=[float(images[0, 0, 0, 0])])


def melted(images: Tensor) -> Tensor:
    """Move the pixels by up to MELTED along a smooth random field, so that shapes run and levels stay as they are."""
    count, _, height, width = images.shape
    field = torch.rand(count, 2, 4, 4, generator=generator(0, "melted")) * 2 - 1
    moves = F.interpolate(field, size=(height, width), mode="bicubic").movedim(1, 3)
    grid = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(images.shape), align_corners=False)
    moves = 2 * MELTED * moves / torch.tensor([width, height])
    return F.grid_sample(images.float(), grid + moves, "nearest", "border", align_corners=False).byte()


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred by 0.3 pixels": blurred(0.3),
    "blurred by 1 pixel": blurred(1),
    "noise of one level": noisy,
    "turned by 3 degrees": turned,
    "melted by up to 3 pixels": melted,
}

PARTS: dict[str, Callable[[Seen], Part]] = {"errors": errors, "tests": tests, "faults": faults, "mix": mix}

if __name__ == "__main__":
    run(main)
