"""Class balance: rare classes are trained on more often than they occur."""

import torch
from torch import Tensor


def balanced_order(order: Tensor, labels: Tensor, balance: float, rng: torch.Generator) -> Tensor:
    """Resample the N indices of all images, shuffled, (N,), so that rare classes come more often.

    A class of n images gets a share proportional to n^(1 - balance): 0 keeps the shares, 1 makes them equal.
    Systematic sampling: how often two images of one class come differs by at most one.

    Args:
        order: all indices, shuffled.
        labels: of the images, by index.
    """
    order = order[labels[order].argsort(stable=True)]  # class by class
    weights = labels.bincount().double().pow(-balance)[labels[order]]
    ends = weights.cumsum(0)
    places = (torch.arange(len(order), dtype=torch.float64) + torch.rand((), generator=rng)) / len(order) * ends[-1]
    drawn = order[torch.searchsorted(ends, places, right=True).clamp(max=len(order) - 1)]
    return drawn[torch.randperm(len(order), generator=rng)]
