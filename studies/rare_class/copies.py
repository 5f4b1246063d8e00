"""Count the samples of a method that copy the few real images."""

from collections.abc import Sequence
from typing import Any

import torch

from ddpm.images.splits import Processed
from ddpm.scoring.copying import near_copies, nearness
from studies.rare_class.methods import Method, Sampled


def count_copies(
    train: Processed, sampled: Sampled, rare: Sequence[int], test: Processed, method: str
) -> dict[str, Any]:
    """Count near copies among samples of rare classes, by test images; None if the method uses no such sample."""
    few, fresh, learned = train.of(rare), test.of(rare), sampled.chosen(Method.parse(method), rare)
    rows = torch.isin(learned.labels, torch.tensor([*rare]))
    if not rows.any():
        return {"near_copies": None}
    found = near_copies(nearness(*learned.take(rows), *few), nearness(*fresh, *few))
    return {"near_copies": found._asdict()}
