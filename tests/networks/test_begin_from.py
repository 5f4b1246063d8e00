"""To begin a training from a model file: of the same images, perhaps of other classes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.networks.checkpoint import begin_from, load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError
from tests.networks.random_weights import normal, randomised
from tests.small import DIGITS, FRUITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3))
OTHERS = FRUITS.model_copy(update={"name": "market", "classes": ("plum", "pear", "fig", "leek")})


def network(data: DataCard = FRUITS, seed: int = 0, schedule: NoiseSchedule = SCHEDULE, **changes: object) -> UNet:
    params = unet_params(**{"channels": (4, 6), "patch_size": 2, "class_conditional": True, **changes})
    return randomised(UNet(params, schedule, data), seed)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A model of apples and pears: its set has figs too, and it saw none."""
    save_model(tmp_path / "start", network(), SCHEDULE, (5, 0, 7))
    return tmp_path / "start"


def but_labels(model: UNet) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if "label" not in name}


def label_of(model: UNet) -> Tensor:
    assert model.label is not None
    return model.label.weight.detach()


@pytest.mark.parametrize("block", ["residual", "double_conv"])
def test_a_network_begins_with_the_weights_of_the_file(block: str, tmp_path: Path) -> None:
    before = network(block=block)
    save_model(tmp_path / "start", before, SCHEDULE, (5, 6, 7))
    model = network(block=block, seed=1)
    begin_from(tmp_path / "start", model, SCHEDULE)
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert len(but_labels(model)) > 10
    x_t, t, labels = normal(2, *FRUITS.shape), torch.tensor([0, 11]), torch.tensor([2, 0])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x_t, t, labels), before.eval()(x_t, t, labels))


def test_the_file_and_other_networks_of_it_stay_as_they_are(start: Path) -> None:
    data = start.read_bytes()
    first, second = network(seed=1), network(seed=2)
    begin_from(start, first, SCHEDULE)
    randomised(first, 3)
    begin_from(start, second, SCHEDULE)
    torch.testing.assert_close(but_labels(second), but_labels(network()), rtol=0, atol=0)
    assert start.read_bytes() == data


def test_a_class_that_the_file_has_not_seen_is_the_mean_of_those_it_has(start: Path) -> None:
    model = network(seed=1)
    begin_from(start, model, SCHEDULE)
    apple, _, pear = label_of(network())
    torch.testing.assert_close(label_of(model), torch.stack([apple, (apple + pear) / 2, pear]))
    assert torch.equal(label_of(model)[[0, 2]], torch.stack([apple, pear]))


def test_classes_are_told_by_their_names(start: Path) -> None:
    model = network(OTHERS, seed=1)
    begin_from(start, model, SCHEDULE)
    apple, _, pear = label_of(network())
    mean = (apple + pear) / 2
    torch.testing.assert_close(label_of(model), torch.stack([mean, pear, mean, mean]))
    torch.testing.assert_close(but_labels(model), but_labels(network()), rtol=0, atol=0)
    assert model.data == OTHERS


def test_a_network_that_is_told_classes_may_begin_from_one_that_is_not(tmp_path: Path) -> None:
    plain = network(class_conditional=False)
    save_model(tmp_path / "start", plain, SCHEDULE, (5, 0, 7))
    model = network(seed=1)
    begin_from(tmp_path / "start", model, SCHEDULE)
    torch.testing.assert_close(but_labels(model), but_labels(plain), rtol=0, atol=0)
    assert torch.equal(label_of(model), label_of(network(seed=1))), "its own"


def test_a_network_that_is_told_none_may_begin_from_one_that_is(start: Path) -> None:
    model = network(OTHERS, seed=1, class_conditional=False)
    begin_from(start, model, SCHEDULE)
    torch.testing.assert_close(model.state_dict(), but_labels(network()), rtol=0, atol=0)
    assert model.label is None


@pytest.mark.parametrize(
    ("data", "changes", "says"),
    [
        (DIGITS, {}, "data.image_size and colour, (3, 16, 8), where (1, 28, 28) is set"),
        (FRUITS, {"channels": (4, 8)}, "model.channels, (4, 6), where (4, 8) is set"),
        (FRUITS, {"channels": (4,)}, "model.channels, (4, 6), where (4,) is set"),
        (FRUITS, {"channels": None, "patch_size": None}, "model.channels, (4, 6), where (64, 128) is set"),
        (FRUITS, {"patch_size": 4}, "model.patch_size, 2, where 4 is set"),
        (FRUITS, {"time_embed_dim": 6}, "model.time_embed_dim, 4, where 6 is set"),
        (FRUITS, {"block": "double_conv"}, "model.block, residual, where double_conv is set"),
        (FRUITS, {"bottleneck_blocks": 2}, "model.bottleneck_blocks, 1, where 2 is set"),
        (FRUITS, {"attention": True}, "model.attention, False, where True is set"),
        (FRUITS, {"prediction": "v"}, "model.prediction, noise, where v is set"),
    ],
)
def test_what_does_not_fit_is_named(data: DataCard, changes: dict[str, object], says: str, start: Path) -> None:
    model = network(data, 1, SCHEDULE, **changes)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        begin_from(start, model, SCHEDULE)
    assert str(caught.value) == f"train.start: {start} is of other {says}; make them equal"
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(("key", "value"), [("timesteps", 11), ("beta_start", 0.02), ("beta_end", 0.2)])
def test_another_noise_schedule_is_named(key: str, value: float, start: Path) -> None:
    schedule = NoiseSchedule(SCHEDULE.params.model_copy(update={key: value}))
    with pytest.raises(UserError) as caught:
        begin_from(start, network(schedule=schedule), schedule)
    theirs = getattr(SCHEDULE.params, key)
    says = f"is of other schedule.{key}, {theirs}, where {value} is set; make them equal"
    assert str(caught.value) == f"train.start: {start} {says}"


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "start"
    for write, says in ((lambda: None, "no such file; "), (lambda: save_arrays(path, {}), "not a model file of this")):
        write()
        with pytest.raises(UserError) as caught:
            begin_from(path, network(), SCHEDULE)
        assert str(caught.value).startswith(f"{path}: {says}")


def test_a_model_that_began_from_another_is_saved_with_its_own_classes(start: Path, tmp_path: Path) -> None:
    model = network(OTHERS, seed=1)
    begin_from(start, model, SCHEDULE)
    save_model(tmp_path / "next", model, SCHEDULE, (0, 3, 0, 4))
    loaded = load_model(tmp_path / "next")
    assert loaded.card.data == OTHERS
    assert torch.equal(label_of(loaded.model), label_of(model))
