"""The classification accuracy score: from which images and labels is learned."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.data.images import to_float
from ddpm.networks.classifier import Classifier, ClassifierParams, features_and_logits, load_classifier, save_classifier
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.stage import Stage
from stages import classification_accuracy_score as stage
from tests.small import images

TRAIN_LABELS = (torch.arange(90) % 10).to(torch.uint8)
ASKED = (torch.arange(30) % 7).to(torch.uint8)
CPU = torch.device("cpu")


class Learned(list[tuple[Tensor, Tensor]]):
    """What a classifier was to learn from, in order."""

    def fit(self, _name: str, images: Tensor, labels: Tensor, params: ClassifierParams, _runtime: Any) -> Classifier:
        self.append((images, labels))
        torch.manual_seed(len(self))
        return Classifier(params)


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Learned]:
    """A folder with all but the samples; the training images are numbered by the level of a pixel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    Path("params.yaml").write_text("classification_accuracy_score: {count: 20}\n")
    torch.manual_seed(0)
    params = ClassifierParams(channels=2, epochs=1, batch_size=2, lr=0.01, shift=0, seed=0)
    save_classifier(Path("models/classifier-b.safetensors"), Classifier(params))
    numbered = torch.zeros(90, 1, 28, 28)
    numbered[:, 0, 0, 0] = torch.arange(90.0)
    for name, count in (("train", 90), ("test", 40)):
        arrays = {"images": numbered[:count], "labels": TRAIN_LABELS[:count]}
        save_arrays(Path(f"data/processed/{name}.safetensors"), arrays)
    found = Learned()
    monkeypatch.setattr(stage, "fit_classifier", found.fit)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield found
    torch.use_deterministic_algorithms(deterministic)


def drawn(labels: dict[str, Tensor]) -> Tensor:
    """Write samples, uint8, and return them as the classifiers see them."""
    levels = ((images(30) / 2 + 0.5) * 255).round().to(torch.uint8)
    frames = {"x_t": levels[:0, None].clone(), "pred_x_start": levels[:0, None].clone()}
    card = {"classes": [*range(10)]}
    save_arrays(Path("data/samples/population.safetensors"), {"images": levels, **frames, **labels}, card)
    return to_float(levels)


def scores() -> dict[str, Any]:
    stage.main(Stage("classification_accuracy_score"))
    return json.loads(Path("metrics/classification_accuracy_score/accuracy.json").read_text())


def test_samples_have_the_labels_that_were_asked_for(learned: Learned) -> None:
    seen = drawn({"labels": ASKED})
    found = scores()
    assert torch.equal(learned[0][0], seen[:20])
    assert torch.equal(learned[0][1], ASKED[:20])
    assert (found["count"], found["samples"]["labels"]) == (20, "asked for")
    assert 0 <= found["samples"]["accuracy"] <= 1


def test_without_such_classifier_b_gives_them(learned: Learned) -> None:
    seen = drawn({})
    judge = load_classifier(Path("models/classifier-b.safetensors"))
    found = scores()
    assert torch.equal(learned[0][1], features_and_logits(judge, seen[:20], CPU)[1].argmax(1))
    assert found["samples"]["labels"] == "classifier b"


def test_real_images_are_a_random_subset_with_their_true_labels(learned: Learned) -> None:
    drawn({"labels": ASKED})
    scores()
    scores()
    (_, (first, labels), _, (again, _)) = learned
    numbers = first[:, 0, 0, 0].long()
    assert len(set(numbers.tolist())) == 20
    assert numbers.max() > 40  # the first twenty of the file are no sample
    assert torch.equal(labels, TRAIN_LABELS[numbers])
    assert torch.equal(first, again)
