"""Training: the loss, the averaged weights, the loop and its randomness, against hand-made references."""

import copy
import math

import pytest
import torch
from networks import unet_params
from torch import Tensor

from ddpm.data.splits import Split
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.networks.unet import UNet
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime
from ddpm.runtime.params import parse
from ddpm.runtime.randomness import generator
from ddpm.training.loop import EpochEnd, Logged, Training, TrainParams
from ddpm.training.muon import orthogonalise

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.01, beta_end=0.5))
REFERENCE = NoiseSchedule(ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02))
CPU = Runtime(torch.device("cpu"), torch.float32)
RECIPE = {
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adam",
    "lr": 0.01,
    "lr_decay": "none",
    "warmup_steps": 0,
    "ema_decay": 0.9,
    "loss": "noise",
    "timestep_sampling": "stratified",
    "log_snr_center": None,
    "classes": "all",
    "validation": 0,
    "log_every": 1,
    "seed": 0,
}


def split(count: int, seed: int = 0) -> Split:
    source = torch.Generator().manual_seed(seed)
    images = 2 * torch.rand(count, 1, 28, 28, generator=source) - 1
    return Split(images, torch.randint(10, (count,), generator=source, dtype=torch.uint8))


def batch(count: int, seed: int = 0) -> Split:
    """As a step takes it."""
    return split(count, seed).to(CPU.device)


def uniform(timesteps: int) -> Tensor:
    return torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps


def network(
    block: str = "residual", channels: int = 4, prediction: str = "noise", class_conditional: bool = True
) -> UNet:
    """A fresh network, always with the same weights, none of the layers zero."""
    params = unet_params(channels=(channels,), block=block, class_conditional=class_conditional, prediction=prediction)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(params, SCHEDULE)
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
    return model


def new_training(
    count: int = 16, held_out: int = 0, model: UNet | None = None, block: str = "residual", **changes: object
) -> Training:
    params = TrainParams.model_validate({**RECIPE, **changes})
    return Training(model or network(block), SCHEDULE, split(count), split(held_out, seed=1), params, CPU)


def finished(**changes: object) -> Training:
    training = new_training(**changes)
    for _ in training.run():
        pass
    return training


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_equal_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    torch.testing.assert_close(weights(left), weights(right), rtol=0, atol=0)


def record_steps(training: Training, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Split, Tensor, Tensor]]:
    """A list that grows by (share, t, losses) with every step."""
    steps = []
    original = training._step

    def step(share: Split) -> tuple[Tensor, Tensor]:
        t, losses = original(share)
        steps.append((share, t, losses))
        return t, losses

    monkeypatch.setattr(training, "_step", step)
    return steps


