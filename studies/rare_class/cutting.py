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


CutName = Annotated[str, AfterValidator(_check_name)]


def count_and_seed(name: str) -> tuple[int, int]:
    """Split the name of a subset: how many images of each rare class are kept, and the seed that chooses them."""
    count, _, seed = name.partition("-")
    return int(count), int(seed)


class Cut(NamedTuple):
    """An imbalanced subset of the training images, and images left out of it."""

    kept: Processed
    left_out: Processed


def cut(processed: Processed, counts: Mapping[int, int], spare: int, seed: int) -> Cut:
    """Keep only `counts` images of some classes, a random subset of each.

    Near-duplicates (`Processed.groups`) may decide each other's split. Only one of each group is used, in kept and
    left-out images together.

    Args:
        counts: number of images to keep, by label.
        spare: size of the validation pool of each class. Of rare classes, all further images are unused.

    Raises:
        UserError: a class has too few images.
    """
    labels, groups = processed.split.labels, processed.groups
    alone = groups == torch.arange(len(groups))  # the leader of each group
    keep, leave = [], []
    for label, name in enumerate(processed.card.classes):
        chosen = (alone & (labels == label)).nonzero().squeeze(1)
        order = chosen[torch.randperm(len(chosen), generator=generator(seed, "cut", label))]
        count = counts.get(label, len(order) - spare)
        if not 0 < count <= len(order) - spare:
            wanted = f"{counts.get(label, 'some')} to keep and {spare} spare ones"
            raise UserError(f"cuts: class {name} has {len(order)} different images, too few for {wanted}; use fewer")
        keep.append(order[:count])
        leave.append(order[count : count + spare])
    return Cut(*(_part(processed, torch.cat(part)) for part in (keep, leave)))


def _part(processed: Processed, index: Tensor) -> Processed:
    """Select these images, in the order of the file."""
    index = index.sort().values
    return processed._replace(split=processed.split.take(index), groups=torch.arange(len(index)))
