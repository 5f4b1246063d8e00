"""What the stages of the study hand on, and what they count of an arm."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed, Split
from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError
from ddpm.study.arms import Drawn
from ddpm.study.learning import LearnParams
from ddpm.study.study import ArmsParams, compare_arms, load_drawn, save_drawn
from tests.small import FRUITS, images

CPU = Runtime(torch.device("cpu"), torch.float32)


def levels(labels: list[int], level: int) -> Split:
    """Flat images whose class is plain to see: the label l has the colour l alone, of that level."""
    split = Split(torch.zeros(len(labels), *FRUITS.shape, dtype=torch.uint8), torch.tensor(labels))
    for image, label in zip(split.images, labels, strict=True):
        image[label] = level
    return split


def processed(split: Split) -> Processed:
    return Processed(FRUITS, split, torch.arange(len(split.labels)), (1, 1, 1))


def drawn(count: int = 6) -> Drawn:
    labels = torch.arange(count) % 3
    return Drawn(images(count, FRUITS.shape), labels, labels != 1)


def test_drawn_images_come_back_as_they_were_saved(tmp_path: Path) -> None:
    save_drawn(tmp_path / "drawn", drawn(), torch.arange(6), processed(levels([0, 1, 2], 200)))
    found = load_drawn(tmp_path / "drawn")
    assert all(torch.equal(one, other) for one, other in zip(found, drawn(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.zeros(6, 3, 16, 9, dtype=torch.uint8)},
        {"images": torch.zeros(6, *FRUITS.shape)},
        {"labels": torch.full((6,), 3)},
        {"labels": torch.full((6,), -1)},
        {"labels": torch.zeros(5, dtype=torch.int64)},
        {"taken": torch.ones(6)},
        {"taken": torch.ones(5, dtype=torch.bool)},
    ],
)
def test_what_is_no_set_of_drawn_images_is_refused(change: dict[str, torch.Tensor], tmp_path: Path) -> None:
    arrays = {**drawn()._asdict(), "numbers": torch.arange(6), **change}
    save_arrays(tmp_path / "drawn", arrays, {"data": FRUITS.model_dump(mode="json")})
    with pytest.raises(UserError, match=r"drawn: its arrays are not those of drawn images"):
        load_drawn(tmp_path / "drawn")


def test_each_arm_has_a_confusion_matrix_and_traces_for_each_seed() -> None:
    train = processed(levels([0] * 20 + [1] * 20 + [2] * 4, 200))
    test = levels([0, 0, 0, 1, 1, 2], 210)
    # Of the frequent classes all that were drawn look like the rare one; of class 1 none is taken.
    generated = Drawn(
        levels([2] * 6, 205).images, torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([True] * 4 + [False, True])
    )
    params = LearnParams(channels=4, steps=40, batch_size=16, lr=0.02)
    found = compare_arms(["oversample", "oversample+drawn"], [0, 1], train, generated, [2], test, params, CPU)
    assert [*found] == ["oversample", "oversample+drawn"]
    for each in found.values():
        assert each["confusions"] == [[[3, 0, 0], [0, 2, 0], [0, 0, 1]]] * 2
        assert each["traces"] == [1.0, 1.0]
    again = compare_arms(["oversample"], [1], train, generated, [2], test, params, CPU)
    assert again["oversample"]["confusions"] == found["oversample"]["confusions"][1:]


def test_arms_are_named_once_and_for_all() -> None:
    params = ArmsParams(arms=("augment+oversample", "nothing"), seeds=(0,))
    assert params.arms == ("oversample+augment", "nothing")
    with pytest.raises(ValidationError, match="there is no word 'hope' here"):
        ArmsParams(arms=("hope",), seeds=(0,))
    for wrong in ({"arms": ()}, {"seeds": ()}, {"seeds": (0, 0)}, {"arms": ("mixup+augment", "augment+mixup")}):
        with pytest.raises(ValidationError):
            ArmsParams(**({"arms": ("nothing",), "seeds": (0,)} | wrong))