def by_bucket(t: Tensor, losses: Tensor) -> Tensor:
    """Mean loss in each tenth of the 20 timesteps."""
    return torch.stack([losses[t // 2 == bucket].mean() for bucket in range(10)])


def test_uniform_timesteps_are_uniform() -> None:
    t = draw_timesteps(100_000, uniform(1000), "uniform", generator(0, "test"))
    assert t.dtype == torch.int64
    counts = t.bincount(minlength=1000)
    assert len(counts) == 1000
    # Each count is 100 with deviation 10, and the mean 499.5 with 0.91: five deviations.
    assert (counts - 100).abs().max() < 50
    assert t.double().mean().item() == pytest.approx(499.5, abs=4.6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 8, 100])
def test_stratified_timesteps_are_one_in_each_stratum(count: int, seed: int) -> None:
    t = draw_timesteps(count, uniform(1000), "stratified", generator(seed, "test"))
    assert (t * count // 1000).tolist() == list(range(count))


def test_stratified_timesteps_are_uniform_also_where_strata_end_between_timesteps() -> None:
    source = generator(0, "test")
    t = torch.stack([draw_timesteps(4, uniform(10), "stratified", source) for _ in range(5000)])
    # Strata of 2.5 timesteps: each may reach into the next stratum's first.
    assert [column.unique().tolist() for column in t.T] == [[0, 1, 2], [2, 3, 4], [5, 6, 7], [7, 8, 9]]
    # Of 20,000 draws 2,000 each; five deviations of a binomial, which is wider than this is.
    assert (t.flatten().bincount(minlength=10) - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_the_largest_draw_is_still_a_timestep(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The largest float32 below 1; with a stratum's number added, it rounds to the next whole number.
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), 1 - 2**-24))
    assert draw_timesteps(128, uniform(1000), sampling, generator(0, "test"))[-1] == 999


def test_stratified_timesteps_have_less_variance_in_their_mean() -> None:
    source = generator(0, "test")
    means = {
        sampling: torch.stack([draw_timesteps(16, uniform(1000), sampling, source).double().mean() for _ in range(500)])
        for sampling in ("uniform", "stratified")
    }
    # Theory: deviation 288.7 / 4, and a sixteenth of it.
    assert means["uniform"].std().item() == pytest.approx(72.2, rel=0.15)
    assert means["stratified"].std().item() == pytest.approx(72.2 / 16, rel=0.15)
    assert means["stratified"].mean().item() == pytest.approx(499.5, abs=1.1)


def test_uniform_density_is_an_equal_share_of_every_timestep() -> None:
    cdf = timestep_cdf(REFERENCE, None)
    assert cdf.dtype == torch.float64
    torch.testing.assert_close(cdf, uniform(1000), rtol=1e-15, atol=0)


@pytest.mark.parametrize("schedule", [SCHEDULE, REFERENCE], ids=lambda schedule: schedule.timesteps)
def test_the_density_around_0_is_uniform_in_the_angle_whose_cosine_is_the_signal(schedule: NoiseSchedule) -> None:
    params, signal, angles = schedule.params, 1.0, []
    for t in range(params.timesteps):
        slope = (params.beta_end - params.beta_start) / (params.timesteps - 1)
        signal *= 1 - (params.beta_start + t * slope)
        angles.append(math.acos(math.sqrt(signal)))
    cdf = timestep_cdf(schedule, 0.0)
    assert cdf.dtype == torch.float64
    assert cdf.tolist() == pytest.approx([angle / (math.pi / 2) for angle in angles], rel=1e-12)


@pytest.mark.parametrize("center", [-3.0, -1.0, 0.0, 2.5])
def test_the_log_snr_has_the_density_of_a_hyperbolic_secant(center: float) -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    # Simpson's rule between neighbours.
    places = torch.stack([log_snr[:-1], (log_snr[:-1] + log_snr[1:]) / 2, log_snr[1:]])
    density = 1 / (2 * math.pi * ((places - center) / 2).cosh())
    mean = (torch.tensor([1, 4, 1], dtype=torch.float64) / 6) @ density
    torch.testing.assert_close(timestep_cdf(REFERENCE, center).diff(), mean * -log_snr.diff(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("center", [-1.0, 0.0])
@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
@pytest.mark.parametrize("schedule", [SCHEDULE, REFERENCE], ids=lambda schedule: schedule.timesteps)
def test_timesteps_are_as_frequent_as_the_density_says(schedule: NoiseSchedule, sampling: str, center: float) -> None:
    draws = 1_000_000
    cdf = timestep_cdf(schedule, center)
    shares = cdf.diff(prepend=torch.zeros(1, dtype=torch.float64))
    shares[-1] += 1 - cdf[-1]  # pure noise stands for what lies beyond the schedule
    counts = draw_timesteps(draws, cdf, sampling, generator(0, "test")).bincount(minlength=schedule.timesteps)
    assert len(counts) == schedule.timesteps
    deviation = (draws * shares * (1 - shares)).sqrt() if sampling == "uniform" else 0.4  # a stratum at either end
    assert ((counts - draws * shares).abs() / deviation).max() < 5


@pytest.mark.parametrize("center", [-1.0, 0.0, 1.5])
def test_the_log_snr_is_drawn_around_its_center_as_by_the_cosine_schedule(center: float) -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    cdf = timestep_cdf(REFERENCE, center)
    drawn = log_snr[draw_timesteps(100_000, cdf, "uniform", generator(0, "test"))]
    # A timestep is 0.011 there, and five standard errors of the middle one of the draws are 0.05.
    assert drawn.median().item() == pytest.approx(center, abs=0.06)
    # Of the cosine schedule, log_snr is twice the logarithm of the cotangent.
    assert drawn.quantile(0.25).item() == pytest.approx(center - 2 * math.log(1 + 2**0.5), abs=0.08)
    assert drawn.quantile(0.75).item() == pytest.approx(center + 2 * math.log(1 + 2**0.5), abs=0.08)


def test_uniform_timesteps_of_linear_betas_are_mostly_noise() -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    t = draw_timesteps(100_000, timestep_cdf(REFERENCE, None), "uniform", generator(0, "test"))
    assert log_snr[t].median().item() == pytest.approx(log_snr[500].item(), abs=0.06)
    assert log_snr[500].item() < -2


def test_stratified_timesteps_of_any_density_are_one_in_each_stratum() -> None:
    cdf = timestep_cdf(REFERENCE, 0.0)
    t = draw_timesteps(8, cdf, "stratified", generator(0, "test"))
    below = torch.cat([torch.zeros(1, dtype=torch.float64), cdf])
    strata = torch.arange(9) / 8
    assert (below[t] < strata[1:]).all()
    assert (cdf[t][:-1] > strata[:-2]).all()
    assert t[-1] > t[-2]


def test_the_density_decides_the_timesteps_of_training_and_not_those_of_validation() -> None:
    plain, cosine = (new_training(held_out=40, log_snr_center=center) for center in (None, 0.0))
    torch.testing.assert_close(plain.validate(), cosine.validate(), rtol=0, atol=0, equal_nan=True)
    for training, center in ((plain, None), (cosine, 0.0)):
        t, _ = training._step(batch(4, seed=2))
        cdf = timestep_cdf(SCHEDULE, center)
        assert torch.equal(t, draw_timesteps(4, cdf, "stratified", generator(0, "train", 0)))


def test_learning_rate_constant() -> None:
    training = new_training(lr=0.02)
    assert [training.optimization.learning_rate(step) for step in range(8)] == [0.02] * 8


def test_learning_rate_warms_up() -> None:
    training = new_training(lr=0.02, warmup_steps=3)
    rates = [training.optimization.learning_rate(step) for step in range(6)]
    assert rates == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02, 0.02], rel=1e-12)


def test_learning_rate_falls_by_half_a_cosine() -> None:
    training = new_training(lr=0.02, lr_decay="cosine")
    assert training.total_steps == 8
    rates = [training.optimization.learning_rate(step) for step in (0, 2, 4, 6, 8)]
    assert rates == pytest.approx([0.02, 0.01 * (1 + 0.5**0.5), 0.01, 0.01 * (1 - 0.5**0.5), 0], abs=1e-12)


def test_learning_rate_warm_up_and_cosine_multiply() -> None:
    training = new_training(lr=0.02, lr_decay="cosine", warmup_steps=4)
    assert training.optimization.learning_rate(2) == pytest.approx(
        0.02 * 3 / 5 * 0.5 * (1 + math.cos(math.pi / 4)), rel=1e-12
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
    share = batch(4, seed=2)
    x_start = share.images

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

    t, losses = training._step(share)
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


def test_muon_moves_the_convolutions_between_stem_and_head_and_adam_all_others() -> None:
    training = new_training(model=network(), optimizer="muon")
    muon, adam = training.optimization.optimizers
    names = {id(weight): name for name, weight in training.network.named_parameters()}

    def moved_by(optimizer: torch.optim.Optimizer) -> set[str]:
        return {names[id(weight)] for group in optimizer.param_groups for weight in group["params"]}

    assert moved_by(muon) == {"bottleneck.0.conv1.weight", "bottleneck.0.conv2.weight"}
    assert moved_by(adam) == set(names.values()) - moved_by(muon)
    before = weights(training.network)
    training._step(batch(4, seed=2))
    for name, weight in training.network.named_parameters():
        update = orthogonalise(0.0975 * weight.grad.flatten(1)) * 0.2 * 36**0.5 if name in moved_by(muon) else None
        expected = weight.grad / (weight.grad.abs() + 1e-8) if update is None else update.view(weight.shape)
        torch.testing.assert_close(before[name] - weight, 0.01 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_optimizer_follows_the_learning_rate(optimizer: str) -> None:
    training = new_training(optimizer=optimizer, lr=0.02, lr_decay="cosine", warmup_steps=2)
    for step in range(3):
        training._step(batch(4, seed=step))
        rates = {group["lr"] for each in training.optimization.optimizers for group in each.param_groups}
        assert rates == {training.optimization.learning_rate(step)}


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
        model = UNet(params, SCHEDULE)
    one = split(1)
    image = Split(one.images.sign().expand(16, -1, -1, -1), one.labels.expand(16))
    training = Training(model, SCHEDULE, image, image, TrainParams.model_validate({**RECIPE, **recipe}), CPU)
    # A fresh network predicts nothing, and noise has a mean square of 1.
    assert training.validate().nanmean().item() == pytest.approx(1, rel=0.02)
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


def test_a_state_keeps_the_memory_format_of_the_optimizers() -> None:
    first = finished(optimizer="adam")
    again = new_training(optimizer="adam")
    again.load_state({name: tensor.contiguous() for name, tensor in first.state().items()})
    for optimizer, wanted in zip(again.optimization.optimizers, first.optimization.optimizers, strict=True):
        for values, wanted_values in zip(optimizer.state.values(), wanted.state.values(), strict=True):
            assert {name: value.stride() for name, value in values.items()} == {
                name: value.stride() for name, value in wanted_values.items()
            }


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


@pytest.mark.parametrize("ema_decay", [0.3, 0.9])
def test_average_is_a_moving_average_whose_decay_warms_up(ema_decay: float) -> None:
    training = new_training(ema_decay=ema_decay, epochs=6)
    average: dict[str, Tensor] = {}
    for event in training.run():
        if isinstance(event, EpochEnd):
            continue
        decay = min(ema_decay, (1 + event.step) / (10 + event.step))
        for name, weight in training.network.named_parameters():
            now = weight.detach().double()
            # The average starts at the weights after the first step.
            average[name] = decay * average[name] + (1 - decay) * now if event.step > 1 else now
            torch.testing.assert_close(
                training.model.get_parameter(name).detach().double(), average[name], rtol=1e-5, atol=1e-6
            )
    assert training.model is not training.network
    assert (training.model.stem.weight - training.network.stem.weight).abs().max() > 1e-4


def test_average_has_the_networks_batch_statistics() -> None:
    # Buffers are copied; without that, evaluation would use the statistics of the start.
    training = finished(block="double_conv")
    for name, buffer in training.network.named_buffers():
        assert torch.equal(training.model.get_buffer(name), buffer), name
    assert training.network.bottleneck[0].norm1.num_batches_tracked == 8


def test_without_averaging_the_network_itself_is_kept() -> None:
    training = finished(ema_decay=0)
    assert training.model is training.network
    assert_equal_weights(training.model, finished(ema_decay=0.9).network)


def test_the_last_short_batch_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=10, epochs=5)
    assert training.steps_per_epoch == 2
    assert training.total_steps == 10
    training.train = Split(torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 28, 28) / 10, torch.arange(10))
    steps = record_steps(training, monkeypatch)
    events = list(training.run())
    assert training.step == 10
    assert [event.step for event in events if isinstance(event, EpochEnd)] == [2, 4, 6, 8, 10]
    assert all(share.images.shape == (4, 1, 28, 28) for share, _, _ in steps)
    numbers = (torch.stack([share.images[:, 0, 0, 0] for share, _, _ in steps]) * 10).round().long()
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


@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_validating_twice_gives_the_same_and_changes_nothing(ema_decay: float) -> None:
    training = new_training(held_out=6, block="double_conv", ema_decay=ema_decay)
    training._step(batch(4, seed=2))
    before = weights(training.network)
    first, second = training.validate(), training.validate()
    assert torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
    torch.testing.assert_close(weights(training.network), before, rtol=0, atol=0)
    assert all(module.training for module in training.network.modules())


def test_validation_is_the_averaged_models_loss_by_bucket() -> None:
    # More than one chunk of 500, and BatchNorm, whose mode shows in the values.
    training = new_training(held_out=503, block="double_conv")
    for seed in (2, 3, 4):
        training._step(batch(4, seed))
    timesteps, losses = [], []
    held_out = batch(503, seed=1)
    for chunk, (x_start, labels) in enumerate(zip(*(each.split(500) for each in held_out), strict=True)):
        source = generator(0, "validation", chunk)
        t = draw_timesteps(len(x_start), uniform(20), "stratified", source)
        noise = torch.randn(x_start.shape, generator=source)
        with torch.no_grad():
            pred_noise = copy.deepcopy(training.model).eval()(SCHEDULE.q_sample(x_start, t, noise), t, labels)
        timesteps.append(t)
        losses.append((pred_noise - noise).square().mean(dim=(1, 2, 3)))
    expected = by_bucket(torch.cat(timesteps), torch.cat(losses))
    torch.testing.assert_close(training.validate(), expected, rtol=1e-5, atol=1e-6)


def test_validation_has_no_value_where_no_timestep_fell() -> None:
    # Three strata of 20 timesteps: at most three buckets of two.
    losses = new_training(held_out=3).validate()
    assert losses.shape == (10,)
    assert losses.isfinite().sum() == 3
    assert losses.isnan().sum() == 7


def test_without_held_out_images_there_is_no_validation() -> None:
    ends = [event for event in new_training().run() if isinstance(event, EpochEnd)]
    assert [end.validation for end in ends] == [None, None]


def test_logged_losses_are_means_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(epochs=2, log_every=3)
    steps = record_steps(training, monkeypatch)
    events = list(training.run())
    means = [losses.mean().item() for _, _, losses in steps]
    logged = [event for event in events if isinstance(event, Logged)]
    # Eight steps: logging runs on over the end of an epoch, and the end of training is always logged.
    assert [event.step for event in logged] == [3, 6, 8]
    expected = [sum(means[0:3]) / 3, sum(means[3:6]) / 3, sum(means[6:8]) / 2]
    assert [event.loss for event in logged] == pytest.approx(expected, rel=1e-6)
    assert [type(event).__name__ for event in events if event] == ["Logged", "EpochEnd", "Logged", "Logged", "EpochEnd"]


def test_epochs_end_with_their_own_losses_by_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=100, epochs=2, batch_size=50, lr=0.05)
    steps = record_steps(training, monkeypatch)
    ends = [event for event in training.run() if isinstance(event, EpochEnd)]
    assert [(end.epoch, end.step) for end in ends] == [(1, 2), (2, 4)]
    for end, (first, second) in zip(ends, [steps[:2], steps[2:]], strict=True):
        expected = by_bucket(torch.cat([first[1], second[1]]), torch.cat([first[2], second[2]]))
        torch.testing.assert_close(end.training, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("value", "classes"), [("all", ()), ([7], (7,)), ([0, 9], (0, 9)), ((3, 1), (3, 1))])
def test_classes_are_all_or_a_list(value: object, classes: tuple[int, ...]) -> None:
    assert parse(TrainParams, {**RECIPE, "classes": value}, "params.yaml", "train").classes == classes


@pytest.mark.parametrize("value", ["none", "7", 7, None, [], [10], [-1], ["7"], [1.5], [True], {"7": 1}])
def test_other_classes_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: .*\n  train\.classes"):
        parse(TrainParams, {**RECIPE, "classes": value}, "params.yaml", "train")


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
