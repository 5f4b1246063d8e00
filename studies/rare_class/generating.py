"""Make long-tailed subsets of a training set, train a filter on each, and fill up its classes by a model of it.

Subsets treat all classes alike. The rest is as the pipeline and `ddpm balance` do it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.balancing.filling import FillInputs, Tally, fill
from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.randomness import generator
from ddpm.images.splits import Split, SplitFile
from ddpm.params.sample import SamplerParams
from ddpm.processes.device import Runtime
from ddpm.scores.classifier import Classifier, Recipe, held_out
from ddpm.scores.fit import train_classifier
from exact_stages.console import UserError, progress


class Subset(NamedTuple):
    """A long-tailed subset, and real images outside it.

    counts: the number of images of each class. kept: the subset. pool: as many images of each class, to validate on.
    spare: further images, which fill up each class in place of samples.
    """

    counts: list[int]
    kept: SplitFile
    pool: Split
    spare: Split


def make_subset(train: SplitFile, counts: Sequence[int], pool: int, target: int, number: int) -> Subset:
    """Choose the images of subset `number` at random; no two of them are near-duplicates.

    The counts go around the classes: subset i + 1 gives each class the count of the class before it. So over as many
    subsets as classes, each class has each of the counts once.

    Raises:
        UserError: the set has too few classes or images.
    """
    names, labels = train.card.classes, train.split.labels
    if len(counts) != len(names):
        raise UserError(f"counts: has {len(counts)} numbers, but {train.card.name} has {len(names)} classes")
    order = torch.randperm(len(names), generator=generator(0, "order of classes")).tolist()
    of_class = [counts[(order[label] + number) % len(counts)] for label in range(len(names))]
    leaders = train.groups == torch.arange(len(train.groups))  # one of each group of near-duplicates
    parts: list[list[Tensor]] = [[], [], []]
    for label, count in enumerate(of_class):
        rows = (leaders & (labels == label)).nonzero().flatten()
        if len(rows) < (needed := pool + max(target, count)):
            raise UserError(f"pool: class {names[label]} has {len(rows)} different images, needed are {needed}")
        rows = rows[torch.randperm(len(rows), generator=generator(number, "subset", label))]
        sizes = [pool, count, max(0, target - count), len(rows) - needed]
        for part, chosen in zip(parts, rows.split(sizes), strict=False):
            part.append(chosen)
    on_pool, kept, spare = (torch.cat(part).sort().values for part in parts)
    split = train.split
    own = train._replace(split=split.take(kept), groups=torch.arange(len(kept)))
    return Subset(of_class, own, split.take(on_pool), split.take(spare))


def fill_up(
    loaded: LoadedModel, sampler: SamplerParams, subset: Subset, target: int, length: int, seed: int, runtime: Runtime
) -> tuple[Split, list[Tally]]:
    """Sample images of each class up to `target`; return those that the filter takes, and a tally of each class.

    Images of the pool stand for the test images that tell copies from samples.

    Args:
        loaded: a model of the subset. length: the images that its filter trains on.
    """
    kept = subset.kept
    torch.manual_seed(seed)
    judge = Classifier(Recipe(images_seen=length, seed=seed), kept.card)
    of_filter = train_classifier(judge, kept.split.take(~held_out(kept)), runtime)
    for _ in progress(of_filter, desc="filter", unit="step"):
        pass
    inputs = FillInputs(loaded, judge, sampler, seed, runtime, kept.split, subset.pool)
    images, labels, tallies = [kept.split.images[:0]], list[int](), []
    for label, count in enumerate(progress(subset.counts, desc="fill up", unit="class")):
        tally = Tally()
        for tally, samples in fill(inputs, label, target - count) if count < target else ():
            images += [sample.image[None] for sample in samples]
            labels += [label] * len(samples)
        tallies.append(tally)
    return Split(torch.cat(images), torch.tensor(labels, dtype=torch.int64)), tallies
