"""What a step is computed of: mirrored images, labels that are not told, micro-batches."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.images.splits import Split
from ddpm.unet import NO_LABEL
from tests.training.trainings import (
    assert_equal,
    assert_equal_weights,
    finished,
    network,
    new_training,
    recorded,
    split,
    validated,
)


def touched(found: Split, batch: Split, flip: bool) -> Tensor:
    """Which images are mirrored, or have lost their label (B,); all else is as it was."""
    mirrored, lost = (found.images != batch.images).flatten(1).any(1), found.labels == NO_LABEL
    assert torch.equal(found.images[mirrored], batch.images[mirrored].flip(3))
    assert torch.equal(found.labels[~lost], batch.labels[~lost])
    assert not (lost if flip else mirrored).any()
    return mirrored if flip else lost


@pytest.mark.parametrize("changes", [{"flip": True}, {"label_dropout": 0.1}, {"label_dropout": 0.5}], ids=str)
def test_such_a_share_is_mirrored_or_not_told_by_seed_and_step_alone(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, share = split(64, seed=2), changes.get("label_dropout", 0.5)
    images, labels = batch.images.clone(), batch.labels.clone()

    def seen(**others: Any) -> Tensor:
        training = new_training(count=64, batch_size=64, **changes, **others)
        given = recorded(training.gradient_step.loss, "mse", monkeypatch)
        for _ in range(20):
            training.gradient_step(batch, torch.arange(64))
        return torch.stack([touched(each, batch, "flip" in changes) for (_, each, *_), _ in given])

    found, count = seen(), 20 * 64
    assert int(found.sum()) == pytest.approx(share * count, abs=4 * (share * (1 - share) * count) ** 0.5)
    assert len({tuple(each.tolist()) for each in found}) == 20, "each step touches others"
    assert torch.equal(seen(optimizer="muon"), found)
    assert not torch.equal(seen(seed=1), found)
    assert_equal(batch, Split(images, labels))


def test_neither_changes_order_or_noise_nor_what_is_held_out() -> None:
    """Of images that are their own mirror images, and of a network that is told no class, nothing changes."""
    plain, touched = (
        new_training(model=network(class_conditional=False), held_out=8, **changes)
        for changes in ({}, {"flip": True, "label_dropout": 0.5})
    )
    assert_equal(validated(plain), validated(touched))
    for training in (plain, touched):
        half = training.train.images[..., :14]
        training.train = Split(torch.cat([half, half.flip(3)], dim=3), training.train.labels)
        list(training.run())
    assert_equal_weights(plain.network, touched.network)
    assert not torch.equal(finished(flip=True).network.stem.weight, finished().network.stem.weight)  # type: ignore[arg-type]


def test_without_a_label_the_network_sees_the_time_alone_and_learns_of_no_class() -> None:
    model = network().eval()
    x_t, t = torch.randn(3, 1, 28, 28), torch.tensor([3, 9, 15])
    predicted = model(x_t, t, torch.tensor([4, NO_LABEL, NO_LABEL]))
    predicted.square().mean().backward()
    assert model.label.weight.grad.any(1).nonzero().flatten().tolist() == [4]
    with torch.no_grad():
        model.label.weight.zero_()
        assert torch.equal(predicted[1:], model(x_t, t, torch.tensor([4, 4, 4]))[1:])


@pytest.mark.parametrize(("steps", "sizes"), [("2", [2, 2]), ("3", [2, 2]), ("1000", [1, 1, 1, 1])])
def test_micro_batches_are_the_same_batch(monkeypatch: pytest.MonkeyPatch, steps: str, sizes: list[int]) -> None:
    whole, share = new_training(loss="v", target_images=8), split(4, seed=2)
    monkeypatch.setenv("DDPM_ACCUMULATE", steps)
    parted = new_training(loss="v", target_images=8)
    seen: list[int] = []
    parted.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    (t, losses), (expected_t, expected) = (
        training.gradient_step(share, torch.arange(4)) for training in (parted, whole)
    )
    assert seen == sizes
    assert torch.equal(t, expected_t)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-6)
    for one, other in zip(whole.network.parameters(), parted.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
