"""The changes of real images whose detection is measured: each does what its name says."""

import torch

from studies.scores.run import CHANGES, MELTED
from tests.small import images

LEVELS = images(40)


def test_changes_are_of_the_size_that_they_say() -> None:
    changed = {name: change(LEVELS).int() - LEVELS.int() for name, change in CHANGES.items()}
    assert changed["noise of one level"].abs().max() == 1
    assert all(changed[name].any() for name in CHANGES)


def test_melting_moves_pixels_by_a_few_and_changes_no_level() -> None:
    across = torch.arange(28, dtype=torch.uint8).expand(50, 1, 28, 28)
    moved = (CHANGES["melted by up to 3 pixels"](across).int() - across).abs()
    assert 1 < moved.float().mean() + 1 < MELTED
    assert 2 <= moved.max() <= MELTED + 1
