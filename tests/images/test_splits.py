"""What the stages hand on: splits and the images of chosen classes in them, and samples; the levels of images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.splits import (
    Samples,
    even_batch,
    load_samples,
    load_split,
    save_samples,
    save_split,
    to_float,
    to_uint8,
)
from exact_stages.console import UserError
from tests.small import FRUITS, images

LABELS = torch.tensor([2, 1, 2, 0, 2])
GROUPS = torch.tensor([0, 1, 0, 3, 3])
TESTED = (4, 0, 7)


def saved(path: Path) -> Path:
    """Five images."""
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


@pytest.mark.parametrize(
    "changes",
    [
        {"images": images(5, (3, 8, 16))},
        {"labels": LABELS[:4]},
        {"labels": torch.tensor([2, 1, 3, 0, 2])},
        {"groups": torch.tensor([0, 1, 0, -1, 3])},
        {"data": None},
        *[{"test_counts": each} for each in (None, [4, 0], [4, 0, -1])],
    ],
    ids=" ".join,
)
def test_what_is_no_split_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = saved(tmp_path / "split")
    arrays, facts = load_arrays(path)
    resave(path, {**arrays, **facts, **changes})
    with pytest.raises(UserError, match=rf"^{path}: "):
        load_split(path)


def resave(path: Path, content: dict[str, object]) -> None:
    """Write arrays and facts, but for those that are None."""
    arrays = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    facts = {name: value for name, value in content.items() if name not in arrays and value is not None}
    save_arrays(path, arrays, facts)


FRAMES = torch.arange(2 * 2 * 3 * 16 * 8).view(2, 2, 3, 16, 8).to(torch.uint8)
SAMPLES = Samples(
    images(2, FRUITS.shape), torch.tensor([2, 0]), FRAMES, FRAMES.flip(0), FRUITS, [0, 2], [19, 0], {"set": "gallery"}
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
    "change",
    [
        {"images": images(3, FRUITS.shape)},
        {"pred_x_start": FRAMES[:, :1]},
        {"labels": torch.tensor([2, 3])},
        {"classes": [3]},
        {"kept_t": [19, -1]},
        *[{"clear": each} for each in ([0.5], {"kiwi": 0.5}, {"fig": 1.5})],
    ],
    ids=" ".join,
)
def test_what_is_no_set_of_samples_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "samples"
    save_samples(path, SAMPLES)
    arrays, facts = load_arrays(path)
    resave(path, {**arrays, **facts, **change})
    with pytest.raises(UserError, match=rf"^{path}: "):
        load_samples(path)


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert floats[0] == -1
    assert floats[255] == 1
    torch.testing.assert_close(floats.double(), torch.arange(256).double() / 127.5 - 1, rtol=0, atol=1.2e-7)
    assert to_uint8(floats).dtype == torch.uint8
    assert torch.equal(to_uint8(floats), every)


def test_floats_are_clipped_and_rounded_to_the_nearest_byte() -> None:
    step = 1 / 127.5
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5, 1e30, -float("inf"), -1 + 0.49 * step, -1 + 0.51 * step, 0.4 * step])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 255, 0, 0, 1, 128]


@pytest.mark.parametrize(
    ("count", "most", "size"),
    [
        (134, 64, 64),  # 6 of 134 are 4.5 %
        (135, 64, 45),  # 7 of 135 are 5.2 %
        (19, 5, 3),
        (5, 1, 1),
    ],
)
def test_batches_are_smaller_where_they_would_leave_many_images_out(count: int, most: int, size: int) -> None:
    assert even_batch(count, most) == size
