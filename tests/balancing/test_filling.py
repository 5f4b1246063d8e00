"""Filling classes: which candidates are kept, which are copies, and when a class is given up."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.balancing.filling import SPAN, Accepted, Candidates, FillInputs, Tally, fill, sample_class, threshold
from ddpm.classifier.model import load_classifier
from ddpm.images.splits import Split, to_float
from ddpm.model import load_model
from tests.balancing.small_set import COUNTS, TESTED, split, written
from tests.cli.generating import sampler
from tests.small import CPU


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FillInputs:
    files = written(tmp_path_factory.mktemp("set"))
    loaded, judge = load_model(files.model), load_classifier(files.classifier)
    params = sampler(steps=2, spacing="trailing")
    return FillInputs(loaded, judge, params, 0, CPU, split(COUNTS, 1), split(TESTED, 2), least=0.0)


@pytest.fixture(scope="module")
def sampled(inputs: FillInputs) -> Candidates:
    """The first forty figs."""
    return sample_class(*inputs[:3], 1, inputs.seed, 0, 40, CPU)


def filled(inputs: FillInputs, label: int, wanted: int) -> tuple[Tally, Accepted]:
    tallies, parts = zip(*fill(inputs, label, wanted), strict=True)
    return tallies[-1], Accepted(*map(torch.cat, zip(*parts, strict=True)))


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


def test_classes_are_filled_with_what_passes(inputs: FillInputs, sampled: Candidates) -> None:
    tally, accepted = filled(inputs, 1, 6)
    rows = (sampled.found == 1).nonzero().squeeze(1)[:6]
    assert accepted.numbers.tolist() == sampled.numbers[rows].tolist()
    assert tally == Tally(int(rows[-1]) + 1, 0, int(rows[-1]) - 5, 6)
    least = float(sampled.probability[sampled.found == 1].median())
    likely = (sampled.found == 1) & (sampled.probability >= least)
    _, accepted = filled(inputs._replace(least=least), 1, 5)
    assert accepted.numbers.tolist() == sampled.numbers[likely][:5].tolist()


def test_the_nearest_training_image_is_of_the_class(inputs: FillInputs) -> None:
    _, accepted = filled(inputs, 1, 4)
    assert inputs.train.labels[accepted.nearest].tolist() == [1] * 4
    differences = to_float(accepted.images) - to_float(inputs.train.images[accepted.nearest])
    torch.testing.assert_close(accepted.distance, differences.square().mean((1, 2, 3)).sqrt())


def test_what_equals_a_training_image_is_a_copy(inputs: FillInputs, sampled: Candidates) -> None:
    rows = (sampled.found == 1).nonzero().squeeze(1)
    images = torch.cat([inputs.train.images, sampled.images[rows[:2]]])
    memorised = Split(images, torch.cat([inputs.train.labels, torch.tensor([1, 1])]))
    none_held_out = inputs.held_out.take(slice(0))  # so that the limit is 0
    tally, accepted = filled(inputs._replace(train=memorised, held_out=none_held_out), 1, 3)
    assert tally.copies == 2
    assert accepted.numbers.tolist() == sampled.numbers[rows[2:5]].tolist()


def test_an_image_that_was_kept_before_is_a_copy(
    inputs: FillInputs, sampled: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = int((sampled.found == 1).nonzero()[0])
    again = Candidates(*(each[kept].expand(16, *each.shape[1:]) for each in sampled))
    monkeypatch.setattr("ddpm.balancing.filling.sample_class", lambda *_: again)
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
