"""The classifier: its features, and its file."""

from pathlib import Path
from typing import Any

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
from ddpm.images.card import DataCard
from ddpm.images.pixels import to_float
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from tests.networks.random_weights import randomised
from tests.small import DIGITS, FRUITS, images

CPU = torch.device("cpu")
PARAMS = ClassifierParams(channels=4, images=1000, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)


@pytest.mark.parametrize("channels", [1, 6])
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


@pytest.mark.parametrize("card", [DIGITS, FRUITS], ids=lambda card: card.name)
def test_a_saved_classifier_comes_back_the_same(card: DataCard, tmp_path: Path) -> None:
    model = to_device(randomised(Classifier(PARAMS, card)), CPU)
    for name in "ab":
        save_classifier(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_classifier(tmp_path / "a")
    assert loaded.params == model.params
    assert loaded.data == card
    assert not loaded.training
    given = images(8, card.shape)
    for ours, theirs in zip(*(features_and_logits(each, given, CPU) for each in (model, loaded)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, Classifier(PARAMS, DIGITS))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_classifier(path)
    return str(caught.value)


def test_files_of_something_else_are_refused(path: Path) -> None:
    weights, metadata = load_arrays(path)
    wrong: list[dict[str, Any]] = [
        {"card": {}},
        {"classifier": metadata["classifier"]},  # no data card
        {**metadata, "classifier": {**PARAMS.model_dump(), "channels": 0}},
        {**metadata, "classifier": {**PARAMS.model_dump(), "channels": 5}},  # of another width
        {**metadata, "data": FRUITS.model_dump(mode="json")},
    ]
    for each in wrong:
        save_arrays(path, weights, each)
        assert refusal(path).startswith(f"{path}: ")
    for data in (path.read_bytes()[:-10], b"PK\3\4 a zip file, such as torch.save writes"):
        path.write_bytes(data)
        assert refusal(path).startswith(f"{path}: ")
    path.unlink()
    assert refusal(path).startswith(f"{path}: ")


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
    [(60_000, 3), (72_001, 2), (10**9, 1), (4500, 40), (4600, 39)],
)
def test_an_image_is_seen_so_often_that_together_they_are_enough(count: int, epochs: int) -> None:
    """But not more often than the params allow, and once at least."""
    params = PARAMS.model_copy(update={"images": 180_000, "epochs": 40})
    assert params.epochs_of(count) == epochs
