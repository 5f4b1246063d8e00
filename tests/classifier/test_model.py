"""The classifier: its features, and its file."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.classifier.model import (
    Classifier,
    Recipe,
    features_and_logits,
    load_classifier,
    save_classifier,
)
from ddpm.compute.device import to_device
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.card import DataCard
from ddpm.images.splits import to_float
from exact_stages.console import UserError
from tests.small import DIGITS, FRUITS, images, randomised

CPU = torch.device("cpu")
RECIPE = Recipe(channels=4, images_seen=1000, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)
PEARS = FRUITS.model_copy(update={"classes": ("pear",)})


def test_features_and_logits_go_over_all_batches_in_evaluation_mode() -> None:
    model = Classifier(RECIPE.model_copy(update={"channels": 1}), DIGITS).train()
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


@pytest.mark.parametrize("card", [DIGITS, PEARS], ids=lambda card: card.name)
def test_a_saved_classifier_comes_back_the_same(card: DataCard, tmp_path: Path) -> None:
    model = to_device(randomised(Classifier(RECIPE, card)), CPU)
    for name in "ab":
        save_classifier(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_classifier(tmp_path / "a")
    assert loaded.recipe == model.recipe
    assert loaded.data == card
    assert not loaded.training
    assert loaded.head.out_features == {DIGITS: 10, PEARS: 4}[card]  # of one class, the ways to flip an image
    given = images(8, card.shape)
    for ours, theirs in zip(*(features_and_logits(each, given, CPU) for each in (model, loaded)), strict=True):
        assert torch.equal(ours, theirs)


def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, Classifier(RECIPE, DIGITS))
    weights, metadata = load_arrays(path)
    wrong: list[dict[str, Any]] = [
        {"classifier": metadata["classifier"]},  # no data card
        {**metadata, "classifier": {**RECIPE.model_dump(), "channels": 0}},
        {**metadata, "classifier": {**RECIPE.model_dump(), "channels": 5}},  # of another width
        {**metadata, "data": FRUITS.model_dump(mode="json")},
    ]
    for each in wrong:
        save_arrays(path, weights, each)
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: "):
            load_classifier(path)
