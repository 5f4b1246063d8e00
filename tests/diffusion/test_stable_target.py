"""The stable target: what a step learns from other images than its own."""

import copy

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Prediction
from ddpm.diffusion.randomness import generator
from ddpm.diffusion.targets import References, StableTarget, stable_start
from ddpm.diffusion.timesteps import draw_timesteps
from ddpm.diffusion.unet import NO_LABEL
from ddpm.images.splits import Split, to_float
from tests.trainings import SCHEDULE, assert_equal, one_step, small_training, split

TIMES = torch.tensor([19, 19, 12, 0])  # little but noise, twice; between; little noise
LABELS = torch.tensor([3, NO_LABEL, 3, NO_LABEL])
NOISE = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
IDS, OTHER_IDS = torch.arange(4), torch.arange(4, 44)  # no image of the batch is among the 40 references


def means(x_t: Tensor, own: Tensor, references: Split, itself: Tensor) -> Tensor:
    """The mean of x_0 given x_t, by Bayes' rule, summed image by image in float64."""
    found = []
    for row, image, t, label, same in zip(x_t, own, TIMES, LABELS, itself, strict=True):
        fits = ((references.labels == label) | (label == NO_LABEL)) & ~same
        images = torch.cat([image[None], to_float(references.images[fits])]).double()
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


def as_references(split: Split, ids: Tensor) -> References:
    images = to_float(split.images).flatten(1)
    return References(images, images.square().sum(1), split.labels, ids)


def test_the_target_is_the_mean_of_the_images_that_may_have_become_x_t() -> None:
    """Each counts once: the second image of the batch is among the references, too."""
    batch, references = similar(4, 1).images, similar(40, 2)
    references.images[5], ids = batch[1], OTHER_IDS.clone()
    ids[5] = IDS[1]
    own = to_float(batch)
    x_t = SCHEDULE.q_sample(own, TIMES, NOISE).float()
    found, twice = (
        stable_start(x_t, own, LABELS, IDS, *levels(), as_references(references, each)) for each in (ids, OTHER_IDS)
    )
    expected = means(x_t, own, references, IDS[:, None] == ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(twice[1], found[1], rtol=0, atol=1e-4)
    changed = (found - own).flatten(1).norm(dim=1) / (references.images.float().std() / 127.5 * 28)
    assert changed[0] > 0.5, "strong noise: the mean of the class"
    assert changed[1] > 0.5, "strong noise and no label: the mean of all"
    assert changed[3] < 1e-4, "faint noise: the image"


def test_a_shard_has_the_same_target_from_the_references_of_its_labels() -> None:
    references = similar(40, 2)
    order = references.labels.argsort()
    of_all = as_references(references.take(order), OTHER_IDS)
    own, labels = to_float(similar(4, 1).images), torch.tensor([1, 3, 2, NO_LABEL])
    signal, spread = levels()
    x_t = signal * own + spread * NOISE
    start = stable_start(x_t, own, labels, IDS, signal, spread, of_all)
    expected = NOISE + signal / spread * (own - start)
    for some, met in ((slice(0, 2), {1, 2, 3}), (slice(2, 4), {0, 1, 2, 3, 4})):
        predicted = Prediction(x_t[some], NOISE[some], "noise", signal[some], spread[some])
        found = StableTarget(own, labels, IDS, of_all)(predicted, NOISE[some], some)
        torch.testing.assert_close(found, expected[some], rtol=0, atol=1e-4)
        assert {*of_all.near(labels[some]).labels.tolist()} == met


def test_it_changes_the_gradient_and_not_the_value_of_the_loss() -> None:
    plain, stable = (
        small_training(class_conditional=False, log_snr_center=-5.0, target_images=count, shards=2) for count in (0, 8)
    )
    by_hand, rng = copy.deepcopy(stable.denoiser), generator(0, "train", 0)
    x_start, labels, of = stable.batches.batch(torch.arange(4), 0)
    t = draw_timesteps(4, stable.cdf, "stratified", rng)
    noise = torch.randn(x_start.shape, generator=rng)
    assert_equal(one_step(stable), one_step(plain))
    x_t = SCHEDULE.q_sample(x_start, t, noise)
    predicted = by_hand(x_t, t, labels)
    signal, spread = predicted.signal, predicted.spread
    target = (x_t - signal * stable_start(x_t, x_start, labels, of.ids, signal, spread, of.references)) / spread
    (predicted.noise - target).square().mean().backward()
    found, expected, unchanged = (each.network.head[-1].weight.grad for each in (stable, by_hand, plain))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, unchanged, rtol=1e-3)


@pytest.mark.parametrize(("flip", "count", "drawn"), [(False, 8, 8), (False, 99, 16), (True, 15, 15)])
def test_a_step_draws_training_images_of_its_own_and_finds_its_batch_among_them(
    flip: bool, count: int, drawn: int
) -> None:
    """None of them is held out, and none is drawn twice. A mirror image is another image."""
    batches = small_training(held_out=9, target_images=count, flip=flip).batches
    images, labels = batches.images.take(batches.rows)
    x_start, met, of_steps = to_float(images), 0, []
    for step in range(4):
        batch = batches.batch(torch.tensor([7, 2, 11, 0]), step)
        references = batch.target.references
        assert len(references.images) == drawn
        assert torch.equal(references.labels, references.labels.sort().values)
        squares = references.images.double().square().sum(1)
        torch.testing.assert_close(references.squares.double(), squares, rtol=1e-6, atol=0)
        shown = references.images.view(-1, 1, 1, 28, 28)
        plain = (shown == x_start).flatten(2).all(2)  # (drawn, training images)
        mirrored = (shown == x_start.flip(3)).flatten(2).all(2)
        assert int(mirrored.any(1).sum()) == (drawn // 2 if flip else 0)
        places = plain | mirrored
        assert (places.sum(1) == 1).all()
        assert places.any(0).sum() == drawn, "none twice"
        assert torch.equal(labels[places.int().argmax(1)], references.labels)
        itself = batch.target.ids[:, None] == references.ids
        assert torch.equal(itself, (batch.x_start[:, None] == shown[:, 0]).flatten(2).all(2))
        met += int(itself.sum())
        of_steps.append(references.images)
    assert met == 16 if drawn == 16 else 0 < met < 16
    assert not torch.equal(of_steps[0], of_steps[1])
