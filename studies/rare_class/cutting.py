"""Making classes rare on purpose: training images of which all but a few of some classes are left out."""

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
    """Split the name of a cut: how many images of a rare class are kept, and the seed that draws them."""
    count, _, seed = name.partition("-")
    return int(count), int(seed)


class Cut(NamedTuple):
    """Training images and what was left out of them."""

    kept: Processed
    left_out: Processed


def cut(processed: Processed, counts: Mapping[int, int], spare: int, seed: int) -> Cut:
    """Keep only so many images of some classes, a random subset of each.

    Of twins (`Processed.groups`), of which one may have decided on which side the other is, there is one alone in what
    is kept and left out together.

    Args:
        counts: of labels, how many images are kept.
        spare: so many other images of each class are left out where they can be read; of rare classes all but those
            are in neither part.

    Raises:
        UserError: a class has too few images.
    """
    labels, groups = processed.split.labels, processed.groups
    alone = groups == torch.arange(len(groups))  # each group once, by its leader
    keep, leave = [], []
    for label, name in enumerate(processed.card.classes):
        chosen = (alone & (labels == label)).nonzero().squeeze(1)
        order = chosen[torch.randperm(len(chosen), generator=generator(seed, "cut", label))]
        count = counts.get(label, len(order) - spare)
        if not 0 < count <= len(order) - spare:
            wanted = f"{counts.get(label, 'some')} are to stay beside {spare} spare ones"
            raise UserError(f"cuts: class {name} has {len(order)} different images, of which {wanted}; ask for fewer")
        keep.append(order[:count])
        leave.append(order[count : count + spare])
    return Cut(*(_part(processed, torch.cat(part)) for part in (keep, leave)))


def _part(processed: Processed, index: Tensor) -> Processed:
    """Those images, in the order of the file."""
    index = index.sort().values
    return processed._replace(split=processed.split.take(index), groups=torch.arange(len(index)))
