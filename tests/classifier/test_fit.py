"""Training the classifier: what it learns, and that its seed decides all of it."""

import math
import statistics
import sys

import pytest
import torch

from ddpm.classifier import fit as module
from ddpm.classifier.fit import (
    background_of,
    fit_classifier,
    flipped,
    shifted,
    total_steps,
    train_classifier,
    watch,
)
from ddpm.classifier.model import Classifier, ClassifierParams, accuracy, features_and_logits
from ddpm.compute.device import Runtime
from ddpm.images.card import DataCard
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError
from tests.like_a_gpu import Operations
from tests.small import DIGITS, FRUITS, images

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, torch.float32)
PARAMS = ClassifierParams(channels=4, images=10**6, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)
PEARS = FRUITS.model_copy(update={"classes": ("pear",)})


def separable(count: int) -> Split:
    """Rows for label 2, columns for label 5, all dark for label 9; a little noise makes the images differ."""
    pictures = torch.zeros(3, 1, 28, 28)
    pictures[0, :, ::4] = 255
    pictures[1, :, :, ::4] = 255
    kind = torch.arange(count) % 3
    noise = 6 * torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return Split((pictures[kind] + noise).clamp(0, 255).to(torch.uint8), torch.tensor([2, 5, 9])[kind])


def trained(params: ClassifierParams = PARAMS) -> tuple[Classifier, list[torch.Tensor]]:
    torch.manual_seed(params.seed)
    model = Classifier(params, DIGITS)
    return model, list(train_classifier(model, separable(207), params, RUNTIME))


# --- what is done to the images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, -1), (-2, 2), (4, 3)])
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 8)])
def test_shift_moves_the_content_and_background_comes_in(shape: tuple[int, int, int], dx: int, dy: int) -> None:
    channels, height, width = shape
    given = torch.arange(2 * channels * height * width, dtype=torch.float32).view(2, *shape)
    background = torch.tensor([-1, 0.5, 0.25])[:channels].view(1, channels, 1, 1)
    expected = background.expand(2, *shape).clone()
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                expected[..., y, x] = given[..., y + dy, x + dx]
    assert torch.equal(shifted(given, dx, dy, background), expected)


def test_the_background_is_the_median_along_the_edges_of_all_images_in_each_colour() -> None:
    given = images(4, FRUITS.shape)
    given[:, 0, :, 0] = given[:, 0, :, -1] = 77
    for channel, level in enumerate(background_of(given).flatten().tolist()):
        edges = []
        for image in given[:, channel].tolist():
            edges += [*image[0], *image[-1], *(row[0] for row in image), *(row[-1] for row in image)]
        assert level == pytest.approx(statistics.median_low(edges) / 127.5 - 1, abs=1e-6)
    assert background_of(given).shape == (1, 3, 1, 1)
    assert background_of(torch.full((2, 1, 1, 1), 255, dtype=torch.uint8)).tolist() == [[[[1.0]]]]


def test_the_background_of_digits_is_black_and_of_pictures_on_white_it_is_white() -> None:
    for around, inside in ((0, 255), (255, 0)):
        given = torch.full((3, 1, 28, 28), around, dtype=torch.uint8)
        given[:, :, 4:24, 4:24] = inside
        given[0] = inside  # but for one that is not as the others
        assert background_of(given).item() == around / 127.5 - 1


def test_flips_are_across_and_upside_down() -> None:
    given = to_float(images(4, FRUITS.shape))
    found = flipped(given, torch.arange(4))
    for image, expected in zip(found, [given[0], given[1].flip(2), given[2].flip(1), given[3].flip(1, 2)], strict=True):
        assert torch.equal(image, expected)
    assert torch.equal(flipped(found, torch.arange(4)), given)


