"""Fill a class of an imbalanced set: sample until enough images pass a classifier and are no copies."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.sets import sample_batch_size, sample_images
from ddpm.images.splits import Split
from ddpm.params.sample import SamplerParams
from ddpm.processes.device import Runtime
from ddpm.scores.classifier import Classifier, features_and_logits
from ddpm.scores.copying import LEAST, NEAR, near_duplicates, nearest_neighbours

SPAN = 1_000_000  # numbers for each class: image j of class `label` has the number label * SPAN + j
TRIES = 20  # candidates for each kept image; beyond this, a class is given up
HOPELESS = 500  # candidates after which it may be; fewer if fewer images are wanted
LEAST_BATCH = 16
BATCHES = 4  # of candidates at a time, so that workers can share them


class FillInputs(NamedTuple):
    """The model and settings that generate candidates, and everything that judges them.

    params: `fitted` to the model; their classes are ignored. held_out: test images; none of them is a copy.
    """

    loaded: LoadedModel
    classifier: Classifier
    params: SamplerParams
    seed: int
    runtime: Runtime
    train: Split
    held_out: Split


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


class Sample(NamedTuple):
    """A sample that is kept.

    image: uint8 (C, H, W). number: see SPAN; it determines the noise. probability: of its class, by the filter.
    nearest: the index of the nearest training image of the class. distance: to this image.
    """

    image: Tensor
    number: int
    probability: float
    nearest: int
    distance: float


def fill(inputs: FillInputs, label: int, wanted: int) -> Iterator[tuple[Tally, list[Sample]]]:
    """Sample as many images of a class as wanted; after each batch, yield the tally and what is kept of the batch.

    An image that equals an earlier one counts as a copy.

    Raises:
        UserError: the model cannot sample the class, or not with these params.
        NotFiniteError: see `sample_batch`.
    """
    loaded, classifier, params, seed, runtime, train, held_out = inputs
    params = params.model_copy(update={"classes": (loaded.card.data.classes[label],)})
    of_class = (train.labels == label).nonzero().squeeze(1)
    known = train.images[of_class]
    limit = threshold(held_out.images[held_out.labels == label], known)
    most = BATCHES * sample_batch_size(loaded.card, runtime)
    tally, seen = Tally(), set[bytes]()
    while not tally.done(wanted):
        first = label * SPAN + tally.candidates
        count = min(most, max(LEAST_BATCH, wanted - tally.accepted), SPAN - tally.candidates)
        numbers = range(first, first + count)
        images = torch.cat([batch for _, batch in sample_images(loaded, params, seed, numbers, runtime)])
        _, logits = features_and_logits(classifier, images, runtime.device)
        probability, suits = logits.softmax(1)[:, label], logits.argmax(1) == label
        near = nearest_neighbours(images, known)
        copies = (near.distance < limit) | (near.distance == 0)
        kept = []
        for row, image in enumerate(images):
            if tally.done(wanted):  # not only after the batch, whose size must not change the result
                break
            content = image.numpy().tobytes()
            fate = "copies" if copies[row] or content in seen else "accepted" if suits[row] else "filtered"
            tally = tally._replace(candidates=tally.candidates + 1, **{fate: getattr(tally, fate) + 1})
            if fate == "accepted":
                nearest, distance = int(of_class[near.nearest[row]]), float(near.distance[row])
                kept.append(Sample(image, numbers[row], float(probability[row]), nearest, distance))
                seen.add(content)
        yield tally, kept


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
