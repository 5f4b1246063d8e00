"""What is measured of a classifier that learned in an arm."""

from collections.abc import Sequence
from typing import Any

import torch

from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed, Split
from studies.rare_class.arms import Arm, Drawn
from studies.rare_class.learning import LearnParams, confusion, learn


def compare(
    name: str,
    train: Processed,
    drawn: Drawn | None,
    rare: Sequence[int],
    test: Split,
    arm: str,
    seed: int,
    params: LearnParams,
    runtime: Runtime,
) -> dict[str, Any]:
    """Let a classifier learn, and count what it sees.

    Args:
        name: of the progress bar.
        rare: the labels of the rare classes.

    Returns:
        confusion: of the test images, see `learning.confusion`.
        traces: where there are drawn images, the share of those of frequent classes that it takes for a rare one. A
            classifier that has met drawn images in the rare classes alone may take the traces of the generator for the
            mark of a rare class. These are all that were drawn, for a filter would favour those like itself.
    """
    model = learn(name, train.split, drawn, rare, Arm.parse(arm), train.card, params, seed, runtime)
    found: dict[str, Any] = {"confusion": confusion(model, *test, runtime.device).tolist()}
    if drawn:
        frequent = ~torch.isin(drawn.labels, torch.tensor([*rare]))
        seen = confusion(model, drawn.images[frequent], drawn.labels[frequent], runtime.device)
        found["traces"] = round(float(seen[:, [*rare]].sum() / seen.sum().clamp(min=1)), 5)
    return found
