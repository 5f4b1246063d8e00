"""Training the classifier: what it learns, and that its seed decides all of it."""

import pytest
import torch
from torch import Tensor

from ddpm.networks.classifier import Classifier, ClassifierParams, accuracy, features_and_logits
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime
from ddpm.training.classifier import _shift, fit_classifier, train_classifier

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, torch.float32)
PARAMS = ClassifierParams(channels=4, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)


def separable(count: int) -> tuple[Tensor, Tensor]:
    """Rows for label 2, columns for label 5, all dark for label 9; a little noise makes the images differ."""
    pictures = torch.full((3, 1, 28, 28), -1.0)
    pictures[0, :, ::4] = 1
    pictures[1, :, :, ::4] = 1
    kind = torch.arange(count) % 3
    images = pictures[kind] + 0.05 * torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([2, 5, 9], dtype=torch.uint8)[kind]


def trained(params: ClassifierParams = PARAMS) -> tuple[Classifier, list[float]]:
    torch.manual_seed(params.seed)
    model = Classifier(params)
    return model, list(train_classifier(model, *separable(207), params, RUNTIME))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, -1), (-2, 2), (4, 3)])
def test_shift_moves_the_content_and_background_comes_in(dx: int, dy: int) -> None:
    images = torch.arange(2 * 36, dtype=torch.float32).view(2, 1, 6, 6)
    expected = torch.full_like(images, -1)
    for y in range(6):
        for x in range(6):
            if 0 <= y + dy < 6 and 0 <= x + dx < 6:
                expected[..., y, x] = images[..., y + dy, x + dx]
    assert torch.equal(_shift(images, dx, dy), expected)


def test_training_separates_easy_images() -> None:
    model, losses = trained()
    assert len(losses) == 6 * (207 // 20)
    assert losses[0] > 2
    assert losses[-1] < 0.1
    assert not model.training
    images, labels = separable(100)
    _, logits = features_and_logits(model, images, CPU)
    assert torch.equal(logits.argmax(1), labels.long())


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
        losses.append(list(train_classifier(Classifier(params), *separable(60), params, RUNTIME)))
    assert losses[0] == losses[1] != losses[2]


def test_five_steps_are_a_cycle_as_well() -> None:
    params = PARAMS.model_copy(update={"epochs": 5})
    assert len(list(train_classifier(Classifier(params), *separable(20), params, RUNTIME))) == 5


def test_fitting_trains_and_names_the_learning_rate_that_is_too_high() -> None:
    images, labels = separable(207)
    model = fit_classifier("fit", images, labels, PARAMS, RUNTIME)
    assert accuracy(model, images, labels, CPU) == 1
    assert accuracy(model, images, labels.flip(0), CPU) < 0.6
    with pytest.raises(UserError, match=r"^classifier.lr: the loss is nan; try less than 0.02$"):
        fit_classifier("fit", images * torch.nan, labels, PARAMS, RUNTIME)


def test_too_few_images_for_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 20, but there are only 19 training images"):
        next(train_classifier(Classifier(PARAMS), *separable(19), PARAMS, RUNTIME))
