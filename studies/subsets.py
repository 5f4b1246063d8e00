"""Random subsets of images, and how many samples are near copies of them."""

import torch

from ddpm.cli.reading import Real
from ddpm.diffusion.randomness import generator
from ddpm.images.splits import Split, SplitFile
from ddpm.scores.copying import middle, near_copies, nearness, shifted
from exact_stages.console import UserError

TESTED = 2000  # test images that tell which share of samples is near copies


def subset_of(train: SplitFile, count: int, number: int) -> SplitFile:
    """Choose `count` images at random; those of a near-duplicate's group stay together, or lose it."""
    if count > len(train.groups):
        raise UserError(f"--count: {count}, but the set has {len(train.groups)} training images; lower it")
    rows = torch.randperm(len(train.groups), generator=generator(number, "subset"))[:count].sort().values
    place = torch.full((len(train.groups),), -1).scatter_(0, rows, torch.arange(count))
    groups = place[train.groups[rows]]
    return train._replace(split=train.split.take(rows), groups=torch.where(groups < 0, torch.arange(count), groups))


def copies(samples: Split, train: SplitFile, real: Real) -> dict[str, str]:
    """Return the shares of near copies among samples and test images; see docs/reference/scores.md."""
    table = middle(train.split.images), train.split.labels
    test = real.test.split.take(torch.arange(min(TESTED, len(real.test.split.labels))))
    ours, held_out = (nearness(shifted(each.images), each.labels, *table) for each in (samples, test))
    found, expected = near_copies([ours.ratio], held_out)
    return {"near_copies": f"{found.value:.4f}", "near_copies_of_real_test": f"{expected.value:.4f}"}
