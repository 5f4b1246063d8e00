"""Distances to the nearest training images, and how many samples are copies of them: of models that copy or do not."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.images.splits import to_float, to_uint8
from ddpm.scores import copying
from ddpm.scores.copying import NEAR, Nearness, middle, near_copies, nearest_neighbours, nearness, shifted
from ddpm.scores.distances import NONE
from tests.small import FRUITS, levels, normal


def test_neighbours_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, references = levels(9, FRUITS.shape, seed=0), levels(42, FRUITS.shape, seed=1)
    distances = (to_float(queries)[:, None] - to_float(references)).double().square().mean(dim=(2, 3, 4)).sqrt()
    monkeypatch.setattr(copying, "TABLE", 15 * 3 * 16 * 8)
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


def test_a_training_image_is_compared_with_the_other_ones_of_its_class() -> None:
    train, labels = levels(24, (1, 4, 4)), torch.tensor([5, *[0, 1] * 11, 1])  # the first is alone in its class
    train[21] = train[1]  # of one class
    found = nearness([train], labels, train, labels, trained=True)
    for index, image in enumerate(to_float(train).double()):
        others = [other for other in range(24) if other != index and labels[other] == labels[index]]
        distances = sorted(
            math.dist(image.flatten(), to_float(train[other]).double().flatten()) / 4 for other in others
        )
        assert found.distance[index].item() == pytest.approx(distances[0] if others else math.inf, rel=1e-6)
        assert found.ratio[index].isfinite() == (index > 0)
    assert found.distance[1] == 0


SCALES = (0.02, 0.3, 0.5)  # of the classes' contrasts: the first is as tight as MNIST's ones beside its other digits
COPIED = 0.2


def smooth(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 28, 28) of soft spots, and their classes in turn, whose contrast differs."""
    labels = torch.arange(count) % len(SCALES)
    spots = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    scales = torch.tensor(SCALES)[labels].view(-1, 1, 1, 1)
    return scales * F.interpolate(spots, size=(28, 28), mode="bilinear"), labels


TRAIN, TRAIN_LABELS = smooth(6000, seed=0)
HELD_OUT, HELD_OUT_LABELS = smooth(3000, seed=1)
HONEST, HONEST_LABELS = smooth(3000, seed=2)


def copies(count: int, noise: float = 0.02, shift: bool = True, first: int = 0) -> tuple[Tensor, Tensor]:
    """Training images of the wider classes, moved by a pixel and with a little noise."""
    chosen = (TRAIN_LABELS > 0).nonzero().squeeze(1)[first : first + count]
    moved = torch.roll(TRAIN[chosen], int(shift), 3)
    moved[..., 0] = moved[..., 1]  # what came in at the edge
    return moved + noise * torch.randn(moved.shape, generator=torch.Generator().manual_seed(3)), TRAIN_LABELS[chosen]


def copier() -> tuple[Tensor, Tensor]:
    """What a model samples a fifth of whose samples are copies."""
    images, labels = copies(round(COPIED * len(HONEST)))
    return torch.cat([images, HONEST[len(images) :]]), torch.cat([labels, HONEST_LABELS[len(images) :]])


def near(images: Tensor, labels: Tensor) -> Nearness:
    return nearness([to_uint8(images)], labels, to_uint8(TRAIN), TRAIN_LABELS)


def test_near_duplicates_in_the_data_do_not_silence_the_score_and_count_on_both_sides() -> None:
    natural = round(0.03 * len(HELD_OUT))
    images, labels = copies(natural, 0.005, shift=False, first=1000)
    held_out = near(torch.cat([HELD_OUT[natural:], images]), torch.cat([HELD_OUT_LABELS[natural:], labels]))
    samples = near(*copier())
    for label in (1, 2):  # with them, no threshold is passed by a copy that was moved
        assert held_out.distance[held_out.labels == label].quantile(NEAR) < samples.distance[:600].min()
    images, labels = copies(natural, 0.005, shift=False, first=2000)
    honest = near(torch.cat([HONEST[natural:], images]), torch.cat([HONEST_LABELS[natural:], labels]))
    found, expected = near_copies([honest.ratio], held_out)
    assert expected.value == pytest.approx(0.03 + 0.97 * NEAR, abs=0.001)
    assert found.value == pytest.approx(expected.value, abs=2 * math.hypot(found[1], expected[1]))
    found, expected = near_copies([samples.ratio], held_out)
    assert found.value - expected.value == pytest.approx(COPIED - 0.03, abs=0.02)


def test_too_few_fresh_images_judge_no_copies() -> None:
    samples = near(*copier())
    assert near_copies([samples.ratio], near(HELD_OUT[:99], HELD_OUT_LABELS[:99])) == [NONE, NONE]
    for count in (100, 150):  # one of each is below the threshold
        found, chance = near_copies([samples.ratio], near(HELD_OUT[:count], HELD_OUT_LABELS[:count]))
        assert found.value > COPIED / 2
        assert chance.value == pytest.approx(NEAR)


def test_the_threshold_is_passed_by_one_percent_for_few_fresh_images_too() -> None:
    rng, shares = torch.Generator().manual_seed(0), []
    for _ in range(400):
        # Far from zero, so without near-duplicates.
        sets = (torch.rand(2, size, generator=rng) + 0.3 for size in (1000, 100))
        own, held_out = (Nearness(*each, torch.zeros(each.shape[1], dtype=torch.long)) for each in sets)
        found, _ = near_copies([own.ratio], held_out)
        shares.append(found.value)
    # Of the nine hundredth to first, one percent would be two with 100 images, were it the sample's own quantile.
    assert sum(shares) / len(shares) == pytest.approx(NEAR, abs=0.0012)


@pytest.mark.parametrize("move", [(0, 0), (0, 1), (-1, 0), (1, -1)])
def test_copies_that_are_moved_by_a_pixel_are_counted_and_come_first(move: tuple[int, int]) -> None:
    train, honest, held_out = (to_uint8(each) for each in (TRAIN, HONEST, HELD_OUT))
    moved = train[:150].roll(move, dims=(2, 3))
    samples, labels = torch.cat([honest[150:], moved]), torch.cat([HONEST_LABELS[150:], TRAIN_LABELS[:150]])
    ours = nearness(shifted(samples), labels, middle(train), TRAIN_LABELS)
    share, chance = near_copies([ours.ratio], nearness(shifted(held_out), HELD_OUT_LABELS, middle(train), TRAIN_LABELS))
    assert (share.value, chance.value) == pytest.approx((0.05 + 0.95 * NEAR, NEAR), abs=0.006)
    error = (0.058 * 0.942 / 3000 + NEAR / 3000) ** 0.5
    assert math.hypot(share.error or 0, chance.error or 0) == pytest.approx(error, rel=0.1)
    assert {*ours.ratio.argsort()[:150].tolist()} == {*range(2850, 3000)}
