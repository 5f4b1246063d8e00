"""Labels that are not told: so large a share of them, by seed and step, and nothing else changes."""

import pytest
import torch

from ddpm.images.splits import Split
from ddpm.networks.unet import NO_LABEL
from tests.training.trainings import assert_equal_weights, finished, given_to, network, new_training, split


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_such_a_share_of_the_labels_is_dropped_and_the_images_stay(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(count=64, batch_size=64, label_dropout=share, lr=1e-12)
    batch = split(64, seed=2)
    labels = batch.labels.clone()
    dropped = []
    for _ in range(30):
        found = given_to(training, batch, monkeypatch)
        assert torch.equal(found.images, batch.images)
        dropped.append(found.labels == NO_LABEL)
        assert torch.equal(found.labels[~dropped[-1]], labels[~dropped[-1]])
    count = 30 * 64
    assert int(torch.stack(dropped).sum()) == pytest.approx(share * count, abs=4 * (share * (1 - share) * count) ** 0.5)
    assert len({tuple(each.tolist()) for each in dropped}) == 30, "each step drops others"
    assert torch.equal(batch.labels, labels), "the labels themselves stay"


def test_which_are_dropped_hangs_on_seed_and_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, found = split(16, seed=2), []
    for seed, optimizer in ((0, "adam"), (0, "muon"), (1, "adam")):
        training = new_training(batch_size=16, label_dropout=0.5, seed=seed, optimizer=optimizer)
        found.append([given_to(training, batch, monkeypatch).labels.tolist() for _ in range(3)])
    assert found[0] == found[1] != found[2]


def test_none_dropped_means_that_the_batch_is_handed_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = split(4, seed=2)
    handed = given_to(new_training(label_dropout=0.0), batch, monkeypatch)
    assert torch.equal(handed.images, batch.images)
    assert torch.equal(handed.labels, batch.labels)


def test_dropping_changes_neither_order_nor_noise() -> None:
    """A network that is told no class trains bit for bit the same."""
    one, other = (finished(model=network(class_conditional=False), label_dropout=share) for share in (0.0, 0.5))
    assert_equal_weights(one.network, other.network)
    told, seldom = finished(label_dropout=0.0), finished(label_dropout=0.5)
    assert not torch.equal(told.network.label.weight, seldom.network.label.weight)  # type: ignore[union-attr]


def test_held_out_images_keep_their_labels() -> None:
    losses = [
        new_training(label_dropout=share, held_out=8).validation.of(new_training().model.eval(), 0)
        for share in (0.0, 0.9)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0, equal_nan=True)


def test_without_a_label_the_network_sees_the_time_alone() -> None:
    model = network().eval()
    assert model.label
    x_t, t = torch.randn(3, 1, 28, 28), torch.tensor([3, 9, 15])
    mixed = torch.tensor([4, NO_LABEL, NO_LABEL])
    with torch.inference_mode():
        predicted = model(x_t, t, mixed)
        assert torch.equal(predicted[0], model(x_t, t, torch.tensor([4, 4, 4]))[0])
        model.label.weight.zero_()
        assert torch.equal(predicted[1:], model(x_t, t, torch.tensor([4, 4, 4]))[1:])


def test_a_dropped_label_moves_no_class() -> None:
    model = network()
    assert model.label
    x_t, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 9])
    model(x_t, t, torch.tensor([NO_LABEL, 4])).square().mean().backward()
    gradient = model.label.weight.grad
    assert gradient is not None
    assert gradient[4].any()
    assert not gradient[[0, 1, 2, 3, 5, 6, 7, 8, 9]].any()


def test_labels_are_dropped_from_this_processs_share_as_from_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(batch_size=16, count=16, label_dropout=0.5)
    batch = split(16, seed=2)
    whole = training.gradient_step._without_some_labels(batch, slice(0, 16)).labels
    part = training.gradient_step._without_some_labels(Split(batch.images[4:8], batch.labels[4:8]), slice(4, 8)).labels
    assert torch.equal(part, whole[4:8])
