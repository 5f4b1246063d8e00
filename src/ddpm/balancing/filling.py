"""Filling the classes of an imbalanced set: drawing until enough images are no copies, and taken for their class."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.balancing.copies import threshold
from ddpm.balancing.drawing import SPAN, Candidates, draw_class
from ddpm.classifier.model import Classifier
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.networks.checkpoint import LoadedModel
from ddpm.sampling.drawing import sample_batch
from ddpm.sampling.samplers import SamplerParams
from ddpm.scoring.copying import nearest_neighbours

HOPELESS = 500  # candidates after which a class may be given up; fewer where fewer images are wanted


class Source(NamedTuple):
    """What candidates are drawn with, and judged by.

    fresh: test images, of which none is a copy. least: the probability that the classifier must give the class. tries:
    candidates for each that is kept, beyond which a class is given up.
    """

    loaded: LoadedModel
    classifier: Classifier
    params: SamplerParams
    seed: int
    runtime: Runtime
    train: Split
    fresh: Split
    least: float
    tries: int


class Tally(NamedTuple):
    """What became of the candidates of a class, in order of their numbers."""

    candidates: int = 0
    copies: int = 0
    filtered: int = 0
    kept: int = 0

    def done(self, wanted: int, tries: int) -> bool:
        """Tell whether there are as many as wanted, or so few that the class is given up."""
        enough = self.candidates >= min(HOPELESS, tries * wanted)
        hopeless = enough and self.candidates > tries * self.kept
        return self.kept >= wanted or hopeless or self.candidates >= SPAN

    def next_count(self, wanted: int, most: int) -> int:
        """Count the candidates that are drawn next: as many as it may take at the rate so far."""
        left = (wanted - self.kept) * max(1, self.candidates)
        return min(most, -(-left // max(1, self.kept)), SPAN - self.candidates)


class Kept(NamedTuple):
    """Drawn images that are kept, those of each class in order of their numbers.

    images: uint8 (N, C, H, W). numbers: of each, see `drawing.SPAN` (N,). probability: that the filter gives its class
    (N,). nearest: the index of the nearest training image of its class (N,). distance: to it (N,).
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    nearest: Tensor
    distance: Tensor


def none_kept(shape: tuple[int, int, int]) -> Kept:
    """Return no images, to which others of this shape (C, H, W) can be joined."""
    none = torch.empty(0, dtype=torch.int64)
    return Kept(torch.empty(0, *shape, dtype=torch.uint8), none, torch.empty(0), none, torch.empty(0))


def fill(source: Source, label: int, wanted: int) -> Iterator[tuple[Tally, Kept]]:
    """Draw as many images of a class as wanted; yield after each batch the tally, and what is kept of the batch.

    Raises:
        UserError: the model cannot draw the class, or not so.
    """
    loaded, classifier, params, seed, runtime = source[:5]
    own = (source.train.labels == label).nonzero().squeeze(1)
    known = source.train.images[own]
    limit = threshold(source.fresh.images[source.fresh.labels == label], known)
    most = sample_batch(loaded, runtime)
    tally, seen = Tally(), set[bytes]()
    while not tally.done(wanted, source.tries):
        count = tally.next_count(wanted, most)
        drawn = draw_class(loaded, classifier, params, label, seed, tally.candidates, count, runtime)
        near = nearest_neighbours(drawn.images, known)
        copies = (near.distance < limit) | (near.distance == 0)
        taken = drawn.taken(label, source.least)
        rows, tally = chosen(drawn, seen, copies, taken, tally, wanted, source.tries)
        kept = Kept(drawn.images, drawn.numbers, drawn.probability, own[near.nearest], near.distance)
        yield tally, Kept(*(value[rows] for value in kept))


def chosen(
    drawn: Candidates, seen: set[bytes], copies: Tensor, taken: Tensor, tally: Tally, wanted: int, tries: int
) -> tuple[Tensor, Tally]:
    """Return the rows of the candidates that are kept, and the tally with those that were looked at.

    No more are looked at than it takes, so the batches in which they come decide nothing.

    Args:
        seen: the pixels of those of the class that are kept already, of which another one is a copy; what is kept is
            added.
        copies, taken: which are copies of training images, and which the filter takes for the class (N,).
    """
    rows = []
    for row, image in enumerate(drawn.images):
        if tally.done(wanted, tries):
            break
        content = image.numpy().tobytes()
        copy = bool(copies[row]) or content in seen
        keep = not copy and bool(taken[row])
        tally = Tally(
            tally.candidates + 1, tally.copies + copy, tally.filtered + (not copy and not keep), tally.kept + keep
        )
        if keep:
            rows.append(row)
            seen.add(content)
    return torch.tensor(rows, dtype=torch.int64), tally
