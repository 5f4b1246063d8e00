"""The classification accuracy score: from which images and labels is learned."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.classifier.model import Classifier, ClassifierParams, features_and_logits, load_classifier, save_classifier
from ddpm.images.card import DataCard
from ddpm.images.splits import Split
from ddpm.pipeline.stage import Stage
from stages import classification_accuracy_score as stage
from tests.small import DIGITS, images
from tests.stages.written import classifier_params, write_samples, write_split

TRAIN_LABELS = torch.arange(90) % 10
ASKED = torch.arange(30) % 7
ONE_CLASS = DIGITS.model_copy(update={"classes": ("kite",)})
CPU = torch.device("cpu")


class Learned(list[tuple[Split, ClassifierParams]]):
    """What a classifier was to learn from, and how, in order."""

    def fit(self, _name: str, train: Split, data: DataCard, params: ClassifierParams, _runtime: Any) -> Classifier:
        self.append((train, params))
        torch.manual_seed(len(self))
        return Classifier(params, data)


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Learned]:
    """A folder with all but the samples; the training images are numbered by the level of a pixel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    Path("params.yaml").write_text("classification_accuracy_score: {count: 20, classifiers: 2}\n")
    judge(DIGITS)
    numbered = torch.zeros(90, 1, 28, 28, dtype=torch.uint8)
    numbered[:, 0, 0, 0] = torch.arange(90)
    for name, count in (("train", 90), ("test", 40)):
        write_split(name, DIGITS, numbered[:count], TRAIN_LABELS[:count])
    found = Learned()
    monkeypatch.setattr(stage, "fit_classifier", found.fit)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield found
    torch.use_deterministic_algorithms(deterministic)


def judge(card: DataCard) -> None:
    """Write classifier b."""
    torch.manual_seed(0)
    params = classifier_params(images=450, epochs=40, seed=5)
    save_classifier(Path("models/classifier-b.safetensors"), Classifier(params, card))


def drawn(labels: Tensor | None) -> Tensor:
    """Write samples, and return them."""
    write_samples("filtered", DIGITS, images(30), labels, [*range(10)])
    return images(30)


def scores() -> dict[str, Any]:
    stage.main(Stage("classification_accuracy_score"))
    return json.loads(Path("metrics/classification_accuracy_score/accuracy.json").read_text())


def test_samples_have_the_labels_that_were_asked_for(learned: Learned) -> None:
    seen = drawn(ASKED)
    found = scores()
    assert torch.equal(learned[0][0].images, seen[:20])
    assert torch.equal(learned[0][0].labels, ASKED[:20])
    assert (found["count"], found["samples"]["labels"]) == (20, "asked for")
    assert 0 <= found["samples"]["accuracy"] <= 1


def test_without_such_classifier_b_gives_them(learned: Learned) -> None:
    seen = drawn(None)
    judge = load_classifier(Path("models/classifier-b.safetensors"))
    found = scores()
    assert torch.equal(learned[0][0].labels, features_and_logits(judge, seen[:20], CPU)[1].argmax(1))
    assert found["samples"]["labels"] == "classifier b"


def test_real_images_are_a_random_subset_with_their_true_labels(learned: Learned) -> None:
    drawn(ASKED)
    scores()
    scores()
    _, ((first, labels), _), _, ((second, _), _), _, ((again, _), _), _, _ = learned
    numbers = first[:, 0, 0, 0].long()
    assert not torch.equal(first, second)  # each classifier has a subset of its own
    assert len(set(numbers.tolist())) == 20
    assert numbers.max() > 40  # the first twenty of the file are no sample
    assert torch.equal(labels, TRAIN_LABELS[numbers])
    assert torch.equal(first, again)


def test_it_is_learned_as_classifier_b_was_for_as_many_epochs_of_fewer_images(learned: Learned) -> None:
    drawn(ASKED)
    scores()
    for number, (_, params) in enumerate(learned):
        assert params == classifier_params(images=100, epochs=5, seed=6 + number // 2)  # of 90 images b has seen 450
        assert params.epochs_of(20) == 5


def test_the_score_is_the_mean_of_several_classifiers_with_their_deviation(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(ASKED)
    accuracies = iter([0.5, 0.875, 0.75, 0.625])  # from samples and from real images, in turn
    monkeypatch.setattr(stage, "accuracy", lambda *_: next(accuracies))
    found = scores()
    assert len(learned) == found["classifiers"] * 2 == 4
    assert (found["samples"]["accuracy"], found["real"]["accuracy"]) == (0.625, 0.75)
    assert found["samples"]["accuracy_deviation"] == found["real"]["accuracy_deviation"] == round(0.125 * 2**0.5, 6)


def test_of_one_classifier_there_is_no_deviation(learned: Learned) -> None:
    drawn(ASKED)
    Path("params.yaml").write_text("classification_accuracy_score: {count: 20, classifiers: 1}\n")
    found = scores()
    assert len(learned) == 2
    assert found["samples"].keys() == {"accuracy", "labels"}
    assert found["real"].keys() == {"accuracy"}


def test_classifier_b_gives_no_class_that_is_not_drawn(learned: Learned) -> None:
    seen = images(30)
    write_samples("filtered", DIGITS, seen, None, [3, 5])
    judge = load_classifier(Path("models/classifier-b.safetensors"))
    scores()
    logits = features_and_logits(judge, seen[:18], CPU)[1]  # as many as there are real images of these
    assert torch.equal(learned[0][0].labels, torch.tensor([3, 5])[logits[:, [3, 5]].argmax(1)])
    assert not torch.equal(learned[0][0].labels, logits.argmax(1))


@pytest.mark.parametrize(("card", "labels", "classes"), [(ONE_CLASS, None, [0]), (DIGITS, torch.full((30,), 7), [7])])
def test_of_one_class_there_is_no_score(
    learned: Learned, card: DataCard, labels: Tensor | None, classes: list[int]
) -> None:
    write_samples("filtered", card, images(30), labels, classes)
    judge(card)
    assert scores() == {"count": 0, "samples": None, "real": None}
    assert not learned
