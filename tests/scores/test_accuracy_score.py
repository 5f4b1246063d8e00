"""The classification accuracy score: from which images and labels is learned."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile
from ddpm.scores import accuracy_score as module
from ddpm.scores.accuracy_score import accuracy_score
from ddpm.scores.classifier import Classifier, Recipe, features_and_logits
from tests.small import CPU, DIGITS, images
from tests.stages.written import classifier_params

LABELS = torch.arange(90) % 10
ASKED = torch.arange(30) % 7
SEEN = images(30)
torch.manual_seed(0)
JUDGE = Classifier(classifier_params(images_seen=450, epochs=40, seed=1), DIGITS)
LOGITS = features_and_logits(JUDGE, SEEN, CPU.device)[1]


def real(count: int) -> SplitFile:
    """Images that are numbered by the level of a pixel."""
    numbered = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    numbered[:, 0, 0, 0] = torch.arange(count)
    return SplitFile(DIGITS, Split(numbered, LABELS[:count]), torch.arange(count), ())


class Learned(list[tuple[Split, Recipe]]):
    """What a classifier was to learn from, and how, in order."""

    def fit(
        self, _name: str, trainings: Sequence[tuple[Split, Recipe]], data: DataCard, _runtime: Any
    ) -> list[Classifier]:
        self += trainings
        return [Classifier(recipe, data) for _, recipe in trainings]


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> Learned:
    found = Learned()
    monkeypatch.setattr(module, "fit_classifiers", found.fit)
    monkeypatch.setattr(module, "CLASSIFIERS", 2)
    return found


def score(labels: Tensor | None, classes: Sequence[int] = range(10)) -> dict[str, Any]:
    return accuracy_score((SEEN, labels), [*classes], real(90), real(40), JUDGE, 20, CPU)


@pytest.mark.parametrize(("classes", "count"), [([*range(10)], 20), ([3, 5], 18)])
def test_without_such_classifier_b_gives_them_of_the_classes_sampled(
    learned: Learned, classes: list[int], count: int
) -> None:
    found = score(None, classes)  # of threes and fives there are 18 real images
    assert torch.equal(learned[0][0].labels, torch.tensor(classes)[LOGITS[:count, classes].argmax(1)])
    assert (found["count"], found["samples"]["labels"]) == (count, "classifier b")


def test_as_b_was_it_learns_from_what_was_asked_for_and_from_a_random_subset_of_real_images(learned: Learned) -> None:
    found = score(ASKED)
    assert torch.equal(learned[0][0].images, SEEN[:20])
    assert torch.equal(learned[0][0].labels, ASKED[:20])
    assert (found["count"], found["samples"]["labels"]) == (20, "asked for")
    for number, (_, recipe) in enumerate(learned):
        # Of 90 images b has seen 450.
        assert recipe == classifier_params(images_seen=100, epochs=40, seed=2 + number // 2)
    score(ASKED)
    first, second, again = (learned[index][0] for index in (1, 3, 5))
    numbers = first.images[:, 0, 0, 0].long()
    assert not torch.equal(first.images, second.images)  # each classifier has a subset of its own
    assert numbers.max() > 40  # the first twenty of the file are no sample
    assert torch.equal(first.labels, LABELS[numbers])
    assert torch.equal(first.images, again.images)


def test_the_score_is_the_mean_of_several_classifiers_with_their_deviation(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.875, 0.75, 0.625])  # from samples and from real images, in turn
    monkeypatch.setattr(module, "accuracy", lambda *_: next(accuracies))
    found = score(ASKED)
    assert len(learned) == found["classifiers"] * 2 == 4
    assert (found["samples"]["accuracy"], found["real"]["accuracy"]) == (0.625, 0.75)
    assert found["samples"]["accuracy_deviation"] == found["real"]["accuracy_deviation"] == round(0.125 * 2**0.5, 6)


def test_of_one_class_there_is_no_score(learned: Learned) -> None:
    assert score(torch.full((30,), 7), [7]) == {"count": 0, "samples": None, "real": None}
    assert not learned
