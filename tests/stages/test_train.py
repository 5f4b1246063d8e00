"""The train stage: which images it takes, and among how many processes."""

from pathlib import Path
from typing import Any

import pytest
import torch

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
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(-1, 1, 28, 28)
    save_arrays(tmp_path / "train", {"images": images, "labels": torch.tensor(LABELS, dtype=torch.uint8)})
    monkeypatch.setattr(train, "TRAIN", tmp_path / "train")


def params(**changes: Any) -> Params:
    """The repository's, with changes to sections."""
    found = load_params(Params, path=Path(__file__).parents[1] / "params.yaml")
    given = {"train": {"batch_size": 2, "validation": 0}}
    for section in ("model", "train"):
        values = given.get(section, {}) | changes.get(section, {})
        found = found.model_copy(update={section: getattr(found, section).model_copy(update=values)})
    return found


@pytest.mark.parametrize(
    ("classes", "validation", "taken", "held_out", "counts"),
    [
        ((), 0, [0, 1, 2, 3, 4, 5, 6, 7], [], (1, 2, 0, 0, 0, 0, 0, 4, 0, 1)),
        ((), 3, [0, 1, 2, 3, 4], [5, 6, 7], (1, 2, 0, 0, 0, 0, 0, 4, 0, 1)),
        ((7,), 1, [0, 2, 6], [7], (0, 0, 0, 0, 0, 0, 0, 4, 0, 0)),
        ((9, 1), 1, [1, 4], [5], (0, 2, 0, 0, 0, 0, 0, 0, 0, 1)),
        ((1, 1), 0, [1, 5], [], (0, 2, 0, 0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_the_last_images_of_the_classes_are_held_out_and_all_are_counted(
    classes: tuple[int, ...], validation: int, taken: list[int], held_out: list[int], counts: tuple[int, ...]
) -> None:
    *splits, found = split_images(params(train={"classes": classes, "validation": validation}).train)
    for split, numbers in zip(splits, (taken, held_out), strict=True):
        assert split.images[:, 0, 0, 0].tolist() == numbers
        assert split.labels.tolist() == [LABELS[number] for number in numbers]
    assert found == counts


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train\.classes: no image has the label 3"):
        split_images(params(train={"classes": (7, 3)}).train)


@pytest.mark.parametrize(("validation", "left"), [(7, 1), (8, 0), (100, 0)])
def test_too_few_images_for_a_batch_are_refused(validation: int, left: int) -> None:
    with pytest.raises(UserError) as caught:
        split_images(params(train={"validation": validation}).train)
    assert str(caught.value) == (
        f"train.batch_size: 2 exceeds the training images, {left} of 8 after train.validation takes {validation}"
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
