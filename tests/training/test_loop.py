"""Training: its steps by hand, its order and its randomness; cut off anywhere, it goes on bit for bit."""

import copy

import pytest
import torch

from ddpm.compute.randomness import generator
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split
from ddpm.networks.unet import UNet
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import parse
from ddpm.training.loop import EpochEnd, Logged, Training
from ddpm.training.recipe import TrainParams
from tests.small import DIGITS, unet_params
from tests.training.trainings import (
    CPU,
    RECIPE,
    SCHEDULE,
    assert_equal_weights,
    finished,
    network,
    new_training,
    record_steps,
    split,
    uniform,
    validated,
)


def test_the_density_decides_the_timesteps_of_training_and_not_those_of_validation() -> None:
    plain, cosine = (new_training(held_out=40, log_snr_center=center) for center in (None, 0.0))
    torch.testing.assert_close(validated(plain), validated(cosine), rtol=0, atol=0, equal_nan=True)
    for training, center in ((plain, None), (cosine, 0.0)):
        t, _ = training.gradient_step(split(4, seed=2))
        cdf = timestep_cdf(SCHEDULE, center)
        assert torch.equal(t, draw_timesteps(4, cdf, "stratified", generator(0, "train", 0)))


@pytest.mark.parametrize("loss", ["noise", "v"])
@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
@pytest.mark.parametrize(
    ("block", "prediction", "class_conditional"),
    [("residual", "noise", False), ("residual", "v", True), ("double_conv", "noise", False)],
)
def test_one_step_is_adam_on_the_mean_squared_error(
    block: str, prediction: str, class_conditional: bool, sampling: str, loss: str
) -> None:
    model = network(block, prediction=prediction, class_conditional=class_conditional)
    training = new_training(model=model, timestep_sampling=sampling, loss=loss, warmup_steps=9)
    by_hand = copy.deepcopy(training.network)
    share = split(4, seed=2)
    x_start = to_float(share.images)

    source = generator(0, "train", 0)
    expected_t = draw_timesteps(4, uniform(20), sampling, source)
    noise = torch.randn(4, 1, 28, 28, generator=source)
    alpha_bar = (1 - torch.linspace(0.01, 0.5, 20, dtype=torch.float64)).cumprod(0)[expected_t].view(4, 1, 1, 1)
    signal, spread = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    x_t = signal * x_start + spread * noise
    pred_noise = by_hand.train()(x_t, expected_t, share.labels)
    expected = (pred_noise - noise).square().flatten(1).mean(1)
    # The velocity that a predicted noise implies is the v for which noise = spread x_t + signal v.
    pred_velocity, velocity = (pred_noise - spread * x_t) / signal, signal * noise - spread * x_start
    (expected if loss == "noise" else (pred_velocity - velocity).square()).mean().backward()

    t, losses = training.gradient_step(share)
    assert torch.equal(t, expected_t)
    # What is told is the error of the noise, whichever loss is minimised.
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-5, atol=1e-6)
    assert not losses.requires_grad
    assert training.step == 1
    for name, weight in training.network.named_parameters():
        before = by_hand.get_parameter(name)
        assert before.grad is not None
        assert weight.grad is not None
        # Relative to the largest: a convolution before BatchNorm has gradients that cancel.
        scale = before.grad.abs().max().item()
        torch.testing.assert_close(weight.grad, before.grad, rtol=1e-4, atol=1e-4 * scale + 1e-7)
        # Adam's first step, at the first of ten rates up to 0.01.
        expected_weight = before - 0.001 * weight.grad / (weight.grad.abs() + 1e-8)
        torch.testing.assert_close(weight, expected_weight, rtol=1e-5, atol=1e-6)


def test_each_step_has_its_own_noise_and_timesteps(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=4, epochs=5, lr=1e-12)
    steps = record_steps(training, monkeypatch)
    for _ in training.run():
        pass
    assert len({tuple(t.tolist()) for _, t, _ in steps}) == 5
    assert len({losses.sum().item() for _, _, losses in steps}) == 5


