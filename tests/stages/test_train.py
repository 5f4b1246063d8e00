"""The train stage: which images it takes, and among how many processes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ddpm.parallel.resume import State
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.images.splits import Split, Subset, save_split
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params
from ddpm.pipeline.stage import Stage
from ddpm.training.curves import Curves
from ddpm.training.running import run_training
from ddpm.training.setup import new_training
from stages import train
from stages.train import Params, check_processes, most_processes, setup_of, start_of
from tests.small import DIGITS, images

CPU, MPS = (Runtime(torch.device(name), torch.float32) for name in ("cpu", "mps"))
NAMES = [7, 1, 7, 0, 9, 1, 7, 7]


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight images, each of which holds its number."""
    numbered(tmp_path, torch.tensor(NAMES))
    monkeypatch.setattr(train, "TRAIN", tmp_path / "train")


def numbered(folder: Path, names: Tensor, groups: Tensor | None = None, tested: tuple[int, ...] | None = None) -> None:
    """Images that hold their numbers as two levels, of classes with these names (N,)."""
    levels = torch.zeros(len(names), 28 * 28, dtype=torch.uint8)
    levels[:, 0], levels[:, 1] = torch.arange(len(names)) % 256, torch.arange(len(names)) // 256
    classes, labels = names.unique(return_inverse=True)
    card = DIGITS.model_copy(update={"classes": tuple(map(str, classes.tolist()))})
    groups = torch.arange(len(names)) if groups is None else groups
    tested = tested or (6,) * len(card.classes)
    save_split(folder / "train", card, labels, groups, tested, [levels.view(-1, 1, 28, 28)])


def numbers(images: Split | Subset) -> list[int]:
    split = images if isinstance(images, Split) else images.split.take(images.rows)
    levels = split.images.flatten(1).long()
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
        ((), 0.0, [0, 1, 2, 3, 4, 5, 6, 7], [], (1, 2, 4, 1)),
        ((), 0.4, [0, 1, 3, 4, 5, 6], [2, 7], (1, 2, 4, 1)),
        ((7,), 0.4, [0, 6], [2, 7], (0, 0, 4, 0)),
        ((9, 1), 0.0, [1, 4, 5], [], (0, 2, 0, 1)),
        ((1, 1), 0.0, [1, 5], [], (0, 2, 0, 0)),
    ],
)
def test_a_share_of_the_classes_is_held_out_and_all_images_are_counted(
    classes: tuple[int, ...], validation: float, taken: list[int], held_out: list[int], counts: tuple[int, ...]
) -> None:
    setup = setup_of(params(train={"classes": classes, "validation": validation}))
    for split, expected in ((setup.images, taken), (setup.held_out, held_out)):
        assert numbers(split) == expected
        assert [setup.card.classes[label] for label in split.labels] == [str(NAMES[number]) for number in expected]
    assert setup.class_counts == counts


def test_more_images_or_other_classes_move_none_to_the_other_side(tmp_path: Path) -> None:
    labels = torch.arange(2000) // 200
    numbered(tmp_path, labels)
    setup = setup_of(params(train={"validation": 0.1}))
    taken, held_out = setup.images, setup.held_out
    assert sorted(numbers(taken) + numbers(held_out)) == list(range(2000))
    assert numbers(taken) == sorted(numbers(taken))
    counts = held_out.labels.bincount(minlength=10)
    assert (counts - 20).abs().max() < 4 * 18**0.5  # of each class, though the file has one after the other
    some = setup_of(params(train={"validation": 0.1, "classes": (3, "7")})).held_out
    assert numbers(some) == [number for number in numbers(held_out) if labels[number] in (3, 7)]
    numbered(tmp_path, labels[:1000])
    fewer = setup_of(params(train={"validation": 0.1})).held_out
    assert numbers(fewer) == [number for number in numbers(held_out) if number < 1000]
    assert numbers(setup_of(params(train={"validation": 0.1, "seed": 1})).held_out) != numbers(fewer)


