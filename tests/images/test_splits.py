"""What the stages hand on: splits, what is held out of them, and samples; the levels of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.splits import (
    Samples,
    Split,
    held_out_mask,
    load_samples,
    load_split,
    save_samples,
    save_split,
    to_float,
    to_uint8,
)
from exact_stages.console import UserError
from tests.small import FRUITS, images, levels

LABELS = torch.tensor([2, 1, 2, 0, 2])
GROUPS = torch.tensor([0, 1, 0, 3, 3])
TESTED = (4, 0, 7)


def saved(path: Path) -> Path:
    save_split(path, FRUITS, LABELS, GROUPS, TESTED, [images(5, FRUITS.shape)])
    return path


def test_a_split_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    found = load_split(saved(tmp_path / "split"))
    expected = (images(5, FRUITS.shape), LABELS, GROUPS)
    torch.testing.assert_close((*found.split, found.groups), expected, rtol=0, atol=0)
    assert (found.card, found.test_counts) == (FRUITS, TESTED)


def test_a_split_gives_the_images_of_the_classes_asked_for(tmp_path: Path) -> None:
    found, all_images = load_split(saved(tmp_path / "split")), images(5, FRUITS.shape)
    some = found.of([0, 2])
    assert torch.equal(some.images, all_images[[0, 2, 3, 4]])
    assert some.labels.tolist() == [2, 2, 0, 2]
    assert found.of(range(3)).images is found.split.images, "all of them are not copied"
    assert found.of([]).images.shape == (0, 3, 16, 8)


FRAMES = torch.arange(2 * 2 * 3 * 16 * 8).view(2, 2, 3, 16, 8).to(torch.uint8)
SAMPLES = Samples(
    images(2, FRUITS.shape), torch.tensor([2, 0]), FRAMES, FRAMES.flip(0), FRUITS, [0, 2], [19, 0], {"set": "preview"}
)


@pytest.mark.parametrize(
    "samples",
    [
        SAMPLES._replace(labels=None, x_t=FRAMES[:0], pred_x_start=FRAMES[:0], kept_t=[]),
        SAMPLES._replace(clear={"apple": 1.0, "pear": 0.0}),
    ],
)
def test_samples_come_back_as_they_were_saved(samples: Samples, tmp_path: Path) -> None:
    save_samples(tmp_path / "samples", samples)
    found = load_samples(tmp_path / "samples")
    torch.testing.assert_close(found[:4], samples[:4], rtol=0, atol=0)
    assert found[4:] == samples[4:]


@pytest.mark.parametrize(
    ("load", "change"),
    [
        (load_split, {"images": images(5, (3, 8, 16))}),
        (load_split, {"labels": LABELS[:4]}),
        (load_split, {"labels": torch.tensor([2, 1, 3, 0, 2])}),
        (load_split, {"groups": torch.tensor([0, 1, 0, -1, 3])}),
        (load_split, {"data": None}),
        *[(load_split, {"test_counts": each}) for each in (None, [4, 0], [4, 0, -1])],
        (load_samples, {"images": images(3, FRUITS.shape)}),
        (load_samples, {"pred_x_start": FRAMES[:, :1]}),
        (load_samples, {"labels": torch.tensor([2, 3])}),
        (load_samples, {"classes": [3]}),
        (load_samples, {"kept_t": [19, -1]}),
        *[(load_samples, {"clear": each}) for each in ([0.5], {"kiwi": 0.5}, {"fig": 1.5})],
    ],
)
def test_what_is_no_split_and_no_set_of_samples_is_refused(
    load: Callable[[Path], object], change: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    saved(path) if load is load_split else save_samples(path, SAMPLES)
    arrays, facts = load_arrays(path)
    for name, value in change.items():
        (arrays if isinstance(value, Tensor) else facts)[name] = value
    save_arrays(path, arrays, {name: value for name, value in facts.items() if value is not None})
    with pytest.raises(UserError, match=rf"^{path}: "):
        load(path)


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert (floats.dtype, floats[0], floats[255]) == (torch.float32, -1, 1)
    torch.testing.assert_close(floats.double(), torch.arange(256).double() / 127.5 - 1, rtol=0, atol=1.2e-7)
    assert torch.equal(to_uint8(floats), every)


def test_floats_are_clipped_and_rounded_to_the_nearest_byte() -> None:
    step = 1 / 127.5
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5, 1e30, -float("inf"), -1 + 0.49 * step, -1 + 0.51 * step, 0.4 * step])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 255, 0, 0, 1, 128]


def one_class(images: Tensor) -> Split:
    return Split(images, torch.zeros(len(images), dtype=torch.int64))


def mask_of(images: Tensor, share: float, seed: int) -> Tensor:
    """Where no image is another's near-duplicate."""
    return held_out_mask(one_class(images), torch.arange(len(images)), share, seed)


def test_what_is_held_out_is_pinned() -> None:
    # A change here changes every result of the project.
    assert mask_of(levels(40), 0.2, 0).nonzero().flatten().tolist() == [0, 9, 13, 16, 19, 34]


def test_a_larger_share_holds_out_more_of_each_class_and_another_seed_others() -> None:
    images, labels = levels(4000), torch.arange(4000) // 1000  # one class after the other
    none, some, more, others = (mask_of(images, *given) for given in ((0, 0), (0.2, 0), (0.5, 0), (0.5, 1)))
    assert not none.any()
    assert more[some].all()
    assert (labels[more].bincount(minlength=4) - 500).abs().max() < 4 * 15.8  # binomial
    assert (more & others).sum().item() == pytest.approx(1000, abs=4 * 27.4)  # independent of one another
    assert mask_of(images[:0], 0.5, 0).shape == (0,)


def test_equal_images_are_on_one_side_and_an_added_one_moves_no_other() -> None:
    images = levels(300)
    before = mask_of(images, 0.3, 0)
    assert torch.equal(mask_of(torch.cat([levels(50, seed=9), images.flip(0), images]), 0.3, 0)[350:], before)
    assert torch.equal(mask_of(images.flip(0), 0.3, 0), before.flip(0))


def test_an_image_goes_where_its_group_goes() -> None:
    images = levels(200)
    groups = torch.arange(200) // 5 * 5 + 3  # each five follow the fourth
    found = held_out_mask(one_class(images), groups, 0.5, 0)
    assert torch.equal(found, mask_of(images, 0.5, 0)[groups])
    assert found.view(40, 5).sum(1).unique().tolist() == [0, 5]


def test_a_class_that_would_lose_all_its_images_loses_none() -> None:
    images, labels = levels(200), torch.zeros(200, dtype=torch.int64)
    before = mask_of(images, 0.5, 0)
    labels[before.nonzero()[:3]] = 1  # all three would be held out
    found = held_out_mask(Split(images, labels), torch.arange(200), 0.5, 0)
    assert torch.equal(found, before & (labels == 0))
