"""Compute recall, precision, F1 and accuracy of rare and frequent classes from a confusion matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Measures(NamedTuple):
    """Measures of each class, (classes,), float64, and of all; a share of nothing is 0.

    balanced_accuracy: the mean recall of the classes that have images. frequent_accuracy: the accuracy on classes that
    are not rare. The others are means over the rare classes.
    """

    recall: Tensor
    precision: Tensor
    f1: Tensor
    rare_recall: float
    rare_precision: float
    rare_f1: float
    balanced_accuracy: float
    frequent_accuracy: float


def measures(matrix: Tensor, rare: Sequence[int]) -> Measures:
    """Compute the measures of a confusion matrix (see `confusion`), given the labels of the rare classes."""
    right, true, found = matrix.diagonal().double(), matrix.sum(1), matrix.sum(0)
    recall, precision, f1 = (right / each.clamp(min=1) for each in (true, found, (true + found) / 2))
    frequent = torch.ones(len(matrix), dtype=torch.bool)
    frequent[[*rare]] = False
    rare_recall, rare_precision, rare_f1 = (float(each[[*rare]].mean()) for each in (recall, precision, f1))
    balanced_accuracy = float(recall[true > 0].mean())
    frequent_accuracy = float(right[frequent].sum() / true[frequent].sum().clamp(min=1))
    return Measures(recall, precision, f1, rare_recall, rare_precision, rare_f1, balanced_accuracy, frequent_accuracy)
