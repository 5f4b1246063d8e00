"""The stable target: what a step learns from other images than its own."""

import pytest
import torch
from torch import Tensor

from ddpm.denoiser import Denoiser
from ddpm.images.splits import Split, to_float
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.train import DenoisingLoss, stable_start
from ddpm.unet import NO_LABEL
from tests.small import CPU, DIGITS
from tests.training.trainings import (
    SCHEDULE,
    denoiser,
    network,
    new_training,
    recorded,
    split,
)

TIMES = torch.tensor([19, 19, 12, 0])  # little but noise, twice; between; little noise
LABELS = torch.tensor([3, NO_LABEL, 3, NO_LABEL])


def means(x_t: Tensor, own: Tensor, others: Split) -> Tensor:
    """The mean of x_0 given x_t, summed image by image in float64."""
    found = []
    for row, image, t, label in zip(x_t, own, TIMES, LABELS, strict=True):
        fits = (others.labels == label) | (label == NO_LABEL)
        images = torch.cat([image[None], to_float(others.images[fits])]).double()
        abar = SCHEDULE.alphas_cumprod[t]
        chance = torch.distributions.Normal(abar.sqrt() * images, (1 - abar).sqrt()).log_prob(row.double())
        found.append((chance.sum(dim=(1, 2, 3)).softmax(0).view(-1, 1, 1, 1) * images).sum(0))
    return torch.stack(found).float()


def levels() -> tuple[Tensor, Tensor]:
    """Signal and spread at the times."""
    abar = SCHEDULE.alphas_cumprod[TIMES].view(-1, 1, 1, 1)
    return abar.sqrt().float(), (1 - abar).sqrt().float()