def test_batches_are_shifted_by_no_more_than_the_params_say(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = set()

    def record(given: torch.Tensor, dx: int, dy: int, background: torch.Tensor) -> torch.Tensor:
        assert torch.equal(background, background_of(separable(20).images))
        moves.add((dx, dy))
        return given

    monkeypatch.setattr(module, "shifted", record)
    params = PARAMS.model_copy(update={"epochs": 60, "batch_size": 10, "channels": 1})
    list(train_classifier(Classifier(params, DIGITS), separable(20), params, RUNTIME))
    assert moves == {(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}


# --- what it learns --------------------------------------------------------------------------------------------------


def test_training_separates_easy_images() -> None:
    model, losses = trained()
    assert len(losses) == total_steps(PARAMS, 207) == 6 * (207 // 20)
    assert losses[0] > 2
    assert losses[-1] < 0.1
    assert not model.training
    found, labels = separable(100)
    _, logits = features_and_logits(model, found, CPU)
    assert torch.equal(logits.argmax(1), labels)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    params = PARAMS.model_copy(update={"epochs": 1})
    (first, losses), (second, losses_again) = trained(params), trained(params)
    assert losses == losses_again
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    other, _ = trained(params.model_copy(update={"seed": 4}))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_the_order_of_the_batches_is_the_params_seed() -> None:
    """From the same first weights: the seed of the params alone decides."""
    losses = []
    for seed in (3, 3, 4):
        params = PARAMS.model_copy(update={"epochs": 1, "seed": seed})
        torch.manual_seed(0)
        losses.append(list(train_classifier(Classifier(params, DIGITS), separable(60), params, RUNTIME)))
    assert losses[0] == losses[1] != losses[2]


def test_five_steps_are_a_cycle_as_well() -> None:
    params = PARAMS.model_copy(update={"epochs": 5})
    assert len(list(train_classifier(Classifier(params, DIGITS), separable(20), params, RUNTIME))) == 5


@pytest.mark.parametrize(
    ("count", "seen", "steps"),
    [(207, 300, 10), (207, 311, 20), (40, 10**6, 12), (40, 1, 2), (30, 1, 2), (39, 1, 3), (19, 1, 1)],
)
def test_the_steps_are_those_of_whole_epochs(count: int, seen: int, steps: int) -> None:
    params = PARAMS.model_copy(update={"images": seen, "channels": 1})
    model = Classifier(params, DIGITS)
    assert len(list(train_classifier(model, separable(count), params, RUNTIME))) == total_steps(params, count) == steps


@pytest.mark.parametrize(("count", "sizes"), [(207, [20] * 10), (30, [15, 15]), (39, [13] * 3), (50, [10] * 5)])
def test_batches_are_smaller_where_they_would_leave_many_images_out(
    count: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def record(given: torch.Tensor, dx: int, dy: int, background: torch.Tensor) -> torch.Tensor:
        found.append(len(given))
        return given

    monkeypatch.setattr(module, "shifted", record)
    params = PARAMS.model_copy(update={"epochs": 1, "channels": 1})
    list(train_classifier(Classifier(params, DIGITS), separable(count), params, RUNTIME))
    assert found == sizes


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    params = PARAMS.model_copy(update={"epochs": 40, "shift": 0})
    torch.manual_seed(0)
    model = Classifier(params, DIGITS)
    assert len(list(train_classifier(model, separable(9), params, RUNTIME))) == total_steps(params, 9) == 40
    assert accuracy(model, *separable(9), CPU) == 1


def test_fitting_trains() -> None:
    found, labels = separable(207)
    model = fit_classifier("fit", Split(found, labels), DIGITS, PARAMS, RUNTIME)
    assert model.data == DIGITS
    assert accuracy(model, found, labels, CPU) == 1
    assert accuracy(model, found, labels.flip(0), CPU) < 0.6


@pytest.mark.parametrize(("steps", "bad"), [(60, 60), (60, 2), (1, 1), (50, 50)])
def test_a_loss_that_is_not_finite_names_the_learning_rate(
    steps: int, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = PARAMS.model_copy(update={"epochs": steps})
    losses = torch.full((steps,), 2.3)
    losses[bad - 1 :] = torch.nan
    monkeypatch.setattr(module, "train_classifier", lambda *_: iter(losses))
    with pytest.raises(UserError, match=r"^classifier\.lr: the loss is nan; try less than 0\.02$"):
        fit_classifier("fit", separable(20), DIGITS, params, RUNTIME)


def test_few_losses_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def is_finite(loss: float) -> bool:
        read.append(loss)
        return True

    monkeypatch.setattr(module, "READ_EVERY", 4)
    monkeypatch.setattr(math, "isfinite", is_finite)
    watch(torch.arange(1.0, 11.0), "watch", 10, "lr", 1)
    assert read == [4, 8, 10]


@pytest.mark.parametrize("card", [DIGITS, PEARS], ids=lambda card: f"{len(card.classes)} classes")
def test_no_step_waits_for_the_device(card: DataCard, monkeypatch: pytest.MonkeyPatch) -> None:
    # An optimizer counts its steps on the host.
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_value", lambda step: float(step.numpy()))
    train = Split(images(40, card.shape), torch.arange(40) % len(card.classes))
    steps = train_classifier(Classifier(PARAMS, card), train, PARAMS, RUNTIME)
    next(steps)
    with Operations() as seen:
        losses = list(steps)
    assert seen.counts["convolution_backward"] == 6 * len(losses) == 6 * 11
    assert all(loss.shape == () and not loss.requires_grad for loss in losses)


def test_colours_are_learned() -> None:
    """Of pictures that differ in nothing else."""
    labels = torch.arange(120) % 3
    given = images(120, FRUITS.shape) // 4
    given[torch.arange(120), labels] += 60
    params = PARAMS.model_copy(update={"epochs": 10})
    model = fit_classifier("fit", Split(given, labels), FRUITS, params, RUNTIME)
    assert accuracy(model, given, labels, CPU) == 1


def test_of_one_class_it_learns_which_way_an_image_is_flipped() -> None:
    def corners(count: int, seed: int) -> torch.Tensor:
        """Noise, brighter at the top left."""
        levels = torch.randint(0, 100, (count, *FRUITS.shape), generator=torch.Generator().manual_seed(seed))
        levels[:, :, :6, :3] += 150
        return levels.to(torch.uint8)

    params = PARAMS.model_copy(update={"epochs": 20, "shift": 0})
    labels = torch.zeros(200, dtype=torch.long)
    model = fit_classifier("fit", Split(corners(200, 0), labels), PEARS, params, RUNTIME)
    flips = torch.arange(100) % 4
    others = flipped(corners(100, 1), flips)
    assert accuracy(model, others, flips, CPU) > 0.95
    again = fit_classifier("fit", Split(corners(200, 0), labels), PEARS, params, RUNTIME)
    assert torch.equal(again.head.weight, model.head.weight)
