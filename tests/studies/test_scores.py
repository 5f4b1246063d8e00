"""The changes of real images whose detection is measured: each does what its name says."""

import torch

from ddpm.images.splits import Split
from studies.scores.run import CHANGES, affine, moved
from tests.small import images

SPLIT = Split(images(40), torch.arange(40) % 4)


def test_changes_are_of_the_size_that_they_say() -> None:
    changed = {name: change(SPLIT).int() - SPLIT.images.int() for name, change in CHANGES.items()}
    assert not changed["none"].any()
    assert changed["noise of one level"].abs().max() == 1
    brighter = changed["strokes one level brighter"]
    assert torch.equal(brighter == 1, (SPLIT.images > 0) & (SPLIT.images < 255))
    other = changed["one image in ten of another class"].flatten(1).any(1)
    assert other.nonzero().flatten().tolist() == [0, 10, 20, 30]
    assert all(changed[name].any() for name in CHANGES if name != "none")


def test_a_move_by_a_whole_pixel_is_that_of_the_planted_copies() -> None:
    whole = affine(0, -1)(SPLIT)
    assert torch.equal(whole[..., 1:], moved(SPLIT.images)[..., 1:])
