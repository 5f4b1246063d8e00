"""Making classes rare on purpose: a train file of which all but a few images of some classes are left out."""

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.card import Classes, DataCard
from ddpm.images.splits import Processed
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Sections


def check_name(name: str) -> str:
    """The name of a cut, as it is.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}-(0|[1-9][0-9]{0,8})", name):
        raise ValueError("must be a count and a seed, such as 50-0")
    return name


def _some(names: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if not names:
        raise ValueError("must name some, such as [7], for where all are rare none is frequent")
    return names


CutName = Annotated[str, AfterValidator(check_name)]


class CutParams(Sections):
    """Of which classes a cut has few images, and how many of all others are left out.

    Which cuts there are is no matter of any of them: a cut's name is the count of images of such a class, and the seed
    that draws them.
    """

    classes: Annotated[Classes, AfterValidator(_some)]
    spare: Annotated[int, Field(ge=1, le=10**9)]

    def counts(self, name: str, card: DataCard) -> dict[int, int]:
        """How many images are kept of each such class, by label.

        Raises:
            UserError: the name is no cut's, or there is no such class.
        """
        try:
            check_name(name)
        except ValueError as error:
            raise UserError(f"cut.sets: {name} {error}") from None
        return dict.fromkeys(card.labels(self.classes, "cut.classes"), int(name.split("-")[0]))


def seed_of(name: str) -> int:
    """The seed in the name of a cut."""
    return int(name.split("-")[1])


class Cut(NamedTuple):
    """A train file and what was left out of it."""

    kept: Processed
    left_out: Processed


def cut(processed: Processed, counts: Mapping[int, int], spare: int, seed: int) -> Cut:
    """Keep only so many images of some classes, a random subset of each.

    Of twins (`Processed.groups`), of which one may have decided on which side the other is, there is one alone in what
    is kept and left out together.

    Args:
        counts: of labels, how many images are kept.
        spare: so many other images of each class are left out where they can be read; of rare classes all but those
            are in neither file.

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
            wanted = f"{counts.get(label, 'some')} are to stay beside the {spare} of cut.spare"
            raise UserError(f"cut: class {name} has {len(order)} different images, of which {wanted}; ask for fewer")
        keep.append(order[:count])
        leave.append(order[count : count + spare])
    return Cut(*(_part(processed, torch.cat(part)) for part in (keep, leave)))


def _part(processed: Processed, index: Tensor) -> Processed:
    """Those images, in the order of the file."""
    index = index.sort().values
    return processed._replace(split=processed.split.take(index), groups=torch.arange(len(index)))
