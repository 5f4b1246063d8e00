"""Candidates of a class: the images of their numbers, and what a classifier makes of them."""

from pathlib import Path

import pytest
import torch

from ddpm.balancing.candidates import SPAN, Candidates, sample_class
from ddpm.classifier.model import Classifier
from ddpm.images.splits import to_float, to_uint8
from ddpm.model import LoadedModel, load_model
from ddpm.sample import sample_batch
from tests.balancing.small_set import classifier, halving
from tests.cli.generating import sampler, tiny_model
from tests.small import CPU, FRUITS

SAMPLER = sampler(steps=2, spacing=None)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("model")
    return load_model(tiny_model(folder, class_conditional=True, data=FRUITS, counts=(30, 5, 0)))


@pytest.fixture(scope="module")
def judge(loaded: LoadedModel) -> Classifier:
    return halving(classifier(), 1, sample_class(loaded, classifier(), SAMPLER, 1, 4, 0, 20, CPU).images)


def test_image_j_of_a_class_is_that_of_its_number(loaded: LoadedModel, judge: Classifier) -> None:
    others = SAMPLER.model_copy(update={"classes": ("apple",)})
    sampled = sample_class(loaded, judge, others, 1, 4, 3, 5, CPU)
    numbers = [*range(SPAN + 3, SPAN + 8)]
    assert sampled.numbers.tolist() == numbers
    *_, last = sample_batch(loaded, sampler(steps=2, spacing=None, classes=["fig"]), 4, numbers, CPU)
    assert torch.equal(sampled.images, to_uint8(last.x_prev))


def test_the_classifier_gives_the_class_a_probability(loaded: LoadedModel, judge: Classifier) -> None:
    sampled = sample_class(loaded, judge, SAMPLER, 1, 4, 0, 20, CPU)
    with torch.inference_mode():
        expected = judge(to_float(sampled.images)).exp()
    torch.testing.assert_close(sampled.probability, expected[:, 1] / expected.sum(1))
    assert sampled.found.tolist() == expected.argmax(1).tolist()
    assert sorted(sampled.found.bincount().tolist()) == [0, 10, 10]


def test_taken_is_what_is_most_probable_and_probable_enough() -> None:
    probability, found = torch.tensor([0.4, 0.9, 0.45, 0.6]), torch.tensor([1, 1, 2, 1])
    sampled = Candidates(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4), probability, found)
    assert sampled.taken(1).tolist() == [True, True, False, True]
    assert sampled.taken(1, 0.6).tolist() == [False, True, False, True]
    assert sampled.taken(2, 0.4).tolist() == [False, False, True, False]
