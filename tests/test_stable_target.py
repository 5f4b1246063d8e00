"""The stable target: what a step learns from other images than its own."""

import pytest
import torch
from torch import Tensor

from ddpm import train
from ddpm.denoiser import Denoiser
from ddpm.images.splits import Split, to_float
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.train import Others, noise_errors, stable_start
from ddpm.unet import NO_LABEL
from tests.small import CPU
from tests.trainings import SCHEDULE, denoiser, network, recorded, small_training, split

TIMES = torch.tensor([19, 19, 12, 0])  # little but noise, twice; between; little noise
LABELS = torch.tensor([3, NO_LABEL, 3, NO_LABEL])
NOISE = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
NOWHERE = torch.zeros(4, 40, dtype=torch.bool)  # no image of the batch is among the 40 others


def means(x_t: Tensor, own: Tensor, others: Split, itself: Tensor) -> Tensor:
    """The mean of x_0 given x_t, by Bayes' rule, summed image by image in float64."""
    found = []
    for row, image, t, label, same in zip(x_t, own, TIMES, LABELS, itself, strict=True):
        fits = ((others.labels == label) | (label == NO_LABEL)) & ~same
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


def as_others(split: Split, itself: Tensor) -> Others:
    images = to_float(split.images).flatten(1)
    return Others(images, images.square().sum(1), split.labels, itself)


def test_the_target_is_the_mean_of_the_images_that_may_have_become_x_t() -> None:
    """Each counts once: the second image of the batch is among the others, too."""
    batch, others = similar(4, 1).images, similar(40, 2)
    others.images[5], itself = batch[1], NOWHERE.clone()
    itself[1, 5] = True
    own = to_float(batch)
    x_t = SCHEDULE.q_sample(own, TIMES, NOISE).float()
    found = stable_start(x_t, own, LABELS, *levels(), as_others(others, itself))
    torch.testing.assert_close(found, means(x_t, own, others, itself), rtol=0, atol=1e-4)
    twice = stable_start(x_t, own, LABELS, *levels(), as_others(others, NOWHERE))
    assert not torch.allclose(twice[1], found[1], rtol=0, atol=1e-4)
    changed = (found - own).flatten(1).norm(dim=1) / (others.images.float().std() / 127.5 * 28)
    assert changed[0] > 0.5, "strong noise: the mean of the class"
    assert changed[1] > 0.5, "strong noise and no label: the mean of all"
    assert changed[3] < 1e-4, "faint noise: the image"
    alone = others.take(others.labels != 3)
    nobody = as_others(alone, NOWHERE[:, : len(alone.labels)])
    torch.testing.assert_close(stable_start(x_t, own, LABELS, *levels(), nobody)[0], own[0])


def test_it_changes_the_gradient_and_not_the_value_of_the_loss() -> None:
    model, batch, others = network(prediction="v"), similar(4, 1), as_others(similar(40, 2), NOWHERE)
    plain = noise_errors(denoiser(model), batch, TIMES, NOISE)
    stable = noise_errors(denoiser(model), batch, TIMES, NOISE, others)
    torch.testing.assert_close(stable, plain)
    x_start = to_float(batch.images)
    x_t = SCHEDULE.q_sample(x_start, TIMES, NOISE)
    signal, spread = levels()
    target = (x_t - signal * stable_start(x_t, x_start, batch.labels, signal, spread, others)) / spread
    error = (denoiser(model)(x_t, TIMES, batch.labels).noise - target).square().mean(dim=(1, 2, 3))
    found, expected, unchanged = (
        torch.autograd.grad(each.sum(), model.head[-1].weight)[0] for each in (stable, error, plain)
    )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, unchanged, rtol=1e-3)


def test_next_to_no_noise_the_target_is_the_noise() -> None:
    schedule = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=1e-10, beta_end=0.5))
    model, t = network(prediction="v"), torch.zeros(4, dtype=torch.int64)
    denoise = Denoiser(model, schedule, "v", CPU)
    plain, stable = (
        torch.autograd.grad(noise_errors(denoise, similar(4, 1), t, NOISE, others).sum(), model.stem.weight)[0]
        for others in (None, as_others(similar(40, 2), NOWHERE))
    )
    assert plain.any()
    torch.testing.assert_close(stable, plain)


@pytest.mark.parametrize(("flip", "count", "drawn"), [(False, 8, 8), (False, 99, 16), (True, 15, 15)])
def test_a_step_draws_training_images_of_its_own_and_finds_its_batch_among_them(
    flip: bool, count: int, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is held out, and none is drawn twice. A mirror image is another image."""
    training = small_training(held_out=9, model=network(class_conditional=False), target_images=count, flip=flip)
    given = recorded(train, "noise_errors", monkeypatch)
    for _ in range(4):
        training.gradient_step(torch.tensor([7, 2, 11, 0]))
    images, labels = training.images.take(training.rows)
    met = 0
    for (_, batch, _, _, others), _ in given:
        assert len(others.images) == drawn
        assert torch.equal(others.squares, others.images.square().sum(1))
        levels = ((others.images + 1) * 127.5).round().view(-1, 1, 28, 28).to(torch.uint8)
        assert torch.equal(others.images, to_float(levels).flatten(1))
        plain = (levels[:, None] == images).flatten(2).all(2)  # (drawn, training images)
        mirrored = (levels[:, None] == images.flip(3)).flatten(2).all(2)
        assert int(mirrored.any(1).sum()) == (drawn // 2 if flip else 0)
        places = plain | mirrored
        assert (places.sum(1) == 1).all()
        assert places.any(0).sum() == drawn, "none twice"
        assert torch.equal(labels[places.int().argmax(1)], others.labels)
        assert torch.equal(others.itself, (batch.images[:, None] == levels).flatten(2).all(2))
        assert (batch.labels == NO_LABEL).all(), "the network sees no label"
        met += int(others.itself.sum())
    assert met == 16 if drawn == 16 else 0 < met < 16
    of_steps = [others.images for (*_, others), _ in given[::4]]  # a step has four shards
    assert len(of_steps) == 4
    assert not torch.equal(of_steps[0], of_steps[1])
