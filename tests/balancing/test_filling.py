"""Filling classes: which candidates are kept, and when a class is given up."""

import pytest
import torch

from ddpm.balancing.candidates import SPAN, Candidates, sample_class
from ddpm.balancing.filling import Accepted, FillInputs, Tally, chosen, fill
from ddpm.classifier.model import load_classifier
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.model import load_model
from tests.balancing.small_set import COUNTS, TESTED, noise, split, written
from tests.cli.generating import sampler
from tests.small import CPU


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FillInputs:
    files = written(tmp_path_factory.mktemp("set"))
    loaded, judge = load_model(files.model), load_classifier(files.classifier)
    params = sampler(steps=2, spacing=None)
    return FillInputs(loaded, judge, params, 0, CPU, split(COUNTS, 1), split(TESTED, 2), least=0.0, tries=20)


def filled(inputs: FillInputs, label: int, wanted: int) -> tuple[Tally, Accepted]:
    """The last tally, and all that is accepted."""
    tallies, parts = zip(*fill(inputs, label, wanted), strict=True)
    return tallies[-1], Accepted(*map(torch.cat, zip(*parts, strict=True)))


@pytest.mark.parametrize(
    ("tally", "wanted", "done"),
    [
        (Tally(10, 0, 0, 10), 10, True),
        (Tally(10, 1, 0, 9), 10, False),
        (Tally(199, 199, 0, 0), 10, False),
        (Tally(200, 200, 0, 0), 10, True),
        (Tally(200, 191, 0, 9), 10, True),
        (Tally(499, 499, 0, 0), 1000, False),
        (Tally(500, 476, 0, 24), 1000, True),
        (Tally(500, 475, 0, 25), 1000, False),
        (Tally(SPAN, 0, 0, SPAN - 1), SPAN, True),
    ],
)
def test_a_class_is_done_when_it_is_full_or_hopeless(tally: Tally, wanted: int, done: bool) -> None:
    assert tally.done(wanted, 20) == done


def judged(copies: str, taken: str, tally: Tally = Tally(), wanted: int = 99, tries: int = 20) -> tuple[str, Tally]:  # noqa: B008
    """Rows as text, of candidates of which the second and the fifth are equal, and the first is kept already."""
    images = noise(len(copies), 0)
    images[4] = images[1]
    sampled = Candidates(images, torch.arange(len(copies)), torch.ones(len(copies)), torch.zeros(len(copies)))
    masks = (torch.tensor([each == "x" for each in text]) for text in (copies, taken))
    rows, tally = chosen(sampled, {images[0].numpy().tobytes()}, *masks, tally, wanted, tries)
    return "".join(map(str, rows.tolist())), tally


def test_copies_and_other_classes_are_left_out_and_counted() -> None:
    assert judged("--xx--", "xxx-xx") == ("15", Tally(candidates=6, copies=4, filtered=0, accepted=2))
    assert judged("------", "xx--xx") == ("15", Tally(candidates=6, copies=2, filtered=2, accepted=2))
    assert judged("------", "x-xxxx") == ("2345", Tally(candidates=6, copies=1, filtered=1, accepted=4))


def test_no_more_are_looked_at_than_it_takes() -> None:
    assert judged("------", "xxxxxx", wanted=2) == ("12", Tally(candidates=3, copies=1, filtered=0, accepted=2))
    before = Tally(8, 7, 0, 1)
    assert judged("------", "------", before, wanted=2, tries=5) == ("", Tally(10, 8, 1, 1))


def test_classes_are_filled_with_what_passes(inputs: FillInputs) -> None:
    tally, accepted = filled(inputs, 1, 6)
    sampled = candidates_of(inputs, 1, 40)
    rows = sampled.taken(1).nonzero().squeeze(1)[:6]
    assert torch.equal(accepted.images, sampled.images[rows])
    assert accepted.numbers.tolist() == sampled.numbers[rows].tolist()
    assert torch.equal(accepted.probability, sampled.probability[rows])
    sampled_until = int(rows[-1]) + 1
    assert tally == Tally(sampled_until, 0, sampled_until - 6, 6)
    assert filled(inputs, 0, 3)[0] == Tally(60, 0, 60, 0)  # the filter takes none of them for an apple


def candidates_of(inputs: FillInputs, label: int, count: int) -> Candidates:
    return sample_class(inputs.loaded, inputs.classifier, inputs.params, label, inputs.seed, 0, count, CPU)


def test_the_nearest_training_image_is_of_the_class(inputs: FillInputs) -> None:
    _, accepted = filled(inputs, 1, 4)
    assert inputs.train.labels[accepted.nearest].tolist() == [1] * 4
    values = inputs.train.images[inputs.train.labels == 1].double() / 127.5 - 1
    for image, nearest, distance in zip(accepted.images, accepted.nearest, accepted.distance, strict=True):
        distances = (image.double() / 127.5 - 1 - values).square().mean((1, 2, 3)).sqrt()
        assert float(distance) == pytest.approx(float(distances.min()), rel=1e-5)
        assert torch.equal(inputs.train.images[nearest].double() / 127.5 - 1, values[distances.argmin()])


def test_what_equals_a_training_image_is_a_copy(inputs: FillInputs) -> None:
    sampled = candidates_of(inputs, 1, 40)
    rows = sampled.taken(1).nonzero().squeeze(1)
    images = torch.cat([inputs.train.images, sampled.images[rows[:2]]])
    memorised = Split(images, torch.cat([inputs.train.labels, torch.tensor([1, 1])]))
    tally, accepted = filled(inputs._replace(train=memorised), 1, 3)
    assert tally.copies == 2
    assert accepted.numbers.tolist() == sampled.numbers[rows[2:5]].tolist()


def test_a_least_probability_leaves_out_more(inputs: FillInputs) -> None:
    sampled = candidates_of(inputs, 1, 40)
    least = float(sampled.probability[sampled.taken(1)].median())
    _, accepted = filled(inputs._replace(least=least), 1, 5)
    assert len(accepted.numbers) == 5
    assert float(accepted.probability.min()) >= least
    assert accepted.numbers.tolist() == sampled.numbers[sampled.taken(1, least)][:5].tolist()


def test_batches_decide_nothing(inputs: FillInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_tally, whole = filled(inputs, 1, 9)
    monkeypatch.setattr(Runtime, "sample_batch_size", lambda *_: 4)
    tally, accepted = filled(inputs, 1, 9)
    assert tally == whole_tally
    assert accepted.numbers.tolist() == whole.numbers.tolist()
