"""Fill the classes of an imbalanced set: sample until enough images pass the filter and are not copies."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.balancing.candidates import SPAN, Candidates, sample_class
from ddpm.balancing.copies import threshold
from ddpm.classifier.model import Classifier
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.model import LoadedModel
from ddpm.sample import SamplerParams, sample_batch_size
from ddpm.scoring.copying import nearest_neighbours

HOPELESS = 500  # candidates after which a class may be given up; fewer if fewer images are wanted


class FillInputs(NamedTuple):
    """The model and settings that generate candidates, and everything that judges them.

    fresh: test images; none of them is a copy. least: the least probability that the classifier must give the class.
    tries: candidates for each kept image; beyond this, a class is given up.
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
    """Counts of what happened to the candidates of a class, in order of their numbers."""

    candidates: int = 0
    copies: int = 0
    filtered: int = 0
    accepted: int = 0

    def done(self, wanted: int, tries: int) -> bool:
        """Tell whether enough images are kept, or so few that the class is given up."""
        enough = self.candidates >= min(HOPELESS, tries * wanted)
        hopeless = enough and self.candidates > tries * self.accepted
        return self.accepted >= wanted or hopeless or self.candidates >= SPAN

    def next_count(self, wanted: int, most: int) -> int:
        """Return how many candidates to sample next: as many as needed at the rate so far, and at most `most`."""
        left = (wanted - self.accepted) * max(1, self.candidates)
        return min(most, -(-left // max(1, self.accepted)), SPAN - self.candidates)


class Accepted(NamedTuple):
    """Samples that are kept, in order of their numbers within each class.

    images: uint8 (N, C, H, W). numbers: see `candidates.SPAN` (N,). probability: of their class, by the filter (N,).
    nearest: the index of the nearest training image of the class (N,). distance: to this image (N,).
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    nearest: Tensor
    distance: Tensor


def none_accepted(shape: tuple[int, int, int]) -> Accepted:
    """Return an empty `Accepted` for images of this shape (C, H, W), to join others to."""
    none = torch.empty(0, dtype=torch.int64)
    return Accepted(torch.empty(0, *shape, dtype=torch.uint8), none, torch.empty(0), none, torch.empty(0))


def fill(inputs: FillInputs, label: int, wanted: int) -> Iterator[tuple[Tally, Accepted]]:
    """Sample as many images of a class as wanted; after each batch, yield the tally and what is kept of the batch.

    Raises:
        UserError: the model cannot sample the class, or not with these params.
    """
    loaded, classifier, params, seed, runtime = inputs[:5]
    own = (inputs.train.labels == label).nonzero().squeeze(1)
    known = inputs.train.images[own]
    limit = threshold(inputs.fresh.images[inputs.fresh.labels == label], known)
    most = sample_batch_size(loaded, runtime)
    tally, seen = Tally(), set[bytes]()
    while not tally.done(wanted, inputs.tries):
        count = tally.next_count(wanted, most)
        candidates = sample_class(loaded, classifier, params, label, seed, tally.candidates, count, runtime)
        near = nearest_neighbours(candidates.images, known)
        copies = (near.distance < limit) | (near.distance == 0)
        taken = candidates.taken(label, inputs.least)
        rows, tally = chosen(candidates, seen, copies, taken, tally, wanted, inputs.tries)
        accepted = Accepted(
            candidates.images, candidates.numbers, candidates.probability, own[near.nearest], near.distance
        )
        yield tally, Accepted(*(value[rows] for value in accepted))


def chosen(
    candidates: Candidates, seen: set[bytes], copies: Tensor, taken: Tensor, tally: Tally, wanted: int, tries: int
) -> tuple[Tensor, Tally]:
    """Return the rows of the kept candidates, and the tally of those examined.

    Examining stops once the class is done, so the batch size does not change the result.

    Args:
        seen: the pixels of images of the class kept so far, to detect repeats; kept candidates are added.
        copies, taken: which candidates copy training images, and which the filter accepts for the class (N,).
    """
    rows = []
    for row, image in enumerate(candidates.images):
        if tally.done(wanted, tries):
            break
        content = image.numpy().tobytes()
        copy = bool(copies[row]) or content in seen
        accept = not copy and bool(taken[row])
        tally = Tally(
            tally.candidates + 1,
            tally.copies + copy,
            tally.filtered + (not copy and not accept),
            tally.accepted + accept,
        )
        if accept:
            rows.append(row)
            seen.add(content)
    return torch.tensor(rows, dtype=torch.int64), tally
