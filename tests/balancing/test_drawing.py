"""Candidates of a class: the images of their numbers, and what a classifier makes of them."""

from pathlib import Path

import pytest
import torch

from ddpm.balancing.drawing import SPAN, Candidates, draw_class, none_drawn
from ddpm.classifier.model import Classifier
from ddpm.compute.device import Runtime
from ddpm.images.pixels import to_float, to_uint8
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import draw_batch
from tests.balancing.small_set import classifier, halving
from tests.cli.generating import CPU, sampler, tiny_model
from tests.small import FRUITS

SAMPLER = sampler(steps=2, spacing=None)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("model")
    return load_model(tiny_model(folder, class_conditional=True, data=FRUITS, counts=(30, 5, 0)))


@pytest.fixture(scope="module")
def judge(loaded: LoadedModel) -> Classifier:
    return halving(classifier(), 1, draw_class(loaded, classifier(), SAMPLER, 1, 4, 0, 20, CPU).images)


def test_image_j_of_a_class_is_that_of_its_number(loaded: LoadedModel, judge: Classifier) -> None:
    drawn = draw_class(loaded, judge, SAMPLER, 1, 4, 3, 5, CPU)
    numbers = [1_000_003, 1_000_004, 1_000_005, 1_000_006, 1_000_007]
    assert drawn.numbers.tolist() == numbers
    *_, last = draw_batch(loaded, sampler(steps=2, spacing=None, classes=["fig"]), 4, numbers, CPU)
    assert torch.equal(drawn.images, to_uint8(last.x_prev))


def test_classes_and_seeds_give_other_images(loaded: LoadedModel, judge: Classifier) -> None:
    drawn = [draw_class(loaded, judge, SAMPLER, label, seed, 0, 1, CPU) for label, seed in ((0, 0), (1, 0), (1, 1))]
    assert [int(each.numbers) for each in drawn] == [0, SPAN, SPAN]
    assert len({each.images.numpy().tobytes() for each in drawn}) == 3


def test_the_params_classes_do_not_matter(loaded: LoadedModel, judge: Classifier) -> None:
    one, other = (
        draw_class(loaded, judge, SAMPLER.model_copy(update={"classes": classes}), 1, 0, 0, 2, CPU).images
        for classes in ((), ("apple",))
    )
    assert torch.equal(one, other)


def test_the_classifier_gives_the_class_a_probability(loaded: LoadedModel, judge: Classifier) -> None:
    drawn = draw_class(loaded, judge, SAMPLER, 1, 4, 0, 20, CPU)
    with torch.inference_mode():
        expected = judge(to_float(drawn.images)).exp()
    torch.testing.assert_close(drawn.probability, expected[:, 1] / expected.sum(1))
    assert drawn.found.tolist() == expected.argmax(1).tolist()
    assert sorted(drawn.found.bincount().tolist()) == [0, 10, 10]


def test_taken_is_what_is_most_probable_and_probable_enough() -> None:
    probability = torch.tensor([0.4, 0.9, 0.45, 0.6])
    drawn = none_drawn((1, 2, 2))._replace(probability=probability, found=torch.tensor([1, 1, 2, 1]))
    assert drawn.taken(1).tolist() == [True, True, False, True]
    assert drawn.taken(1, 0.6).tolist() == [False, True, False, True]
    assert drawn.taken(2, 0.4).tolist() == [False, False, True, False]


@pytest.mark.parametrize("size", [1, 3])
def test_batches_give_the_same_images_in_order(
    size: int, loaded: LoadedModel, judge: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw_class(loaded, judge, SAMPLER, 1, 4, 0, 5, CPU)
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: size)
    parts = draw_class(loaded, judge, SAMPLER, 1, 4, 0, 5, CPU)
    assert parts.numbers.tolist() == whole.numbers.tolist()
    assert (parts.images.int() - whole.images.int()).abs().max() <= 1


def test_each_step_is_told_and_may_end_it(
    loaded: LoadedModel, judge: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 3)
    told: list[int] = []
    draw_class(loaded, judge, SAMPLER, 1, 4, 0, 5, CPU, told.append)
    assert told == [3, 3, 2, 2]

    def end(_: int) -> None:
        raise UserError("enough")

    with pytest.raises(UserError, match=r"^enough$"):
        draw_class(loaded, judge, SAMPLER, 1, 4, 0, 5, CPU, end)


def test_none_are_drawn_where_none_are_asked_for(loaded: LoadedModel, judge: Classifier) -> None:
    drawn = draw_class(loaded, judge, SAMPLER, 1, 0, 7, 0, CPU)
    assert drawn.images.shape == (0, 3, 16, 8)
    assert drawn.joined(drawn).numbers.tolist() == []


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (SPAN, 1), (SPAN - 1, 2), (0, -1)])
def test_numbers_of_another_class_are_refused(first: int, count: int, loaded: LoadedModel, judge: Classifier) -> None:
    with pytest.raises(ValueError, match="of a class, which has 1000000"):
        draw_class(loaded, judge, SAMPLER, 1, 0, first, count, CPU)


def test_a_class_that_the_model_has_not_seen_is_refused(loaded: LoadedModel, judge: Classifier) -> None:
    with pytest.raises(UserError, match=r"^classes: the model has not seen pear; choose from apple, fig$"):
        draw_class(loaded, judge, SAMPLER, 2, 0, 0, 1, CPU)


def test_a_classifier_of_one_class_is_refused(loaded: LoadedModel) -> None:
    alone = classifier(FRUITS.model_copy(update={"classes": ("apple",)}))
    with pytest.raises(UserError, match=r"^the classifier is of one class alone"):
        draw_class(loaded, alone, SAMPLER, 0, 0, 0, 1, CPU)


def test_candidates_are_joined_in_order() -> None:
    one = Candidates(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([5]), torch.ones(1), torch.tensor([1]))
    both = none_drawn((1, 2, 2)).joined(one).joined(one._replace(numbers=torch.tensor([6])))
    assert both.numbers.tolist() == [5, 6]
    assert both.images.dtype == torch.uint8
    assert both.found.dtype == torch.int64
