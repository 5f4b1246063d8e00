"""Images that may be mirrored: half of them are, by seed and step, and their labels stay."""

import pytest
import torch
from torch import Tensor

from ddpm.images.splits import Split
from tests.training.trainings import assert_equal_weights, finished, given_to, new_training, split


def mirrored(images: Tensor, originals: Tensor) -> list[bool]:
    """Which of them are mirrored left to right; the others are as they were."""
    found = []
    for image, original in zip(images, originals, strict=True):
        assert torch.equal(image, original.flip(2)) or torch.equal(image, original)
        found.append(not torch.equal(image, original))
    return found


def test_half_of_the_images_are_mirrored_and_labels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=64, batch_size=64, flip=True, lr=1e-12)
    share = split(64, seed=2)
    images, labels = share.images.clone(), share.labels.clone()
    flips = []
    for _ in range(20):
        found = given_to(training, share, monkeypatch)
        assert found.images.dtype == torch.uint8
        assert torch.equal(found.labels, labels)
        flips.append(mirrored(found.images, images))
    counts = [sum(each) for each in flips]
    assert sum(counts) == pytest.approx(640, abs=4 * 17.9)  # binomial
    assert len({tuple(each) for each in flips}) == 20, "each step mirrors others"
    assert torch.equal(share.images, images), "the images themselves stay"


def test_which_are_mirrored_hangs_on_seed_and_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    share, flips = split(16, seed=2), []
    for seed, optimizer in ((0, "adam"), (0, "muon"), (1, "adam")):
        training = new_training(batch_size=16, flip=True, seed=seed, optimizer=optimizer)
        flips.append([mirrored(given_to(training, share, monkeypatch).images, share.images) for _ in range(3)])
    assert flips[0] == flips[1] != flips[2]


def test_off_means_that_the_batch_is_handed_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    share = split(4, seed=2)
    handed = given_to(new_training(flip=False), share, monkeypatch)
    assert torch.equal(handed.images, share.images)
    assert torch.equal(handed.labels, share.labels)


def test_mirroring_changes_neither_order_nor_noise() -> None:
    """Of images that are their own mirror images, the training is bit for bit the same."""
    results = []
    for flip in (False, True):
        training = new_training(flip=flip, held_out=4)
        images = training.train.images
        symmetric = torch.cat([images[..., :14], images[..., :14].flip(3)], dim=3)
        training.train = Split(symmetric, training.train.labels)
        for _ in training.run():
            pass
        results.append(training)
    assert_equal_weights(results[0].network, results[1].network)
    assert_equal_weights(results[0].best(), results[1].best())
    changed = finished(flip=True).network.stem.weight - finished(flip=False).network.stem.weight  # type: ignore[operator]
    assert changed.abs().max() > 1e-4  # type: ignore[operator, union-attr]


def test_held_out_images_are_not_mirrored() -> None:
    losses = [
        new_training(flip=flip, held_out=8).validation.of(new_training().model.eval(), 0) for flip in (False, True)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0, equal_nan=True)