def similar(count: int, seed: int) -> Split:
    """Images that differ little, so that noise can hide which is which."""
    images, labels = split(count, seed)
    return Split(images // 16 + 100, labels % 5)


def test_the_target_is_the_mean_of_the_images_that_may_have_become_x_t() -> None:
    own, others = to_float(similar(4, 1).images), similar(40, 2)
    x_t = SCHEDULE.q_sample(own, TIMES, torch.randn(own.shape, generator=torch.Generator().manual_seed(0)))
    nowhere = torch.zeros(4, 40, dtype=torch.bool)
    found = stable_start(x_t.float(), own, LABELS, *levels(), others, nowhere)
    torch.testing.assert_close(found, means(x_t, own, others), rtol=0, atol=1e-4)
    changed = (found - own).flatten(1).norm(dim=1) / (others.images.float().std() / 127.5 * 28)
    assert changed[0] > 0.5, "strong noise: the mean of the class"
    assert changed[1] > 0.5, "strong noise and no label: the mean of all"
    assert changed[3] < 1e-4, "faint noise: the image"
    alone = others.take(others.labels != 3)
    nowhere = torch.zeros(4, len(alone.labels), dtype=torch.bool)
    torch.testing.assert_close(stable_start(x_t.float(), own, LABELS, *levels(), alone, nowhere)[0], own[0])


def test_it_changes_the_gradient_and_not_the_value_of_the_loss() -> None:
    loss, model = new_training(loss="v").gradient_step.loss, network(prediction="v")
    batch, others = similar(4, 1), similar(40, 2)
    noise = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
    plain = loss.mse(denoiser(model), batch, TIMES, noise)
    nowhere = torch.zeros(4, 40, dtype=torch.bool)
    stable = loss.mse(denoiser(model), batch, TIMES, noise, (others, nowhere))
    torch.testing.assert_close(stable, plain)
    found = torch.autograd.grad(loss.weighted(stable, TIMES).sum(), model.head[-1].weight)[0]
    x_t = SCHEDULE.q_sample(to_float(batch.images), TIMES, noise).float()
    signal, spread = levels()
    start = stable_start(x_t, to_float(batch.images), batch.labels, signal, spread, others, nowhere)
    target = (x_t - signal * start) / spread
    error = (denoiser(model)(x_t, TIMES, batch.labels).noise - target).square().mean(dim=(1, 2, 3))
    expected = torch.autograd.grad(loss.weighted(error, TIMES).sum(), model.head[-1].weight)[0]
    torch.testing.assert_close(found, expected)
    unchanged = torch.autograd.grad(loss.weighted(plain, TIMES).sum(), model.head[-1].weight)[0]
    assert not torch.allclose(found, unchanged, rtol=1e-3)


def test_next_to_no_noise_the_target_is_the_noise() -> None:
    schedule = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=1e-10, beta_end=0.5))
    loss, model = DenoisingLoss(schedule, DIGITS.shape, "v", CPU), network(prediction="v")
    denoise = Denoiser(model, schedule, "v", CPU)
    batch, t = similar(4, 1), torch.zeros(4, dtype=torch.int64)
    noise = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
    gradients = [
        torch.autograd.grad(loss.mse(denoise, batch, t, noise, others).sum(), model.stem.weight)[0]
        for others in (None, (similar(40, 2), torch.zeros(4, 40, dtype=torch.bool)))
    ]
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize(("flip", "count", "drawn"), [(False, 8, 8), (False, 99, 16), (True, 15, 15)])
def test_a_step_draws_training_images_of_its_own(
    flip: bool, count: int, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(model=network(class_conditional=False), target_images=count, flip=flip)
    given = recorded(training.gradient_step.loss, "mse", monkeypatch)
    for seed in (2, 3):
        training.gradient_step(split(4, seed), torch.arange(4))
    drawn_by_step = [arguments[-1][0] for arguments, _ in given]
    assert not torch.equal(drawn_by_step[0].images, drawn_by_step[1].images)
    for found in drawn_by_step:
        assert len(found.images) == drawn
        rows = [(training.train.images == each).flatten(1).all(1) for each in found.images]
        mirrored = [(training.train.images == each.flip(2)).flatten(1).all(1) for each in found.images]
        assert all((one | other).sum() == 1 for one, other in zip(rows, mirrored, strict=True))
        assert sum(bool(each.any()) for each in mirrored) == (drawn // 2 if flip else 0)
        places = torch.stack(rows) | torch.stack(mirrored)
        assert torch.equal(training.train.labels[places.int().argmax(1)], found.labels)
        assert places.any(0).sum() == drawn, "none twice"
    assert all((arguments[1].labels == NO_LABEL).all() for arguments, _ in given), "it sees no label"


@pytest.mark.parametrize("flip", [False, True])
def test_an_image_is_left_out_of_its_own_target_images_and_its_mirror_image_is_not(
    flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images are target images, so each meets itself. Counted once, the target is the exact mean."""
    training = new_training(target_images=99, flip=flip)
    given = recorded(training.gradient_step.loss, "mse", monkeypatch)
    rows = torch.tensor([7, 2, 11, 0])
    for _ in range(4):
        training.gradient_step(training.train.take(rows), rows)
    met = 0
    for (_, batch, _, _, (others, itself)), _ in given:
        same = (batch.images[:, None] == others.images).flatten(2).all(2)
        assert torch.equal(itself, same)
        met += int(same.sum())
        assert flip or (same.sum(1) == 1).all()
    assert met == 16 or (flip and 0 < met < 16)


def test_with_all_images_the_target_is_the_mean_over_the_set_each_counted_once() -> None:
    """Of points on a line, by Bayes' rule in float64: the target's slope on the true mean is 1."""
    points = torch.arange(10, dtype=torch.uint8) * 25
    images = Split(points.view(10, 1, 1, 1).expand(10, 1, 2, 2), torch.zeros(10, dtype=torch.int64))
    own, rng = to_float(images.images), torch.Generator().manual_seed(0)
    x_t = 0.05**0.5 * own + 0.95**0.5 * torch.randn(own.shape, generator=rng)
    level = torch.full((10, 1, 1, 1), 0.05).sqrt(), torch.full((10, 1, 1, 1), 0.95).sqrt()
    found = stable_start(x_t, own, images.labels, *level, images, torch.eye(10, dtype=torch.bool))
    distances = (x_t[:, None] - 0.05**0.5 * own).double().square().flatten(2).sum(2)
    expected = (-distances / (2 * 0.95)).softmax(1) @ own.flatten(1).double()
    torch.testing.assert_close(found.flatten(1).double(), expected, rtol=0, atol=1e-6)