def test_training_overfits_one_image() -> None:
    recipe = {"epochs": 300, "batch_size": 16, "lr": 5e-3, "lr_decay": "cosine", "warmup_steps": 10, "log_every": 50}
    params = unet_params(channels=(32,), time_embed_dim=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(params, SCHEDULE, DIGITS)
    one = split(1)
    black_or_white = (one.images // 128 * 255).expand(16, -1, -1, -1)
    image = Split(black_or_white, one.labels.expand(16))
    training = Training(model, SCHEDULE, image, image, TrainParams.model_validate({**RECIPE, **recipe}), CPU)
    # A fresh network predicts nothing, and noise has a mean square of 1.
    assert validated(training).nanmean().item() == pytest.approx(1, rel=0.02)
    events = list(training.run())
    losses = [event.loss for event in events if isinstance(event, Logged)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.06
    assert isinstance(events[-1], EpochEnd)
    assert events[-1].validation is not None
    assert events[-1].validation.nanmean() < 0.06


def test_equal_seeds_give_equal_bits() -> None:
    first, second = finished(), finished()
    assert_equal_weights(first.network, second.network)
    assert_equal_weights(first.model, second.model)


@pytest.mark.parametrize(
    ("block", "optimizer", "ema_decay", "epochs"),
    [("residual", "muon", 0.9, 2), ("residual", "adam", 0, 1.5), ("double_conv", "adam", 0.9, 2)],
)
def test_a_run_that_is_cut_off_anywhere_goes_on_bit_for_bit(
    block: str, optimizer: str, ema_decay: float, epochs: float
) -> None:
    recipe = {"block": block, "optimizer": optimizer, "ema_decay": ema_decay, "held_out": 5, "log_every": 3}
    recipe |= {"lr_decay": "cosine", "epochs": epochs}
    whole = new_training(**recipe)
    expected, states = [], [copy.deepcopy(whole.state())]
    for event in whole.run():
        expected.append(event)
        states.append(copy.deepcopy(whole.state()))
    count = 4 * epochs + 2  # four steps an epoch, and the ends of two epochs
    assert len(expected) == count
    for done, state in enumerate(states):
        again = new_training(**recipe)
        again.load_state(state)
        torch.testing.assert_close(again.state(), state, rtol=0, atol=0)
        events = list(again.run())
        assert len(events) == count - done
        for event, wanted in zip(events, expected[done:], strict=True):
            assert type(event) is type(wanted)
            torch.testing.assert_close(event or (), wanted or (), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(again.state(), whole.state(), rtol=0, atol=0)


def test_neither_logging_nor_validating_changes_the_training() -> None:
    assert_equal_weights(finished().model, finished(log_every=3, held_out=5).model)


def test_another_seed_gives_other_weights() -> None:
    first, second = finished(seed=0), finished(seed=1)
    for name, weight in first.network.named_parameters():
        assert not torch.equal(weight, second.network.get_parameter(name)), name


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    before = torch.get_rng_state()
    first = finished(held_out=5)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert_equal_weights(finished(held_out=5).model, first.model)


def test_the_last_short_batch_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=10, epochs=5)
    assert training.steps_per_epoch == 2
    assert training.total_steps == 10
    levels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 28, 28)
    training.train = Split(levels, torch.arange(10))
    steps = record_steps(training, monkeypatch)
    events = list(training.run())
    assert training.step == 10
    assert [event.step for event in events if isinstance(event, EpochEnd)] == [2, 4, 6, 8, 10]
    assert all(share.images.shape == (4, 1, 28, 28) for share, _, _ in steps)
    numbers = torch.stack([share.images[:, 0, 0, 0] for share, _, _ in steps]).long()
    assert torch.equal(torch.stack([share.labels for share, _, _ in steps]), numbers), "images keep their labels"
    seen = numbers.view(5, 8).tolist()
    for epoch in seen:
        assert len(set(epoch)) == 8
    assert len({tuple(epoch) for epoch in seen}) == 5
    assert {index for epoch in seen for index in epoch} == set(range(10))


@pytest.mark.parametrize(("epochs", "ends"), [(1.5, [(1, 4), (2, 6)]), (0.5, [(1, 2)]), (1e-9, [(1, 1)])])
def test_a_fraction_of_an_epoch_is_its_first_steps(epochs: float, ends: list[tuple[int, int]]) -> None:
    training, longer = finished(epochs=epochs), new_training(epochs=2)
    assert training.total_steps == training.step == ends[-1][1]
    for event in longer.run():
        if event and event.step == training.step:
            break
    assert_equal_weights(training.model, longer.model)
    events = [event for event in new_training(epochs=epochs).run() if isinstance(event, EpochEnd)]
    assert [(event.epoch, event.step) for event in events] == ends


def test_the_order_of_the_images_hangs_on_seed_and_epoch_alone() -> None:
    order = torch.cat(new_training(count=40, seed=3)._batches(1)).tolist()
    assert sorted(order) == list(range(40))
    assert torch.cat(new_training(count=40, seed=3, batch_size=8)._batches(1)).tolist() == order
    assert torch.cat(new_training(count=40, seed=4)._batches(1)).tolist() != order
    assert torch.cat(new_training(count=40, seed=3)._batches(2)).tolist() != order


def test_fewer_images_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 4, but there are only 3 training images"):
        new_training(count=3)
    assert new_training(count=4).steps_per_epoch == 1


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": "1e-3"},
        {"ema_decay": 1.0},
        {"warmup_steps": -1},
        {"log_every": 0},
        {"lr_decay": "linear"},
        {"optimizer": "sgd"},
        {"loss": "x_start"},
        {"timestep_sampling": "importance"},
        {"log_snr_center": "linear"},
        {"seed": -1},
    ],
)
def test_params_out_of_range_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"train\.{next(iter(change))}: "):
        parse(TrainParams, {**RECIPE, **change}, "params.yaml", "train")
