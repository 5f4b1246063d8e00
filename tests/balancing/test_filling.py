"""Filling classes: which candidates are kept, which are copies, and when a class is given up."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.balancing.filling import SPAN, FillInputs, Sample, Tally, fill, threshold
from ddpm.diffusion.model import load_model
from ddpm.images.splits import Split, to_float
from ddpm.scores.classifier import features_and_logits, load_classifier
from tests.balancing.small_set import COUNTS, TESTED, forty_figs, split, written
from tests.cli.generating import sampler
from tests.small import CPU


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FillInputs:
    files = written(tmp_path_factory.mktemp("set"))
    loaded, judge = load_model(files.model), load_classifier(files.classifier)
    params = sampler(steps=3)
    return FillInputs(loaded, judge, params, 0, CPU, split(COUNTS, 1), split(TESTED, 2))


@pytest.fixture(scope="module")
def figs(inputs: FillInputs) -> tuple[Tensor, list[int]]:
    """The first forty figs, and the places of those that the filter takes for figs."""
    images = forty_figs(inputs.loaded)
    _, logits = features_and_logits(inputs.classifier, images, CPU.device)
    return images, (logits.argmax(1) == 1).nonzero().squeeze(1).tolist()


def filled(inputs: FillInputs, label: int, wanted: int) -> tuple[Tally, list[Sample]]:
    tallies, parts = zip(*fill(inputs, label, wanted), strict=True)
    return tallies[-1], [sample for part in parts for sample in part]


def places(samples: list[Sample]) -> list[int]:
    return [sample.number - SPAN for sample in samples]


@pytest.mark.parametrize(
    ("tally", "wanted", "done"),
    [
        (Tally(10, 1, 0, 9), 10, False),
        (Tally(199, 199, 0, 0), 10, False),
        (Tally(200, 200, 0, 0), 10, True),
        (Tally(500, 476, 0, 24), 1000, True),
        (Tally(500, 475, 0, 25), 1000, False),
        (Tally(SPAN, 0, 0, SPAN - 1), SPAN, True),
    ],
)
def test_a_class_is_done_when_it_is_full_or_hopeless(tally: Tally, wanted: int, done: bool) -> None:
    assert tally.done(wanted) == done


def test_classes_are_filled_with_what_passes(inputs: FillInputs, figs: tuple[Tensor, list[int]]) -> None:
    images, taken = figs
    tally, samples = filled(inputs, 1, 6)
    assert places(samples) == taken[:6]
    assert tally == Tally(taken[5] + 1, 0, taken[5] - 5, 6)
    assert torch.equal(torch.stack([sample.image for sample in samples]), images[taken[:6]])
    _, logits = features_and_logits(inputs.classifier, images, CPU.device)
    assert [sample.probability for sample in samples] == pytest.approx(
        logits.softmax(1)[taken[:6], 1].tolist(), rel=1e-5
    )


def test_the_nearest_training_image_is_of_the_class(inputs: FillInputs) -> None:
    for sample in filled(inputs, 1, 4)[1]:
        image, label = inputs.train.take(slice(sample.nearest, sample.nearest + 1))
        assert label.tolist() == [1]
        difference = to_float(sample.image) - to_float(image)
        assert sample.distance == pytest.approx(difference.square().mean().sqrt().item())


def test_what_equals_a_training_image_is_a_copy(inputs: FillInputs, figs: tuple[Tensor, list[int]]) -> None:
    images, taken = figs
    train = torch.cat([inputs.train.images, images[taken[:2]]])
    memorised = Split(train, torch.cat([inputs.train.labels, torch.tensor([1, 1])]))
    none_held_out = inputs.held_out.take(slice(0))  # so that the limit is 0
    tally, samples = filled(inputs._replace(train=memorised, held_out=none_held_out), 1, 3)
    assert tally.copies == 2
    assert places(samples) == taken[2:5]


def test_an_image_that_was_kept_before_is_a_copy(
    inputs: FillInputs, figs: tuple[Tensor, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, taken = figs
    again = images[taken[:1]].expand(16, -1, -1, -1)
    monkeypatch.setattr("ddpm.balancing.filling.sample_images", lambda *_: [(range(16), again)])
    assert filled(inputs, 1, 2)[0] == Tally(candidates=40, copies=39, filtered=0, accepted=1)


def flat(*levels: int) -> Tensor:
    """Grey images of 2 by 2 pixels (N, 1, 2, 2), each of one level."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


@pytest.mark.parametrize(
    ("held_out", "train", "level"),
    [
        pytest.param(range(50, 150), (0,), np.quantile(range(50, 150), 0.01, method="weibull"), id="1 % of a hundred"),
        pytest.param(range(50, 149), (0,), 50, id="the nearest of fewer than a hundred"),
        pytest.param((90, 40), (0, 100), 10, id="to the nearest"),
        pytest.param((0, 2, 50, 60, 70), (0,), 50, id="but for near-duplicates"),
        pytest.param((), (0, 40), 0, id="without held-out images"),
    ],
)
def test_what_is_nearer_than_held_out_is_a_copy(held_out: Sequence[int], train: Sequence[int], level: float) -> None:
    assert threshold(flat(*held_out), flat(*train)) == pytest.approx(2 / 255 * level, rel=1e-5)
