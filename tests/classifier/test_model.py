"""The classifier: its features, and its file."""

from pathlib import Path

import pytest
import torch

from ddpm.classifier.model import (
    FLIPS,
    Classifier,
    ClassifierParams,
    accuracy,
    features_and_logits,
    load_classifier,
    save_classifier,
)
from ddpm.compute.device import to_device
from ddpm.images.pixels import to_float
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from tests.networks.random_weights import randomised
from tests.small import DIGITS, FRUITS, images

CPU = torch.device("cpu")
PARAMS = ClassifierParams(channels=4, images=1000, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_features_are_the_means_of_the_last_level(channels: int) -> None:
    model = Classifier(PARAMS.model_copy(update={"channels": channels}), DIGITS).eval()
    x = to_float(images(3))
    with torch.no_grad():
        maps, features, logits = model.levels(x), model.features(x), model(x)
    assert maps.shape == (3, 4 * channels, 4, 4)  # 28, 14, 7, 4
    assert model.num_features == 4 * channels
    torch.testing.assert_close(features, maps.flatten(2).mean(2))
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)
    assert logits.shape == (3, 10)


def test_features_and_logits_go_over_all_batches_in_evaluation_mode() -> None:
    model = Classifier(PARAMS.model_copy(update={"channels": 1}), DIGITS).train()
    given = images(1003)  # a batch and a rest
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features, logits = features_and_logits(model, given, CPU)
    assert not model.training
    assert features.shape == (1003, 4)
    assert logits.shape == (1003, 10)
    with torch.no_grad():
        some = [0, 999, 1000, 1002]
        torch.testing.assert_close(features[some], model.features(to_float(given[some])))
        torch.testing.assert_close(logits[-3:], model(to_float(given[-3:])))
    for name, value in model.state_dict().items():  # the running means of BatchNorm among them
        assert torch.equal(value, before[name]), name


def test_a_saved_classifier_comes_back_the_same(tmp_path: Path) -> None:
    model = to_device(randomised(Classifier(PARAMS, DIGITS)), CPU)
    save_classifier(tmp_path / "classifier.safetensors", model)
    loaded = load_classifier(tmp_path / "classifier.safetensors")
    assert loaded.params == model.params
    assert loaded.data == DIGITS
    assert not loaded.training
    for ours, theirs in zip(
        features_and_logits(model, images(8), CPU), features_and_logits(loaded, images(8), CPU), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_equal_classifiers_give_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        torch.manual_seed(0)
        save_classifier(tmp_path / name, Classifier(PARAMS, DIGITS))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, Classifier(PARAMS, DIGITS))
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
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, {**metadata, "classifier": wider.model_dump()})
    assert f"{path}: the weights do not fit the network that the file describes" in refusal(path)


def test_invalid_params_in_the_file_are_refused(path: Path) -> None:
    save_arrays(path, load_arrays(path)[0], {"classifier": {**PARAMS.model_dump(), "channels": 0}})
    assert refusal(path).startswith(f"{path}: 1 invalid\n  channels: ")


def test_a_classifier_of_other_images_is_refused(path: Path) -> None:
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, {"classifier": metadata["classifier"]})
    assert refusal(path) == f"{path}: has no data card; `dvc repro` makes it anew"
    save_arrays(path, arrays, {**metadata, "data": FRUITS.model_dump(mode="json")})
    assert f"{path}: the weights do not fit the network that the file describes" in refusal(path)


def test_images_of_any_shape_and_classes_are_taken(tmp_path: Path) -> None:
    model = randomised(Classifier(PARAMS, FRUITS))
    features, logits = features_and_logits(model, images(5, FRUITS.shape), CPU)
    assert features.shape == (5, 16)
    assert logits.shape == (5, 3)
    assert model.knows_classes
    save_classifier(tmp_path / "classifier", model)
    loaded = load_classifier(tmp_path / "classifier")
    assert loaded.data == FRUITS
    assert torch.equal(features_and_logits(loaded, images(5, FRUITS.shape), CPU)[1], logits)


def test_of_one_class_the_logits_tell_flips(tmp_path: Path) -> None:
    model = Classifier(PARAMS, FRUITS.model_copy(update={"classes": ("pear",)}))
    assert not model.knows_classes
    assert model.head.out_features == FLIPS == 4
    save_classifier(tmp_path / "classifier", model)
    loaded = load_classifier(tmp_path / "classifier")
    assert not loaded.knows_classes
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_accuracy_is_the_share_of_images_that_get_their_label() -> None:
    model = randomised(Classifier(PARAMS, FRUITS))
    given = images(40, FRUITS.shape)
    found = features_and_logits(model, given, CPU)[1].argmax(1)
    assert accuracy(model, given, found, CPU) == 1
    wrong = found.clone()
    wrong[:10] = (found[:10] + 1) % 3
    assert accuracy(model, given, wrong, CPU) == 0.75


@pytest.mark.parametrize(
    ("count", "epochs"),
    [(60_000, 3), (70_000, 3), (72_001, 2), (180_000, 1), (10**9, 1), (1000, 40), (4500, 40), (4600, 39)],
)
def test_an_image_is_seen_so_often_that_together_they_are_enough(count: int, epochs: int) -> None:
    """But not more often than the params allow, and once at least."""
    params = PARAMS.model_copy(update={"images": 180_000, "epochs": 40})
    assert params.epochs_of(count) == epochs
