"""Make long-tailed subsets of a training set, which treat all classes alike."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import Processed, Split
from exact_stages.console import UserError


class Subset(NamedTuple):
    """A long-tailed subset, and real images outside it.

    counts: the number of images of each class. kept: the subset. pool: as many images of each class, to validate on.
    spare: further images, which fill up each class in place of samples.
    """

    counts: list[int]
    kept: Processed
    pool: Split
    spare: Split


def make_subset(train: Processed, counts: Sequence[int], pool: int, target: int, number: int) -> Subset:
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
