"""Keep the samples that a classifier assigns to the requested class.

Razavi et al. 2019 reject samples by a classifier (arXiv:1906.00446, section 3.3); here the probability has a threshold.
Without a requested class, the most probable one counts. With a single class, all samples are kept.
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

NEARLY_LOST = 0.5  # of the overall share that is kept: a class that keeps less is nearly lost


class FilterParams(Section):
    """Params of the filter: the least probability that classifier a must give the class of an image."""

    least_probability: Annotated[float, Field(ge=0, lt=1)]


def filtered(
    population: dict[str, Tensor], classifier: Classifier, classes: list[int], params: FilterParams, runtime: Runtime
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Filter samples (see `images.splits.load_samples`); return them, and how many are kept in total and of each class.

    Args:
        classes: labels of the sampled classes.

    Raises:
        UserError: too few samples are kept to be scored.
    """
    images, asked = population["images"], population.get("labels")
    probability, labels = class_probability(classifier, images, asked, classes, runtime)
    least = params.least_probability
    kept = probability >= least
    if kept.sum() < LEAST_TEST and not kept.all():
        few = f"classifier a gives only {int(kept.sum())} of {len(kept)} samples their class with at least {least:g}"
        needed = f"but the scores need {LEAST_TEST}"
        raise UserError(f"filter.least_probability: {few}, {needed}; train longer, or set 0 to keep all")
    samples = {"images": images[kept], **{name: population[name][:, kept] for name in ("x_t", "pred_x_start")}}
    if asked is not None:
        samples["labels"] = asked[kept]
    return samples, summary(kept, labels, classifier.data.classes)


def class_probability(
    classifier: Classifier, images: Tensor, asked: Tensor | None, classes: list[int], runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Return the probability (N,) of the requested class, or else of the likeliest of `classes`, and that class (N,).

    A classifier that knows a single class gives probability 1.
    """
    if not classifier.knows_classes:
        return torch.ones(len(images)), torch.zeros(len(images), dtype=torch.int64)
    logits = features_and_logits(classifier, images, runtime.device)[1]
    found = likeliest(logits, classes) if asked is None else asked
    return logits.softmax(1).gather(1, found[:, None]).squeeze(1), found


def summary(kept: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Count the kept samples, booleans (N,), in total and for each sampled class, labels (N,)."""
    by_class = {names[label]: _share(kept[labels == label]) for label in labels.unique().tolist()}
    return {
        "sampled": len(kept),
        "kept": int(kept.sum()),
        "share": _share(kept),
        "least_share": min(by_class.values()),
        "share_by_class": by_class,
    }


def report(found: dict[str, Any]) -> list[str]:
    """Describe a summary in lines of text: the shares, and a warning if classes are nearly lost."""
    by_class = found["share_by_class"]
    kept = f"kept {found['kept']:,} of {found['sampled']:,} samples, {found['share']:.1%}"
    lines = [f"{kept}; by class: {_in_order(by_class)}"]
    lost = {name: share for name, share in by_class.items() if share < NEARLY_LOST * found["share"]}
    if lost:
        lines.append(
            f"warning: filter.least_probability: {len(lost)} of {len(by_class)} classes keep less than half of the "
            f"overall share ({_in_order(lost)}), so the scored samples have other class shares; train longer, or "
            "lower it (0 keeps all)"
        )
    return lines


def _share(kept: Tensor) -> float:
    """Return the share of true values among booleans (N,)."""
    return round(float(kept.double().mean()), 4)


def _in_order(by_class: dict[str, float]) -> str:
    """List the shares of classes in one line, the lowest first."""
    return listed(f"{share:.1%} of {name}" for name, share in sorted(by_class.items(), key=lambda each: each[1]))
