"""Keep the samples to which a classifier gives the requested class with high probability.

Razavi et al. 2019 reject samples by a classifier (arXiv:1906.00446, section 3.3). Here the probability has a threshold,
or the same share of each class is kept. Without a requested class, the most probable one counts. With a single class,
all samples are kept.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.images.card import listed
from ddpm.images.splits import LEAST_TEST, Samples, Split
from ddpm.processes.device import Runtime
from ddpm.scores.classifier import Classifier, features_and_logits, likeliest
from exact_stages.console import UserError

CONFIDENT = 0.9  # an image whose class has this probability is clear
LEAST_KEPT = 0.5  # share of the samples


class Recognition(NamedTuple):
    """What a classifier says of images: the probability of their class (N,), and that class (N,)."""

    probability: Tensor
    labels: Tensor

    def take(self, chosen: Tensor) -> "Recognition":
        """Select images by a mask (N,)."""
        return Recognition(*(each[chosen] for each in self))

    @property
    def clear(self) -> float:
        """Return the share of images whose class has a probability of CONFIDENT or more."""
        return _share(self.probability >= CONFIDENT)

    @property
    def standard_error(self) -> float:
        """Return the standard error of `clear`."""
        return math.sqrt(self.clear * (1 - self.clear) / len(self.labels))


def filtered(
    samples: Samples, real: Split, classifier: Classifier, least: float | None, runtime: Runtime
) -> tuple[Samples, dict[str, Any]]:
    """Filter samples; return them, and how many are kept in total and of each class.

    Args:
        real: training images that the classifier has not seen.
        least: the least probability that the classifier must give the class of an image; None: see `most_probable`.

    Raises:
        UserError: too few samples are kept to be scored.
    """
    images, asked, classes = samples.images, samples.labels, samples.classes
    recognised = recognise(classifier, images, asked, classes, runtime)
    held_out = recognise(classifier, real.images, None if asked is None else real.labels, classes, runtime)
    kept = most_probable(recognised, held_out) if least is None else recognised.probability >= least
    if kept.sum() < LEAST_TEST and not kept.all():
        few = f"{int(kept.sum())} of {len(kept)} samples are kept, but the scores need {LEAST_TEST}"
        raise UserError(f"filter.least_probability: {few}; sample or train more, or set 0 to keep all")
    found = summary(kept, recognised, held_out, classifier.data.classes, classifier.knows_classes)
    return samples._replace(
        images=images[kept],
        labels=None if asked is None else asked[kept],
        x_t=samples.x_t[:, kept],
        pred_x_start=samples.pred_x_start[:, kept],
        made=samples.made | {"kept": found["share"]},
        clear=found["clear_by_class"],
    ), found


def most_probable(samples: Recognition, real: Recognition) -> Tensor:
    """Return a mask (N,) that keeps the same share of each class, the most probable samples of each.

    The share is the largest at which samples are clear more often than real images, by one standard error of the
    latter, but at least LEAST_KEPT. If there is none, it is the largest that comes within a standard error of the
    clearest. Without real images, all samples are kept.
    """
    if not len(real.labels):
        return torch.ones(len(samples.labels), dtype=torch.bool)
    count = len(samples.labels)
    rank = torch.zeros(count, dtype=torch.float64)  # of a sample in its class, from above 0 (most probable) to below 1
    for label in samples.labels.unique():
        of_class = (samples.labels == label).nonzero().flatten()
        order = samples.probability[of_class].argsort(descending=True, stable=True)
        rank[of_class[order]] = (torch.arange(len(order), dtype=torch.float64) + 0.5) / len(order)
    order = rank.argsort(stable=True)
    clear = (samples.probability[order] >= CONFIDENT).double().cumsum(0) / torch.arange(1, count + 1)
    wanted = min(1.0, real.clear + real.standard_error)
    clearest = float(clear[math.ceil(LEAST_KEPT * count) - 1 :].max())
    if clearest < wanted:
        wanted = clearest - real.standard_error
    most = max(int((clear >= wanted).nonzero()[-1]) + 1, math.ceil(LEAST_KEPT * count))
    return torch.zeros(count, dtype=torch.bool).index_fill(0, order[:most], True)


def recognise(
    classifier: Classifier, images: Tensor, asked: Tensor | None, classes: list[int], runtime: Runtime
) -> Recognition:
    """Judge images by the requested class, or else by the likeliest of `classes`.

    A classifier that knows a single class gives probability 1.
    """
    if not (classifier.knows_classes and len(images)):
        return Recognition(torch.ones(len(images)), torch.zeros(len(images), dtype=torch.int64))
    logits = features_and_logits(classifier, images, runtime.device)[1]
    return recognised_by(logits, likeliest(logits, classes) if asked is None else asked)


def recognised_by(logits: Tensor, labels: Tensor) -> Recognition:
    """Return the probability of labels (N,) by the logits of all classes (N, classes)."""
    return Recognition(logits.softmax(1).gather(1, labels[:, None]).squeeze(1), labels)


def those_kept(images: Tensor, kept: Tensor) -> Tensor:
    """Tell which images (N, ...) are the kept ones (M, ...), which are in the same order; a mask (N,)."""
    mask = torch.zeros(len(images), dtype=torch.bool)
    for index, image in enumerate(images):
        place = int(mask.sum())
        mask[index] = place < len(kept) and torch.equal(image, kept[place])
    return mask


def passing(kept: Recognition, real: Recognition) -> Tensor:
    """Tell which real images the filter that kept these samples would keep, (N,).

    Their class is at least as probable as that of the least probable kept sample of this class.
    """
    classes = 1 + int(torch.cat([kept.labels, real.labels]).max())
    least = torch.full((classes,), torch.inf).scatter_reduce(0, kept.labels, kept.probability, "amin")
    return real.probability >= least[real.labels]


def summary(
    kept: Tensor, samples: Recognition, real: Recognition, names: Sequence[str], knows_classes: bool = True
) -> dict[str, Any]:
    """Count the kept samples, booleans (N,), and the clear ones, in total and for each sampled class.

    A classifier that knows a single class cannot tell which are clear.
    """
    of_class = {names[label]: samples.labels == label for label in samples.labels.unique().tolist()}
    shares = {name: _share(kept[mask]) for name, mask in of_class.items()}
    return {
        "sampled": len(kept),
        "kept": int(kept.sum()),
        "share": _share(kept),
        "share_by_class": shares,
        "clear": samples.clear if knows_classes else None,
        "clear_real": real.clear if knows_classes and len(real.labels) else None,
        "clear_by_class": {
            name: _share(samples.probability[mask] >= CONFIDENT) for name, mask in of_class.items() if knows_classes
        },
    }


def report(found: dict[str, Any]) -> list[str]:
    """Describe a summary in lines of text."""
    kept = f"kept {found['kept']:,} of {found['sampled']:,} samples, {found['share']:.1%}"
    lines = [f"{kept}; by class: {_in_order(found['share_by_class'])}"]
    if found["clear_real"] is not None:
        clear = f"{found['clear']:.1%}, held-out real images: {found['clear_real']:.1%}"
        lines.append(f"clear before: {clear}; by class: {_in_order(found['clear_by_class'])}")
    return lines


def _share(kept: Tensor) -> float:
    """Return the share of true values among booleans (N,)."""
    return round(float(kept.double().mean()), 4)


def _in_order(by_class: dict[str, float]) -> str:
    """List the shares of classes in one line, the lowest first."""
    return listed(f"{share:.1%} of {name}" for name, share in sorted(by_class.items(), key=lambda each: each[1]))
