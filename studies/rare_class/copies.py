"""Count the samples of a method that copy the few real images."""

from collections.abc import Sequence
from typing import Any

import torch

from ddpm.images.splits import Processed
from ddpm.scoring.copying import near_copies, nearness
from studies.rare_class.arms import Arm, Sampled


def count_copies(train: Processed, sampled: Sampled, rare: Sequence[int], test: Processed, arm: str) -> dict[str, Any]:
    """Count near copies among samples of rare classes, by test images; None if the method uses no such sample."""
    few, fresh, learned = train.of(rare), test.of(rare), sampled.chosen(Arm.parse(arm), rare)
    rows = torch.isin(learned.labels, torch.tensor([*rare]))
    if not rows.any():
        return {"near_copies": None}
    found = near_copies(nearness(*learned.take(rows), *few), nearness(*fresh, *few))
    return {"near_copies": found._asdict()}
