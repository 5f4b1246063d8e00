"""Training: its steps by hand, its order and its randomness; cut off anywhere, it goes on bit for bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.compute.randomness import generator
from ddpm.denoiser import Denoiser
from ddpm.images.splits import Split, to_float
from ddpm.model import new_network
from ddpm.parallel.world import World
from ddpm.schedule import draw_timesteps, timestep_cdf
from ddpm.train import BestWeights, Training, Validation
from ddpm.unet import UNet
from tests.ranks import in_two_ranks
from tests.small import CPU, DIGITS, resaved, unet_params
from tests.training.trainings import (
    SCHEDULE,
    assert_equal,
    assert_equal_weights,
    denoiser,
    ends,
    finished,
    losses,
    network,
    new_training,
    recipe,
    recorded,
    split,
    stopped,
    uniform,
    validated,
    weights,
)


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

    rng = generator(0, "train", 0)
    expected_t = draw_timesteps(4, uniform(20), sampling, rng)
    noise = torch.randn(4, 1, 28, 28, generator=rng)
    alpha_bar = (1 - torch.linspace(0.01, 0.5, 20, dtype=torch.float64)).cumprod(0)[expected_t].view(4, 1, 1, 1)
    signal, spread = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    x_t = signal * x_start + spread * noise
    pred_noise = denoiser(by_hand.train())(x_t, expected_t, share.labels).noise
    expected = (pred_noise - noise).square().flatten(1).mean(1)
    # The velocity that a predicted noise implies is the v for which noise = spread x_t + signal v.
    pred_velocity, velocity = (pred_noise - spread * x_t) / signal, signal * noise - spread * x_start
    (expected if loss == "noise" else (pred_velocity - velocity).square()).mean().backward()

    t, found = training.gradient_step(share, torch.arange(4))
    assert torch.equal(t, expected_t)
    # What is told is the error of the noise, whichever loss is minimised.
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
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


def test_the_density_decides_the_timesteps_of_training_and_not_those_of_validation() -> None:
    plain, cosine = (new_training(held_out=40, log_snr_center=center) for center in (None, 0.0))
    assert_equal(validated(plain), validated(cosine))
    for training, center in ((plain, None), (cosine, 0.0)):
        t, _ = training.gradient_step(split(4, seed=2), torch.arange(4))
        cdf = timestep_cdf(SCHEDULE, center)
        assert torch.equal(t, draw_timesteps(4, cdf, "stratified", generator(0, "train", 0)))


def test_weights_are_chosen_at_the_density_of_the_training() -> None:
    training = new_training(held_out=40, log_snr_center=0.0, log_snr_uniform=0.5)
    assert torch.equal(training.validation.cdf, timestep_cdf(SCHEDULE, 0.0, 0.5))


def test_training_overfits_one_image() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_network(unet_params(channels=(32,), time_embed_dim=8), DIGITS, SCHEDULE.params)
    one = split(1)
    black_or_white = (one.images // 128 * 255).expand(16, -1, -1, -1)
    image = Split(black_or_white, one.labels.expand(16))
    params = recipe(epochs=300, batch_size=16, lr=5e-3, lr_decay="cosine", warmup_steps=10, log_every=50)
    training = Training(model, DIGITS, SCHEDULE, image, image, params, CPU)
    # A fresh network predicts nothing, and noise has a mean square of 1.
    assert validated(training).nanmean().item() == pytest.approx(1, rel=0.02)
    found = losses(training)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.06
    assert validated(training).nanmean() < 0.06


def test_equal_seeds_give_equal_bits_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, other = finished(held_out=5), finished(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        again = finished(held_out=5)
    assert_equal_weights(again.network, first.network)
    assert_equal_weights(again.model, first.model)
    for name, weight in first.network.named_parameters():
        assert not torch.equal(weight, other.network.get_parameter(name)), name


@pytest.mark.parametrize("changes", [{}, {"block": "double_conv"}, {"block": "double_conv", "ema_decay": 0}], ids=str)
def test_neither_logging_nor_validating_changes_the_training(changes: dict[str, Any]) -> None:
    plain, other = (finished(count=200, epochs=2, **changes, **each) for each in ({}, {"log_every": 3, "held_out": 5}))
    assert other.validation.best
    assert other.network.training
    assert_equal_weights(plain.model, other.model)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "guide_share": 0.4, "label_dropout": 0.5},
        {"optimizer": "adam", "ema_decay": 0, "epochs": 1.5, "flip": True, "target_images": 8},
        {"optimizer": "adam", "block": "double_conv"},
    ],
    ids=str,
)
def test_a_run_that_is_cut_off_after_every_step_goes_on_bit_for_bit(changes: dict[str, Any]) -> None:
    changes = {"held_out": 5, "log_every": 3, "lr_decay": "cosine", **changes}
    whole = new_training(**changes)
    count = 0
    state = resaved(whole.state_dict())
    for expected in whole.run():
        again = new_training(**changes)
        again.load_state_dict(state)
        event = next(again.run())
        assert type(event) is type(expected)
        assert_equal(event or (), expected or ())
        state = resaved(again.state_dict())
        assert_equal(state, whole.state_dict())
        count += 1
    assert count == whole.step + 2 + (whole.step % 3 > 0), "the ends of two epochs, and perhaps a last mean loss"
    last = new_training(**changes)
    last.load_state_dict(state)
    assert list(last.run()) == []
    assert_equal_weights(last.best(), whole.best())
    assert (last.guide is None) == ("guide_share" not in changes)


def test_the_last_short_batch_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=10, epochs=5)
    levels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 28, 28)
    training.train = Split(levels, torch.arange(10))
    steps = recorded(training, "gradient_step", monkeypatch)
    assert [end.step for end in ends(training)] == [2, 4, 6, 8, 10]
    assert len({tuple(t.tolist()) for _, (t, _) in steps}) == 10, "each step has its own timesteps"
    numbers = torch.stack([share.images[:, 0, 0, 0] for (share, _), _ in steps]).long()
    assert torch.equal(torch.stack([share.labels for (share, _), _ in steps]), numbers), "images keep their labels"
    epochs = numbers.view(5, 8).tolist()
    assert [len(set(epoch)) for epoch in epochs] == [8] * 5
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert {index for epoch in epochs for index in epoch} == set(range(10))


@pytest.mark.parametrize(("epochs", "expected"), [(1.5, [(1, 4), (2, 6)]), (0.5, [(1, 2)]), (1e-9, [(1, 1)])])
def test_a_fraction_of_an_epoch_is_its_first_steps(epochs: float, expected: list[tuple[int, int]]) -> None:
    training = new_training(epochs=epochs)
    assert [(end.epoch, end.step) for end in ends(training)] == expected
    assert_equal_weights(training.model, stopped(training.step, epochs=2).model)


@pytest.mark.parametrize(
    ("share", "step", "changes"),
    [
        (1e-9, 1, {}),
        (0.3, 2, {"optimizer": "muon"}),
        (0.45, 4, {"block": "double_conv"}),
        (0.99, 8, {"ema_decay": 0}),
        (0.5, 1, {"epochs": 0.25}),
        (0.5, 3, {"epochs": 1.5}),
    ],
)
def test_early_weights_are_what_the_samplers_would_have_of_a_run_stopped_there(
    share: float, step: int, changes: dict[str, Any]
) -> None:
    """Averaged or not, with the statistics of BatchNorm; the training that goes on does not move them."""
    kept, plain = finished(guide_share=share, **changes), finished(**changes)
    assert kept.guide_step == step
    assert_equal(kept.guide, weights(stopped(step, **changes).best()))
    assert plain.guide is None
    assert_equal(plain.optimization.state_dict(), kept.optimization.state_dict())


CASES: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon", "held_out": 1003, "guide_share": 0.5},  # three chunks of 500
    "adam": {"ema_decay": 0, "flip": True, "label_dropout": 0.5, "held_out": 3, "target_images": 8},
    "one image each": {"optimizer": "muon", "batch_size": 2, "loss": "noise"},
}


def every_case(world: World) -> dict[str, tuple[Any, list[Any]]]:
    """State and events of trainings by batches of five, which are shares of two and three."""
    found = {}
    for name, changes in CASES.items():
        training = new_training(model=network(prediction="v"), world=world, **{"batch_size": 5, "loss": "v", **changes})
        events = [event for event in training.run() if event]
        found[name] = training.state_dict(), events
    return found


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    alone, (first, second) = every_case(World()), in_two_ranks(every_case, tmp_path)
    assert_equal(first, second)
    for name, (state, events) in alone.items():
        # Only the order in which float32 adds differs.
        torch.testing.assert_close(first[name][0], state, rtol=1e-5, atol=1e-6)
        for event, expected in zip(first[name][1], events, strict=True):
            torch.testing.assert_close(event, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        before = weights(network(prediction="v"))
        moved = state["optimization"]["network"]
        assert all((moved[name] - before[name]).abs().max() > 1e-3 for name in before), "it has been trained"


def test_a_training_whose_validation_loss_does_not_fall_ends_after_its_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validate = Validation.of

    def of(self: Validation, denoiser: Denoiser, weights: UNet, step: int) -> Any:
        """Let the loss have its minimum at step 100."""
        before, found = self.best, validate(self, denoiser, weights, step)
        self.best = before if step > 100 else BestWeights(1 / step, step, {})
        return found

    monkeypatch.setattr(Validation, "of", of)
    changes: dict[str, Any] = {"count": 200, "epochs": 10, "held_out": 5, "patience": 0.3}  # 50 steps in each epoch
    whole, again = finished(**changes), new_training(**changes)
    assert (whole.step, whole.total_steps, whole.kept_step) == (300, 500, 100), "150 steps are not more than 0.3"
    again.load_state_dict(resaved(stopped(275, **changes).state_dict()))
    assert len(ends(again)) == 1
    assert_equal_weights(again.network, whole.network)
    short = finished(count=20, epochs=40, held_out=5, patience=0.05)  # 5 steps in each epoch, a validation every 50
    assert (short.step, short.total_steps, short.kept_step) == (150, 200, 100)
