"""Train a classifier by one method, and measure it."""

from collections.abc import Sequence
from typing import Any

import torch

from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed, Split
from studies.rare_class.learning import LearnParams, confusion, learn
from studies.rare_class.methods import Method, Sampled


def compare(
    name: str,
    train: Processed,
    sampled: Sampled | None,
    rare: Sequence[int],
    test: Split,
    method: str,
    seed: int,
    params: LearnParams,
    runtime: Runtime,
) -> dict[str, Any]:
    """Train a classifier, and count its predictions.

    Args:
        name: of the progress bar.
        rare: the labels of the rare classes.

    Returns:
        confusion: of the test images; see `learning.confusion`.
        traces: with samples, the share predicted as rare among samples of frequent classes. A classifier that met
            samples in rare classes alone may take traces of the generator for a rare class. All samples count, because
            a filter would prefer samples that look like its own.
    """
    model = learn(name, train.split, sampled, rare, Method.parse(method), train.card, params, seed, runtime)
    found: dict[str, Any] = {"confusion": confusion(model, *test, runtime.device).tolist()}
    if sampled:
        frequent = ~torch.isin(sampled.labels, torch.tensor([*rare]))
        seen = confusion(model, sampled.images[frequent], sampled.labels[frequent], runtime.device)
        found["traces"] = round(float(seen[:, [*rare]].sum() / seen.sum().clamp(min=1)), 5)
    return found
