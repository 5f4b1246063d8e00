"""Classifiers of the study: what each method learns from, and that the best weights are tested."""

import pytest
import torch

from ddpm.images.splits import Split
from studies.rare_class.learning import METHODS, LearnParams, Method, augmentation, learn, learned_from

PARAMS = LearnParams(channels=4, steps=60, batch_size=16, lr=0.03, check_every=10)


def split(*counts: int, seed: int = 0) -> Split:
    """Noise whose mean is the class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randint(0, 40, (len(labels), 1, 20, 20), generator=torch.Generator().manual_seed(seed))
    return Split((noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


REAL, EXTRA = split(12, 6, 2), split(0, 6, 10, seed=1)
NONE = REAL.take(slice(0))


def test_how_often_each_class_is_learned() -> None:
    for balance, extra, shares in (
        ("adjust", NONE, [0.6, 0.3, 0.1]),
        ("oversample", NONE, [1 / 3] * 3),
        ("oversample", EXTRA, [1 / 3] * 3),
    ):
        found, share, *_ = learned_from(REAL, extra, Method(balance, "none", "none"))
        assert found.labels.bincount(share / share.sum()).tolist() == pytest.approx(shares)


def test_offsets_follow_from_the_frequencies() -> None:
    *_, none = learned_from(REAL, NONE, Method("oversample", "none", "none"))
    *_, offset = learned_from(REAL, NONE, Method("adjust", "none", "none"))
    torch.testing.assert_close(offset.exp(), torch.tensor([0.6, 0.3, 0.1]))
    assert none.tolist() == [0, 0, 0]


def test_every_method_learns_the_same_each_time_and_the_easy_classes() -> None:
    pool, test = split(5, 5, 5, seed=2), split(5, 5, 5, seed=3)
    for method in METHODS:
        real, extra = split(20, 10, 8), NONE if method.extra == "none" else EXTRA
        change = augmentation(method.augment, (20, 20))
        found, again = (learn(real, extra, method, change, pool, test, PARAMS, seed=1) for _ in range(2))
        assert (found.f1.tolist(), found.kept_step) == (again.f1.tolist(), again.kept_step)
        assert found.accuracy > 0.5, method


def test_the_weights_with_the_lowest_loss_on_the_pool_are_tested() -> None:
    real, other = split(20, 20), split(20, 20)
    swapped = Split(other.images, 1 - other.labels)  # what is learned is wrong here: the first weights are the best
    change = augmentation("none", (20, 20))
    found = learn(real, NONE, METHODS[0], change, swapped, other, PARAMS, seed=0)
    assert found.kept_step == 10