def test_twins_are_on_one_side(tmp_path: Path) -> None:
    numbered(tmp_path, torch.arange(2000) // 200, torch.arange(2000) // 4 * 4 + 1)
    setup = setup_of(params(train={"validation": 0.1}))
    held_out = numbers(setup.held_out)
    assert len(held_out) == pytest.approx(200, abs=4 * 27)  # of 500 places, four images each
    assert held_out == [number for number in range(2000) if number // 4 * 4 + 1 in held_out]


def test_a_class_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.classes: no class is named 3; choose from 0, 1, 7, 9$"):
        setup_of(params(train={"classes": (7, 3)}))
    save_split(tmp_path / "train", DIGITS, torch.zeros(9).long(), torch.arange(9), [9] * 10, [images(9)])
    with pytest.raises(UserError, match=r"^train\.classes: there are no training images of 7; leave it out$"):
        setup_of(params(train={"classes": ("0", 7)}))


def test_a_class_of_which_no_image_is_left_is_refused() -> None:
    with pytest.raises(UserError, match=r"^train\.validation: 0\.4 holds out all images of 0, 9; lower it$"):
        setup_of(params(train={"validation": 0.4, "seed": 6}))


@pytest.mark.parametrize(
    ("classes", "tested"), [((), None), ((1, 9), None), ((7,), 5), ((1,), 4), ((9,), 0), ((1, 9), 4), (("0",), 1)]
)
def test_classes_of_too_few_test_images_are_refused(
    classes: tuple[int, ...], tested: int | None, tmp_path: Path
) -> None:
    counts = (1, 4, 5, 0) if tested is not None else (0, 4, 0, 2)
    numbered(tmp_path, torch.tensor(NAMES), tested=counts)
    asked = params(train={"classes": classes})
    if tested is None:
        assert sum(setup_of(asked).class_counts) == (3 if classes else 8)
        return
    with pytest.raises(UserError) as caught:
        setup_of(asked)
    assert str(caught.value) == f"train.classes: there are {tested} test images of these, and the scores need 6"


@pytest.mark.parametrize(("asked", "taken"), [(2, 2), (4, 3), (5, 3), (6, 6), (7, 6), (500, 6)])
def test_a_batch_has_no_more_images_than_there_are_and_leaves_few_out(asked: int, taken: int) -> None:
    setup = setup_of(params(train={"validation": 0.4, "batch_size": asked}))
    assert len(setup.images.labels) == 6
    assert setup.train.batch_size == taken


def test_a_network_that_does_not_fit_the_images_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^model\.channels: 4 of them, .* by 8, which must divide 28 x 28; set data\.image_size"
    ):
        setup_of(params(model={"channels": (8, 8, 8, 8), "patch_size": 1}))


def test_what_follows_from_the_images_is_told() -> None:
    asked = params(model={"channels": None}, train={"validation": None, "batch_size": 500, "images": 20, "epochs": 9.0})
    found = setup_of(asked).follows(asked.model, asked.train)
    assert found == {
        "model.channels": [16, 64, 128],
        "model.patch_size": 1,
        "train.epochs": 2.5,
        "train.batch_size": 8,
        "train.validation": 0.1,
    }


def test_the_images_themselves_stand_for_no_model_to_begin_from(tmp_path: Path) -> None:
    for start, expected in ((train.TRAIN, None), (tmp_path / "model", tmp_path / "model")):
        (tmp_path / "model").touch()
        stage = Stage("train")
        assert start_of(stage, params(train={"start": str(start)})) == expected
        assert stage.facts().keys() >= {str(start), str(train.TRAIN)}


@pytest.mark.parametrize("log_every", [1, 10, 1000])
def test_it_is_said_how_long_it_will_take(
    log_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = params(train={"epochs": 15, "log_every": log_every})
    small = asked.model.model_copy(update={"channels": (4,), "patch_size": 4})
    setup = setup_of(asked.model_copy(update={"model": small}))
    training = new_training(setup, asked.schedule, None, CPU)
    run_training("train", training, Curves(asked.schedule.timesteps), State("train", "0" * 16), lambda: None)
    assert training.step == 60
    said = re.findall(r"^.*train: (.*)$", capsys.readouterr().err.replace("\r", "\n"), re.MULTILINE)
    assert [line for line in said if "takes" in line] == ["20 images, which takes about 0 seconds"]


def test_processes_are_at_most_the_images_of_a_batch() -> None:
    asked = params()
    assert most_processes(asked, 6) == 6
    check_processes(asked, 6, CPU, 6)
    with pytest.raises(UserError) as caught:
        check_processes(asked, 7, CPU, 6)
    assert str(caught.value) == ("train.batch_size: 6 images cannot be shared among 7 processes; set DDPM_PROCESSES=6")


def test_batch_norm_trains_in_one_process() -> None:
    asked = params(model={"block": "double_conv"})
    assert most_processes(asked, 6) == 1
    check_processes(asked, 1, CPU, 64)
    with pytest.raises(UserError, match=r"^model\.block: double_conv has BatchNorm, .*; set DDPM_PROCESSES=1$"):
        check_processes(asked, 2, CPU, 64)


def test_a_macs_gpu_trains_in_one_process() -> None:
    check_processes(params(), 1, MPS, 64)
    with pytest.raises(UserError, match=r"^DDPM_PROCESSES=2: MPS trains in one process; set DDPM_DEVICE=cpu for"):
        check_processes(params(), 2, MPS, 64)
