from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.networks.classifier import (
    Classifier,
    ClassifierParams,
    accuracy,
    features_and_logits,
    load_classifier,
    save_classifier,
)
from ddpm.runtime.arrays import load_arrays, save_arrays
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


def random_images(count: int) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_features_are_the_means_of_the_last_level(channels: int) -> None:
    model = Classifier(PARAMS.model_copy(update={"channels": channels})).eval()
    images = random_images(3)
    with torch.no_grad():
        maps, features, logits = model.levels(images), model.features(images), model(images)
    assert maps.shape == (3, 4 * channels, 4, 4)  # 28, 14, 7, 4
    assert model.num_features == 4 * channels
    torch.testing.assert_close(features, maps.flatten(2).mean(2))
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)
    assert logits.shape == (3, 10)


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


def test_features_and_logits_go_over_all_batches_in_evaluation_mode() -> None:
    model = Classifier(PARAMS.model_copy(update={"channels": 1})).train()
    images = random_images(1003)  # a batch and a rest
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features, logits = features_and_logits(model, images, CPU)
    assert not model.training
    assert features.shape == (1003, 4)
    assert logits.shape == (1003, 10)
    with torch.no_grad():
        torch.testing.assert_close(features[[0, 999, 1000, 1002]], model.features(images[[0, 999, 1000, 1002]]))
        torch.testing.assert_close(logits[-3:], model(images[-3:]))
    for name, value in model.state_dict().items():  # the running means of BatchNorm among them
        assert torch.equal(value, before[name]), name


def test_a_saved_classifier_comes_back_the_same(tmp_path: Path) -> None:
    model, _ = trained(PARAMS.model_copy(update={"epochs": 1}))
    save_classifier(tmp_path / "classifier.safetensors", model)
    loaded = load_classifier(tmp_path / "classifier.safetensors")
    assert loaded.params == model.params
    assert not loaded.training
    images = random_images(8)
    for ours, theirs in zip(
        features_and_logits(model, images, CPU), features_and_logits(loaded, images, CPU), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_equal_classifiers_give_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        torch.manual_seed(0)
        save_classifier(tmp_path / name, Classifier(PARAMS))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, Classifier(PARAMS))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_classifier(path)
    return str(caught.value)


def test_a_foreign_file_is_refused(path: Path) -> None:
    save_arrays(path, load_arrays(path)[0], {"card": {}})
    assert refusal(path) == f"{path}: not a classifier file of this project"


def test_a_cut_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])
    assert refusal(path).startswith(f"{path}: not a file of this pipeline, or damaged (")


def test_something_else_is_refused(path: Path) -> None:
    path.write_bytes(b"PK\3\4 a zip file, such as torch.save writes")
    assert refusal(path).startswith(f"{path}: not a file of this pipeline, or damaged (")


def test_a_missing_file_is_refused(path: Path) -> None:
    path.unlink()
    assert refusal(path).startswith(f"{path}: no such file; `dvc pull` or `dvc repro`")


def test_weights_of_another_width_are_refused(path: Path) -> None:
    wider = PARAMS.model_copy(update={"channels": 5})
    save_arrays(path, load_arrays(path)[0], {"classifier": wider.model_dump()})
    assert f"{path}: the weights do not fit the network that the file describes" in refusal(path)


def test_invalid_params_in_the_file_are_refused(path: Path) -> None:
    save_arrays(path, load_arrays(path)[0], {"classifier": {**PARAMS.model_dump(), "channels": 0}})
    assert refusal(path).startswith(f"{path}: 1 invalid\n  channels: ")
