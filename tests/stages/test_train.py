"""The train stage: which images it takes, and among how many processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.data.images import to_float, to_uint8
from ddpm.data.splits import Split
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime
from ddpm.runtime.params import load_params
from stages import train
from stages.train import Params, check_processes, most_processes, split_images

CPU, MPS = (Runtime(torch.device(name), torch.float32) for name in ("cpu", "mps"))
LABELS = [7, 1, 7, 0, 9, 1, 7, 7]


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight images, each of which holds its number."""
    numbered(tmp_path, torch.tensor(LABELS))
    monkeypatch.setattr(train, "TRAIN", tmp_path / "train")


def numbered(folder: Path, labels: Tensor) -> None:
    """Images that hold their numbers as two levels."""
    levels = torch.zeros(len(labels), 28 * 28)
    levels[:, 0], levels[:, 1] = torch.arange(len(labels)) % 256, torch.arange(len(labels)) // 256
    images = to_float(levels.view(-1, 1, 28, 28).to(torch.uint8))
    save_arrays(folder / "train", {"images": images, "labels": labels.to(torch.uint8)})


def numbers(split: Split) -> list[int]:
    levels = to_uint8(split.images).flatten(1).long()
    return (levels[:, 0] + 256 * levels[:, 1]).tolist()


def params(**changes: Any) -> Params:
    """The repository's, with changes to sections."""
    found = load_params(Params, path=Path(__file__).parents[2] / "params.yaml")
    given = {"train": {"batch_size": 2, "validation": 0.0}}
    for section in ("model", "train"):
        values = given.get(section, {}) | changes.get(section, {})
        found = found.model_copy(update={section: getattr(found, section).model_copy(update=values)})
    return found


@pytest.mark.parametrize(
    ("classes", "validation", "taken", "held_out", "counts"),
    [
        ((), 0.0, [0, 1, 2, 3, 4, 5, 6, 7], [], (1, 2, 0, 0, 0, 0, 0, 4, 0, 1)),
        ((), 0.4, [0, 1, 3, 4, 5, 6], [2, 7], (1, 2, 0, 0, 0, 0, 0, 4, 0, 1)),
        ((7,), 0.4, [0, 6], [2, 7], (0, 0, 0, 0, 0, 0, 0, 4, 0, 0)),
        ((9, 1), 0.0, [1, 4, 5], [], (0, 2, 0, 0, 0, 0, 0, 0, 0, 1)),
        ((1, 1), 0.0, [1, 5], [], (0, 2, 0, 0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_a_share_of_the_classes_is_held_out_and_all_images_are_counted(
    classes: tuple[int, ...], validation: float, taken: list[int], held_out: list[int], counts: tuple[int, ...]
) -> None:
    *splits, found = split_images(params(train={"classes": classes, "validation": validation}).train)
    for split, expected in zip(splits, (taken, held_out), strict=True):
        assert numbers(split) == expected
        assert split.labels.tolist() == [LABELS[number] for number in expected]
    assert found == counts


def test_more_images_or_other_classes_move_none_to_the_other_side(tmp_path: Path) -> None:
    labels = torch.arange(2000) // 200
    numbered(tmp_path, labels)
    asked = params(train={"validation": 0.1}).train
    taken, held_out, _ = split_images(asked)
    assert sorted(numbers(taken) + numbers(held_out)) == list(range(2000))
    assert numbers(taken) == sorted(numbers(taken))
    counts = held_out.labels.bincount(minlength=10)
    assert (counts - 20).abs().max() < 4 * 18**0.5  # of each class, though the file has one after the other
    _, some, _ = split_images(asked.model_copy(update={"classes": (3, 7)}))
    assert numbers(some) == [number for number in numbers(held_out) if labels[number] in (3, 7)]
    numbered(tmp_path, labels[:1000])
    assert numbers(split_images(asked)[1]) == [number for number in numbers(held_out) if number < 1000]
    assert numbers(split_images(asked.model_copy(update={"seed": 1}))[1]) != numbers(held_out)


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train\.classes: no image has the label 3"):
        split_images(params(train={"classes": (7, 3)}).train)


def test_a_class_of_which_no_image_is_left_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train\.validation: 0\.4 holds out all images of class 0; lower it$"):
        split_images(params(train={"validation": 0.4, "seed": 6}).train)


def test_too_few_images_for_a_batch_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        split_images(params(train={"validation": 0.4, "batch_size": 7}).train)
    assert str(caught.value) == (
        "train.batch_size: 7 exceeds the training images, 6 of 8 after train.validation takes 2"
    )


def test_processes_are_at_most_the_images_of_a_batch() -> None:
    asked = params(train={"batch_size": 6})
    assert most_processes(asked) == 6
    check_processes(asked, 6, CPU)
    with pytest.raises(UserError) as caught:
        check_processes(asked, 7, CPU)
    assert str(caught.value) == ("train.batch_size: 6 images cannot be shared among 7 processes; set DDPM_PROCESSES=6")


def test_batch_norm_trains_in_one_process() -> None:
    asked = params(model={"block": "double_conv"})
    assert most_processes(asked) == 1
    check_processes(asked, 1, CPU)
    with pytest.raises(UserError, match=r"^model\.block: double_conv has BatchNorm, .*; set DDPM_PROCESSES=1$"):
        check_processes(asked, 2, CPU)


def test_a_macs_gpu_trains_in_one_process() -> None:
    check_processes(params(), 1, MPS)
    with pytest.raises(UserError, match=r"^DDPM_PROCESSES=2: MPS trains in one process; set DDPM_DEVICE=cpu for"):
        check_processes(params(), 2, MPS)
