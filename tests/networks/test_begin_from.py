"""To begin a training from a model file: of the same images, perhaps of other classes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.model import begin_from, new_network, save_model
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.unet import UNet
from exact_stages.console import UserError
from tests.networks.random_weights import randomised
from tests.small import DIGITS, FRUITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3))
OTHERS = FRUITS.model_copy(update={"name": "market", "classes": ("plum", "pear", "fig", "leek")})


def network(data: DataCard = FRUITS, seed: int = 0, schedule: NoiseSchedule = SCHEDULE, **changes: object) -> UNet:
    params = unet_params(**{"channels": (4, 6), "patch_size": 2, "class_conditional": True, **changes})
    return randomised(new_network(params, data, schedule.params), seed)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A model of apples and pears: its set has figs too, and it saw none."""
    save_model(tmp_path / "start", network(), FRUITS, SCHEDULE, (5, 0, 7))
    return tmp_path / "start"


def but_labels(model: UNet) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if "label" not in name}


def label_of(model: UNet) -> Tensor:
    assert model.label is not None
    return model.label.weight.detach()


@pytest.mark.parametrize("block", ["residual", "double_conv"])
def test_a_network_begins_with_the_weights_of_the_file(block: str, tmp_path: Path) -> None:
    before, model = network(block=block), network(block=block, seed=1)
    save_model(tmp_path / "start", before, FRUITS, SCHEDULE, (5, 6, 7))
    begin_from(tmp_path / "start", model, FRUITS, SCHEDULE)
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(FRUITS, ["apple", "mean", "pear"]), (OTHERS, ["mean", "pear", "mean", "mean"])],
    ids=["its own", "others"],
)
def test_classes_are_told_by_their_names_and_unseen_ones_are_the_mean(
    data: DataCard, expected: list[str], start: Path
) -> None:
    model = network(data, seed=1)
    begin_from(start, model, data, SCHEDULE)
    apple, _, pear = label_of(network())
    known = {"apple": apple, "pear": pear, "mean": (apple + pear) / 2}
    torch.testing.assert_close(label_of(model), torch.stack([known[each] for each in expected]))
    torch.testing.assert_close(but_labels(model), but_labels(network()), rtol=0, atol=0)


@pytest.mark.parametrize("told", [True, False])
def test_either_network_may_be_told_no_class(told: bool, tmp_path: Path) -> None:
    before, model = network(class_conditional=not told), network(seed=1, class_conditional=told)
    save_model(tmp_path / "start", before, FRUITS, SCHEDULE, (5, 0, 7))
    begin_from(tmp_path / "start", model, FRUITS, SCHEDULE)
    torch.testing.assert_close(but_labels(model), but_labels(before), rtol=0, atol=0)
    assert not told or torch.equal(label_of(model), label_of(network(seed=1))), "its own"


@pytest.mark.parametrize(
    ("data", "changes", "key"),
    [
        (DIGITS, {}, r"\(3, 16, 8\), where \(1, 28, 28\)"),
        (FRUITS, {"channels": (4, 8)}, "model.channels"),
        (FRUITS, {"channels": None, "patch_size": None}, "model.channels"),
        (FRUITS, {"block": "double_conv"}, "model.block"),
        (FRUITS, {"prediction": "v"}, "model.prediction"),
        (FRUITS, {"timesteps": 11}, "schedule.timesteps"),
        (FRUITS, {"beta_end": 0.2}, "schedule.beta_end"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(data: DataCard, changes: dict[str, object], key: str, start: Path) -> None:
    of_schedule = {name: value for name, value in changes.items() if name in ScheduleParams.model_fields}
    schedule = NoiseSchedule(SCHEDULE.params.model_copy(update=of_schedule))
    model = network(data, 1, schedule, **{name: changes[name] for name in changes.keys() - of_schedule.keys()})
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(UserError, match=f"^train.start: .*{key}"):
        begin_from(start, model, data, schedule)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_distilled_model_is_no_start(tmp_path: Path) -> None:
    save_model(tmp_path / "start", network(), FRUITS, SCHEDULE, (5, 6, 7), timesteps=(11, 5))
    with pytest.raises(UserError, match=r"^train\.start: "):
        begin_from(tmp_path / "start", network(), FRUITS, SCHEDULE)
