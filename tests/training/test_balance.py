"""Rare classes may be trained on more often than they are."""

import pytest
import torch

from ddpm.training.class_balance import balanced_order
from tests.training.trainings import new_training

LABELS = torch.tensor([1] * 16 + [0] * 900 + [2] * 84)


def ordered(balance: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return balanced_order(torch.randperm(len(LABELS), generator=rng), LABELS, balance, rng)


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_a_class_has_a_share_by_the_tempered_count(balance: float) -> None:
    shares = torch.tensor([900.0, 16.0, 84.0]) ** (1 - balance)
    found = LABELS[ordered(balance)].bincount()
    assert found.tolist() == pytest.approx((1000 * shares / shares.sum()).tolist(), abs=1)


def test_within_a_class_each_image_comes_as_often_as_any_other_but_for_one() -> None:
    counts = ordered(1.0).bincount(minlength=1000)
    assert set(counts[:16].tolist()) <= {20, 21}  # of 333 in 16
    assert set(counts[16:916].tolist()) <= {0, 1}
    assert set(counts[916:].tolist()) <= {3, 4}
    assert not torch.equal(ordered(1.0, seed=1).bincount(minlength=1000) == 0, counts == 0), "each epoch, others"


def test_the_order_is_shuffled() -> None:
    labels = LABELS[ordered(1.0)]
    runs = int((labels[1:] != labels[:-1]).sum())
    assert runs == pytest.approx(999 * 2 / 3, abs=60)  # of three equal classes, drawn independently


def test_the_training_takes_its_batches_in_that_order() -> None:
    training = new_training(count=40, batch_size=4, class_balance=1.0)
    labels = training.train.labels
    counts = labels[torch.cat(training._batches(1))].bincount(minlength=10)[labels.unique()]
    before = labels.bincount(minlength=10)[labels.unique()]
    assert counts.max() - counts.min() <= 2 < before.max() - before.min()
