"""The changes of real images whose detection is measured: each does what its name says."""

import torch

from studies.scores.run import CHANGES, MELTED
from tests.small import images


def test_changes_are_of_the_size_that_they_say() -> None:
    levels, across = images(40), torch.arange(28, dtype=torch.uint8).expand(50, 1, 28, 28)
    changed = {name: (change(levels).int() - levels.int()).abs() for name, change in CHANGES.items()}
    assert changed["noise of one level"].max() == 1
    assert all(each.any() for each in changed.values())
    melted = (CHANGES["melted by up to 3 pixels"](across).int() - across).abs()
    assert 2 <= melted.max() <= MELTED + 1
