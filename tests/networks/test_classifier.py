"""The classifier: its features, and its file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.networks.classifier import (
    Classifier,
    ClassifierParams,
    features_and_logits,
    load_classifier,
    save_classifier,
)
from ddpm.runtime.arrays import load_arrays, save_arrays
from ddpm.runtime.console import UserError
from ddpm.runtime.device import to_device
from tests.networks.random_weights import randomised

CPU = torch.device("cpu")
PARAMS = ClassifierParams(channels=4, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)


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
    model = to_device(randomised(Classifier(PARAMS)), CPU)
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
