"""Fill a class of an imbalanced set: sample until enough images pass a classifier and are no copies."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.model import LoadedModel
from ddpm.sampling.params import SamplerParams, sample_batch_size
from ddpm.sampling.sets import sample_images
from ddpm.scoring.copying import LEAST, NEAR, near_duplicates, nearest_neighbours

SPAN = 1_000_000  # numbers for each class: image j of class `label` has the number label * SPAN + j
TRIES = 20  # candidates for each kept image; beyond this, a class is given up
HOPELESS = 500  # candidates after which it may be; fewer if fewer images are wanted
LEAST_BATCH = 16
BATCHES = 4  # of candidates at a time, so that workers can share them


class FillInputs(NamedTuple):
    """The model and settings that generate candidates, and everything that judges them.

    held_out: test images; none of them is a copy. least: the least probability that the classifier must give the class.
    """

    loaded: LoadedModel
    classifier: Classifier
    params: SamplerParams
    seed: int
    runtime: Runtime
    train: Split
    held_out: Split
    least: float


class Tally(NamedTuple):
    """Counts of what happened to the candidates of a class, in order of their numbers."""

    candidates: int = 0
    copies: int = 0
    filtered: int = 0
    accepted: int = 0

    def done(self, wanted: int) -> bool:
        """Tell whether enough images are kept, or so few that the class is given up."""
        enough = self.candidates >= min(HOPELESS, TRIES * wanted)
        hopeless = enough and self.candidates > TRIES * self.accepted
        return self.accepted >= wanted or hopeless or self.candidates >= SPAN


class Candidates(NamedTuple):
    """Samples of one class.

    images: uint8 (N, C, H, W). numbers: see SPAN; they determine the noise (N,). probability: of the class (N,). found:
    the most probable class (N,).
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    found: Tensor


class Accepted(NamedTuple):
    """Samples that are kept, in order of their numbers within each class.

    images: uint8 (N, C, H, W). numbers: see SPAN (N,). probability: of their class, by the filter (N,). nearest: the
    index of the nearest training image of the class (N,). distance: to this image (N,).
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    nearest: Tensor
    distance: Tensor


def none_accepted(shape: tuple[int, int, int]) -> Accepted:
    """Return no images of this shape."""
    none = torch.empty(0, dtype=torch.int64)
    return Accepted(torch.empty(0, *shape, dtype=torch.uint8), none, torch.empty(0), none, torch.empty(0))


def fill(inputs: FillInputs, label: int, wanted: int) -> Iterator[tuple[Tally, Accepted]]:
    """Sample as many images of a class as wanted; after each batch, yield the tally and what is kept of the batch.

    An image that equals an earlier one counts as a copy.

    Raises:
        UserError: the model cannot sample the class, or not with these params.
    """
    loaded, classifier, params, seed, runtime, _, _, least = inputs
    own = (inputs.train.labels == label).nonzero().squeeze(1)
    known = inputs.train.images[own]
    limit = threshold(inputs.held_out.images[inputs.held_out.labels == label], known)
    most = BATCHES * sample_batch_size(loaded.card, runtime)
    tally, seen = Tally(), set[bytes]()
    while not tally.done(wanted):
        count = min(most, max(LEAST_BATCH, wanted - tally.accepted), SPAN - tally.candidates)
        sampled = sample_class(loaded, classifier, params, label, seed, tally.candidates, count, runtime)
        near = nearest_neighbours(sampled.images, known)
        copies = (near.distance < limit) | (near.distance == 0)
        suits = (sampled.found == label) & (sampled.probability >= least)
        rows = []
        for row, image in enumerate(sampled.images):
            if tally.done(wanted):  # not only after the batch, whose size must not change the result
                break
            content = image.numpy().tobytes()
            fate = "copies" if copies[row] or content in seen else "accepted" if suits[row] else "filtered"
            tally = tally._replace(candidates=tally.candidates + 1, **{fate: getattr(tally, fate) + 1})
            if fate == "accepted":
                rows.append(row)
                seen.add(content)
        facts = sampled.images, sampled.numbers, sampled.probability, own[near.nearest], near.distance
        yield tally, Accepted(*(each[rows] for each in facts))


def sample_class(
    loaded: LoadedModel,
    classifier: Classifier,
    params: SamplerParams,
    label: int,
    seed: int,
    first: int,
    count: int,
    runtime: Runtime,
) -> Candidates:
    """Sample `count` images of a class, from number `first` < SPAN on; image j of a class depends only on (seed, j).

    Args:
        params: how to sample, `fitted` to the model; their classes are ignored.

    Raises:
        UserError: the model cannot sample the class.
    """
    params = params.model_copy(update={"classes": (loaded.card.data.classes[label],)})
    begin = label * SPAN + first
    numbers = range(begin, begin + count)
    images = torch.cat([batch for _, batch in sample_images(loaded, params, seed, numbers, runtime)])
    _, logits = features_and_logits(classifier, images, runtime.device)
    return Candidates(images, torch.tensor([*numbers]), logits.softmax(1)[:, label], logits.argmax(1))


def threshold(held_out: Tensor, train: Tensor) -> float:
    """Return the distance to the nearest training image (M, ...) below which an image of the class is a copy.

    All but a share NEAR of the held-out images (N, ...) exceed it. With fewer than LEAST, it is their smallest
    distance. Near-duplicates of training images do not count. Without held-out images it is 0.
    """
    distance = nearest_neighbours(held_out, train).distance if len(held_out) else torch.empty(0)
    single = distance[~near_duplicates(distance, torch.zeros(len(distance)))].double().numpy()
    if len(single) >= LEAST:
        return float(np.quantile(single, NEAR, method="weibull"))
    return float(single.min()) if len(single) else 0.0
