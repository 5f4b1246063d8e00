"""Make classes rare on purpose: keep only a few training images of some classes."""

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import Processed
from ddpm.pipeline.console import UserError


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,8}-(0|[1-9][0-9]{0,8})", name):
        raise ValueError("must be a count and a seed, such as 50-0")
    return name


SubsetName = Annotated[str, AfterValidator(_check_name)]


def count_and_seed(name: str) -> tuple[int, int]:
    """Split the name of a subset: how many images of each rare class are kept, and the seed that chooses them."""
    count, _, seed = name.partition("-")
    return int(count), int(seed)


class Imbalanced(NamedTuple):
    """An imbalanced subset of the training images, and a validation pool of other training images."""

    kept: Processed
    validation_pool: Processed


def make_imbalanced(processed: Processed, counts: Mapping[int, int], validation_pool: int, seed: int) -> Imbalanced:
    """Keep only `counts` images of some classes, a random subset of each.

    Near-duplicates (`Processed.groups`) may decide each other's split. Only one of each group is used, in the
    subset and the pool together.

    Args:
        counts: number of images to keep, by label.
        validation_pool: size of the validation pool of each class. Of rare classes, all further images are unused.

    Raises:
        UserError: a class has too few images.
    """
    labels, groups = processed.split.labels, processed.groups
    alone = groups == torch.arange(len(groups))  # the leader of each group
    keep, leave = [], []
    for label, name in enumerate(processed.card.classes):
        chosen = (alone & (labels == label)).nonzero().squeeze(1)
        order = chosen[torch.randperm(len(chosen), generator=generator(seed, "cut", label))]
        count = counts.get(label, len(order) - validation_pool)
        if not 0 < count <= len(order) - validation_pool:
            wanted = f"{counts.get(label, 'some')} to keep and {validation_pool} in the validation pool"
            raise UserError(f"subsets: class {name} has {len(order)} different images, too few for {wanted}; use fewer")
        keep.append(order[:count])
        leave.append(order[count : count + validation_pool])
    return Imbalanced(*(_part(processed, torch.cat(part)) for part in (keep, leave)))


def _part(processed: Processed, index: Tensor) -> Processed:
    """Select these images, in the order of the file."""
    index = index.sort().values
    return processed._replace(split=processed.split.take(index), groups=torch.arange(len(index)))
