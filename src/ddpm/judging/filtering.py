"""Keep the samples that a classifier takes for the class that was asked for.

As Razavi et al. 2019 reject samples by a classifier (arXiv:1906.00446, section 3.3), here with a bound on the
probability. Where no class was asked for, the likeliest counts. Where there is but one class, all are kept.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits, likeliest
from ddpm.compute.device import Runtime
from ddpm.images.card import listed
from ddpm.images.splits import LEAST_TEST
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section

FEW = 0.5  # of the share of all that is kept: a class that keeps less is nearly lost


class FilterParams(Section):
    """What classifier a must give the class of an image at least."""

    least_probability: Annotated[float, Field(ge=0, lt=1)]


def filtered(
    population: dict[str, Tensor], classifier: Classifier, classes: list[int], params: FilterParams, runtime: Runtime
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Filter samples, see `images.splits.load_samples`, and say how many are kept of all and of each class.

    Args:
        classes: labels of the classes that were drawn.

    Raises:
        UserError: too few are kept to be scored.
    """
    images, asked = population["images"], population.get("labels")
    probability, labels = class_probability(classifier, images, asked, classes, runtime)
    least = params.least_probability
    kept = probability >= least
    if kept.sum() < LEAST_TEST and not kept.all():
        few = f"to {int(kept.sum())} of {len(kept)} images drawn classifier a gives their class with {least:g} or more"
        needed = f"and the scores need {LEAST_TEST}"
        raise UserError(f"filter.least_probability: {few}, {needed}; train longer, or set 0, which keeps all")
    samples = {"images": images[kept], **{name: population[name][:, kept] for name in ("x_t", "pred_x_start")}}
    if asked is not None:
        samples["labels"] = asked[kept]
    return samples, summary(kept, labels, classifier.data.classes)


def class_probability(
    classifier: Classifier, images: Tensor, asked: Tensor | None, classes: list[int], runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """What a classifier gives the class that was asked for, or else the likeliest of `classes` (N,), and that class.

    One that knows no classes is sure of the only one.
    """
    if not classifier.knows_classes:
        return torch.ones(len(images)), torch.zeros(len(images), dtype=torch.int64)
    logits = features_and_logits(classifier, images, runtime.device)[1]
    found = likeliest(logits, classes) if asked is None else asked
    return logits.softmax(1).gather(1, found[:, None]).squeeze(1), found


def summary(kept: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Count which images are kept, booleans (N,), of all and of each class that was drawn, labels (N,)."""
    by_class = {names[label]: _share(kept[labels == label]) for label in labels.unique().tolist()}
    return {
        "drawn": len(kept),
        "kept": int(kept.sum()),
        "share": _share(kept),
        "least_share": min(by_class.values()),
        "share_by_class": by_class,
    }


def report(found: dict[str, Any]) -> list[str]:
    """Put a summary into lines of text: the shares, and a warning where classes are lost or nearly lost."""
    by_class = found["share_by_class"]
    kept = f"kept {found['kept']:,} of {found['drawn']:,} samples, {found['share']:.1%}"
    lines = [f"{kept}; by class: {_in_order(by_class)}"]
    lost = {name: share for name, share in by_class.items() if share < FEW * found["share"]}
    if lost:
        lines.append(
            f"warning: filter.least_probability: {len(lost)} of {len(by_class)} classes keep less than half as much as "
            f"all together ({_in_order(lost)}); what is scored no longer has the classes' shares; train longer, or "
            "set less (0 keeps all)"
        )
    return lines


def _share(kept: Tensor) -> float:
    """Of booleans (N,), those that are true."""
    return round(float(kept.double().mean()), 4)


def _in_order(by_class: dict[str, float]) -> str:
    """The shares of classes in one line, the lowest first."""
    return listed(f"{share:.1%} of {name}" for name, share in sorted(by_class.items(), key=lambda each: each[1]))
