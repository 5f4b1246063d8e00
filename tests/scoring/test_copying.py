"""Distances to the nearest training images."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.images.splits import to_float
from ddpm.scoring import copying
from ddpm.scoring.copying import nearest_neighbours, nearness
from tests.small import FRUITS


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def levels(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """uint8 images."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=rng, dtype=torch.uint8)


def test_neighbours_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, references = levels(9, FRUITS.shape, seed=0), levels(42, FRUITS.shape, seed=1)
    distances = (to_float(queries)[:, None] - to_float(references)).double().square().mean(dim=(2, 3, 4)).sqrt()
    monkeypatch.setattr(copying, "TABLE", 15 * 3 * 16 * 8)
    monkeypatch.setattr(copying, "WIDTH", 4)
    monkeypatch.setattr(copying, "CHUNK", 5)
    found = nearest_neighbours(queries, references)
    assert torch.equal(found.nearest, distances.argmin(1))
    torch.testing.assert_close(found.distance.double(), distances.amin(1), rtol=1e-6, atol=0)


def test_nearness_is_that_of_a_plain_search_within_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    images, train = levels(23, (1, 4, 4), seed=0), levels(90, (1, 4, 4), seed=1)
    labels, train_labels = torch.arange(23) % 3, torch.arange(90) % 3
    monkeypatch.setattr(copying, "CHUNK", 5)
    monkeypatch.setattr(copying, "TABLE", 13 * 16)
    found = nearness([images], labels, train, train_labels)
    for index, image in enumerate(to_float(images).double()):
        own = to_float(train).double()[train_labels == labels[index]]
        distances = sorted(math.dist(image.flatten(), other.flatten()) / 4 for other in own)
        assert found.distance[index].item() == pytest.approx(distances[0], rel=1e-6)
        assert found.ratio[index].item() == pytest.approx(10 * distances[0] / sum(distances[1:11]), rel=1e-6)
    assert torch.equal(found.labels, labels)


def test_exact_copies_have_distance_and_ratio_zero() -> None:
    train = 100 + normal(300, 784, seed=0)  # far from zero, where squares have no digits left for small distances
    train[50:70] = train[50]  # the next ones may be copies as well
    found = nearness([train[40:80]], torch.zeros(40), train, torch.zeros(300))
    assert torch.equal(found.distance, torch.zeros(40))
    assert torch.equal(found.ratio, torch.zeros(40))


@pytest.mark.parametrize(("train", "distance", "ratio"), [(0, math.inf, math.inf), (1, 2, math.inf), (2, 2, 2 / 5)])
def test_classes_of_hardly_any_training_images(train: int, distance: float, ratio: float) -> None:
    table, labels = torch.tensor([[9.0], [2.0], [-5.0]]), torch.tensor([0, 1, 1])[: 1 + train]
    found = nearness([torch.zeros(1, 1)], torch.tensor([1]), table[: 1 + train], labels)
    assert found.distance.tolist() == [distance]
    assert found.ratio.tolist() == pytest.approx([ratio])
