"""Drawing the classes that are asked for, with real dvc, and what is said of those that cannot be drawn."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.classifier.model import features_and_logits, load_classifier
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.arrays import load_arrays
from tests.with_dvc.dvc_clone import Built, Clone, build_once, copy_clone, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
CPU = torch.device("cpu")
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


def test_the_classes_that_are_asked_for_are_drawn(two_classes: Clone) -> None:
    arrays, card = samples(two_classes, "population")
    assert arrays["labels"].dtype == torch.int64
    assert arrays["labels"].tolist() == [7] * 64
    assert card["classes"] == [7]
    arrays, card = samples(two_classes, "gallery")
    assert set(arrays["labels"].tolist()) == {3, 7}
    assert len(arrays["labels"]) == 40
    assert card["classes"] == [3, 7]
    model = load_model(two_classes.path / "models/ddpm.safetensors")
    assert model.card.class_counts == (0, 0, 0, 6131, 0, 0, 0, 6265, 0, 0)


def test_a_population_is_judged_by_the_labels_that_were_asked_for(two_classes: Clone) -> None:
    found = json.loads((two_classes.path / "metrics/evaluate/scores.json").read_text())
    classifier = load_classifier(two_classes.path / "models/classifier-b.safetensors")
    test = load_split(two_classes.path / "data/processed/test.safetensors").of([7])
    drawn = samples(two_classes, "filtered")[0]["images"]  # all of them: `filter.least_probability` is 0
    assert found["count"] == len(drawn) == 64
    for row, images in (("samples", drawn), ("test", test.images)):
        _, logits = features_and_logits(classifier, images, CPU)
        assert found[row]["label_accuracy"] == float(f"{(logits.argmax(1) == 7).double().mean():.4g}")


def test_other_classes_draw_the_population_alone_anew(changed: Clone) -> None:
    changed.edit_params({"sample.population.classes": [3]})
    assert ran(changed.dvc("repro")) == POPULATION
    assert samples(changed, "population")[0]["labels"].tolist() == [3] * 64


def test_a_class_that_was_never_seen_is_one_line(changed: Clone) -> None:
    changed.edit_params({"sample.population.classes": [7, 2]})
    printed = changed.run("python", "-m", "stages.sample", "population", code=1)
    assert printed == "error: sample.population.classes: the model has not seen 2; choose from 3, 7\n"
    printed = changed.dvc("repro", "sample@population", code=255)
    assert "error: sample.population.classes: the model has not seen 2; choose from 3, 7" in printed, printed
    assert "Traceback" not in printed, printed


def test_a_model_that_is_told_no_class_draws_all_and_takes_no_wish(changed: Clone) -> None:
    changed.edit_params({"model.class_conditional": False, "sample.population.classes": "all"})
    assert ran(changed.dvc("repro")) == {"train", *BEHIND_TRAIN}
    for name in ("gallery", "population"):
        arrays, card = samples(changed, name)
        assert arrays.keys() == {"images", "x_t", "pred_x_start"}
        assert card["classes"] == [3, 7]
    found = json.loads((changed.path / "metrics/evaluate/scores.json").read_text())
    assert "label_accuracy" not in found["samples"]
    assert 0 <= found["test"]["label_accuracy"] <= 1
    changed.edit_params({"sample.population.classes": [7]})
    printed = changed.run("python", "-m", "stages.sample", "population", code=1)
    assert printed == (
        "error: sample.population.classes: this model is not class-conditional; "
        "set all, or train one on only these classes\n"
    )
