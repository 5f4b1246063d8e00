"""The filter: which samples are kept, and what is said of them."""

import pytest
import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.splits import Samples, Split
from ddpm.scores.classifier import Classifier, features_and_logits
from ddpm.scores.filtering import Recognition, filtered, most_probable, passing, those_kept
from exact_stages.console import UserError
from tests.small import CPU, DIGITS, images
from tests.stages.written import classifier_params

IMAGES = (images(200).float() * torch.linspace(0, 1, 200).view(-1, 1, 1, 1)).to(torch.uint8)  # darker and lighter
ALL = [*range(10)]


def classifier(card: DataCard) -> Classifier:
    """One whose answers differ: its last layer is larger than it begins."""
    torch.manual_seed(0)
    model = Classifier(classifier_params(), card)
    with torch.no_grad():
        model.head.weight.mul_(3e4)
    return model


CLASSIFIER = classifier(DIGITS)
REAL = Split(IMAGES[:0], torch.zeros(0, dtype=torch.int64))
PROBABILITY = features_and_logits(CLASSIFIER, IMAGES, CPU.device)[1].softmax(1)  # of each class (200, 10)


def samples_of(labels: Tensor | None, given: Tensor = IMAGES, classes: list[int] = ALL) -> Samples:
    frames = given[None].repeat(3, 1, 1, 1, 1)
    return Samples(given, labels, frames, 255 - frames, DIGITS, classes, [2, 1, 0], {"set": "scored"})


def kept(samples: Samples, least: float | None) -> tuple[Samples, dict]:
    return filtered(samples, REAL, CLASSIFIER, least, CPU)


def test_kept_is_what_gets_its_class_with_that_probability() -> None:
    labels = PROBABILITY.argmax(1)
    labels[::2] = (labels[::2] + 1) % 10  # half of them are of a class that the classifier does not see
    least = float(PROBABILITY.max(1).values.median())
    before = samples_of(labels)
    found, said = kept(before, least)
    own = PROBABILITY[torch.arange(200), labels]
    rows = (own >= least).nonzero().squeeze(1)
    assert 10 < len(rows) < 100
    assert torch.equal(found.images, IMAGES[rows])
    assert torch.equal(found.labels, labels[rows])
    assert torch.equal(found.x_t, before.x_t[:, rows])
    assert torch.equal(found.pred_x_start, before.pred_x_start[:, rows])
    assert (found.made, found.clear) == ({"set": "scored", "kept": said["share"]}, said["clear_by_class"])
    assert (said["sampled"], said["kept"], said["share"]) == (200, len(rows), round(len(rows) / 200, 4))
    assert said["clear"] == pytest.approx((own >= 0.9).double().mean().item(), abs=1e-4)


def test_without_classes_asked_for_the_likeliest_of_those_trained_on_counts() -> None:
    known = sorted({*ALL} - {int(PROBABILITY.mean(0).argmax())})
    own = PROBABILITY[:, known].amax(1)
    least = float(own.median())
    found, said = kept(samples_of(None, classes=known), least)
    assert torch.equal(found.images, IMAGES[own >= least])
    assert found.labels is None
    assert 0 < said["kept"] < 200
    assert said["kept"] != int((PROBABILITY.amax(1) >= least).sum())


def test_zero_keeps_all_and_so_does_a_classifier_of_one_class() -> None:
    found, said = kept(samples_of(torch.arange(5), IMAGES[:5]), 0)  # the scores say what they lack
    assert torch.equal(found.images, IMAGES[:5])
    assert {said["share"], *said["share_by_class"].values()} == {1}
    kite = classifier(DIGITS.model_copy(update={"classes": ("kite",)}))
    found, said = filtered(samples_of(None, classes=[0]), REAL, kite, 0.9, CPU)
    assert torch.equal(found.images, IMAGES)
    assert said["share_by_class"] == {"kite": 1}
    assert said["clear"] is said["clear_real"] is None
    assert found.clear == {}


def recognition(*clear: int, of: int = 100) -> Recognition:
    """Of classes with so many images, of which so many are clear, the last ones best."""
    rows = [torch.cat([torch.linspace(0, 0.89, of - n), torch.linspace(0.91, 1, n)]) for n in clear]
    return Recognition(torch.cat(rows), torch.arange(len(clear)).repeat_interleave(of))


@pytest.mark.parametrize(
    ("samples", "real", "each"),
    [
        ((90, 70), (100, 100), 70),  # until the worse one is as clear
        ((90, 70), (94, 94), 76),  # on average 94 % and a standard error of 1.7: all, and 70 of 76
        ((4, 96), (100, 100), 50),  # never less than half
        ((4, 96), (90, 90), 96),  # out of reach: 54 % at best, less a standard error of 2
        ((0, 0), (90, 90), 100),
    ],
)
def test_of_each_class_the_same_share_is_kept_so_that_they_are_clear_like_real_ones(
    samples: tuple[int, int], real: tuple[int, int], each: int
) -> None:
    found = most_probable(recognition(*samples), recognition(*real))
    assert (found.view(2, 100).sum(1) - each).abs().max() <= 1
    assert found.view(2, 100)[:, 100 - each :].all()  # the most probable
    assert not found.view(2, 100)[:, : max(0, 99 - each)].any()
    assert most_probable(recognition(*samples), Recognition(torch.zeros(0), torch.zeros(0))).all()


def test_five_are_too_few_and_six_are_enough() -> None:
    order = PROBABILITY.amax(1).argsort(descending=True)
    labels = PROBABILITY.argmin(1)
    labels[order[:6]] = PROBABILITY.argmax(1)[order[:6]]
    least = float(PROBABILITY.amax(1)[order[5]])
    assert kept(samples_of(labels), least)[1]["kept"] == 6
    with pytest.raises(UserError, match=r"^filter\.least_probability: "):
        kept(samples_of(labels), least + 1e-4)


def test_images_pass_the_filter_that_are_as_probable_as_the_kept_samples_of_their_class() -> None:
    labels = torch.arange(200) % 2
    probability = PROBABILITY.gather(1, labels[:, None]).squeeze(1)
    samples, _ = kept(samples_of(labels), float(probability.median()))
    mask = those_kept(IMAGES, samples.images)
    assert torch.equal(IMAGES[mask], samples.images)
    limits = [float(probability[mask & (labels == label)].min()) for label in (0, 1)]
    real = Recognition(torch.tensor([*limits, *(limit - 1e-4 for limit in limits), 1]), torch.tensor([0, 1, 0, 1, 2]))
    of_kept = Recognition(probability, labels).take(mask)
    assert passing(of_kept, real).tolist() == [True, True, False, False, False]  # of the last class no sample was kept
    assert torch.equal(passing(of_kept, Recognition(probability, labels)), mask)
