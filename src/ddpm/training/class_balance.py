"""How often the images of each class are trained on, where some classes are rare."""

import torch
from torch import Tensor


def balanced_order(order: Tensor, labels: Tensor, balance: float, source: torch.Generator) -> Tensor:
    """The indices of as many images as there are, (N,), shuffled, in which rare classes come more often than they are.

    A class of n images has a share in proportion to n^(1 - balance): 0 leaves the classes as they are, 1 makes them
    equal. Within its class each image comes as often as any other, or once more (systematic sampling).

    Args:
        order: all indices, shuffled. labels: of the images, not in that order.
    """
    order = order[labels[order].argsort(stable=True)]  # class by class
    weights = labels.bincount().double().pow(-balance)[labels[order]]
    ends = weights.cumsum(0)
    places = (torch.arange(len(order), dtype=torch.float64) + torch.rand((), generator=source)) / len(order) * ends[-1]
    drawn = order[torch.searchsorted(ends, places, right=True).clamp(max=len(order) - 1)]
    return drawn[torch.randperm(len(order), generator=source)]
