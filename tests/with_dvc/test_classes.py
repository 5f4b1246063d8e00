"""Sampling the classes that are asked for, with real dvc."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ddpm.images.arrays import load_arrays
from ddpm.model import load_model
from tests.with_dvc.dvc_clone import Built, Clone, build_once, copy_clone, ran, read_json

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
POPULATION = {"sample@population", "filter", "evaluate", "classification_accuracy_score"}
BEHIND_TRAIN = {"sample@gallery", "likelihood", *POPULATION}


@pytest.fixture(scope="module")
def two_classes(pipeline: Built, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """`pipeline` trained on threes and sevens, of which the population is to be sevens; committed."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = copy_clone(pipeline.clone, folder)
        clone.edit_params({"train.classes": [3, 7], "sample.population.classes": [7], "sample.gallery.count": 40})
        output = clone.dvc("repro")
        clone.commit()
        return clone, output

    built = build_once(tmp_path_factory, worker_id, "two_classes", build)
    assert ran(built.output) == {"train", *BEHIND_TRAIN}
    return built.clone


@pytest.fixture
def changed(two_classes: Clone, tmp_path: Path) -> Iterator[Clone]:
    """A copy of `two_classes` to do as one likes with."""
    yield copy_clone(two_classes, tmp_path)
    shutil.rmtree(tmp_path)


def samples(clone: Clone, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_arrays(clone.path / f"data/samples/{name}.safetensors")


def scores(clone: Clone) -> dict[str, Any]:
    return read_json(clone.path / "metrics/evaluate/scores.json")


def test_the_classes_that_are_asked_for_are_sampled_and_scored(two_classes: Clone) -> None:
    arrays, card = samples(two_classes, "population")
    assert arrays["labels"].tolist() == [7] * 64
    assert card["classes"] == [7]
    arrays, card = samples(two_classes, "gallery")
    assert {*arrays["labels"].tolist()} == {3, 7}
    assert card["classes"] == [3, 7]
    model = load_model(two_classes.path / "models/ddpm.safetensors")
    assert model.card.class_counts == (0, 0, 0, 6131, 0, 0, 0, 6265, 0, 0)
    assert scores(two_classes)["count"] == 64  # all of them: `filter.least_probability` is 0
    assert 0 <= scores(two_classes)["samples"]["label_accuracy"] <= 1


def test_without_classes_there_are_no_labels(changed: Clone) -> None:
    changed.edit_params({"model.class_conditional": False, "sample.population.classes": "all"})
    assert ran(changed.dvc("repro")) == {"train", *BEHIND_TRAIN}
    for name in ("gallery", "population"):
        arrays, card = samples(changed, name)
        assert arrays.keys() == {"images", "x_t", "pred_x_start"}
        assert card["classes"] == [3, 7]
    assert "label_accuracy" not in scores(changed)["samples"]
    changed.edit_params({"sample.population.classes": [7]})
    printed = changed.run("python", "-m", "stages.sample", "population", code=1)
    assert printed.startswith("error: sample.population.classes: ")
    assert printed.count("\n") == 1
