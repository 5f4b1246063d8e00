"""The methods of a study: their names, and how often each image is taken."""

import re

import pytest
import torch

from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError
from studies.rare_class.methods import MOST_SAMPLES, Method, Sampled, shares, smote

TRAIN = Split(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1), torch.tensor([0, 0, 0, 1, 1, 2]))
SAMPLED = Sampled(
    torch.arange(10, 16, dtype=torch.uint8).view(6, 1, 1, 1),
    torch.tensor([2, 0, 1, 2, 2, 2]),
    torch.tensor([True, True, False, False, True, True]),
)
RARE = (1, 2)


def test_a_method_is_named_by_its_words_in_one_order() -> None:
    assert Method.parse("nothing") == Method()
    assert str(Method()) == "nothing"
    method = Method.parse("filtered+augment+sampled+oversample")
    assert method == Method(oversample=True, augment=True, sampled=True, filtered=True)
    assert str(method) == "oversample+augment+sampled+filtered"


@pytest.mark.parametrize(
    "text",
    [
        "oversampel",
        "augment+",
        "nothing+augment",
        "augment+mixup+augment",
        "oversample+weights",
        "sampled+smote",
        "filtered",
        "oversample+halved",
    ],
)
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}: "):
        Method.parse(text)


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("weights+augment+mixup", [0, 1, 2, 3, 4, 5], [1 / 6] * 6),
        ("oversample", [0, 1, 2, 3, 4, 5], [1 / 9] * 3 + [1 / 6] * 2 + [1 / 3]),
        ("sampled", [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15], [1 / 11] * 11),
        ("sampled+filtered", [0, 1, 2, 3, 4, 5, 10, 14, 15], [1 / 9] * 9),
        ("sampled+all+filtered", [0, 1, 2, 3, 4, 5, 10, 11, 14, 15], [1 / 10] * 10),
        # of class 2 there are one real image and four sampled ones, of class 1 two and one
        (
            "oversample+sampled+halved",
            [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15],
            [1 / 9] * 3 + [1 / 12] * 2 + [1 / 6, 1 / 24, 1 / 6, 1 / 24, 1 / 24, 1 / 24],
        ),
        (
            "sampled+halved",
            [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15],
            [1 / 11] * 3 + [3 / 44] * 2 + [5 / 22, 5 / 88, 3 / 22, 5 / 88, 5 / 88, 5 / 88],
        ),
        # of class 1 the filter leaves no sampled image, so that its real ones are all of it
        (
            "oversample+sampled+filtered+halved",
            [0, 1, 2, 3, 4, 5, 10, 14, 15],
            [1 / 9] * 3 + [1 / 6] * 2 + [1 / 6] + [1 / 18] * 3,
        ),
    ],
)
def test_the_shares_of_a_small_set(name: str, pixels: list[int], expected: list[float]) -> None:
    pool, share = shares(TRAIN, SAMPLED, RARE, Method.parse(name), seed=0)
    assert pool.images.flatten().tolist() == pixels
    both = dict(zip(range(16), [*TRAIN.labels.tolist(), 0, 0, 0, 0, *SAMPLED.labels.tolist()], strict=True))
    assert pool.labels.tolist() == [both[pixel] for pixel in pixels]
    assert share.tolist() == pytest.approx(expected, abs=1e-12)


def test_few_are_the_first_of_each_class_after_the_filter() -> None:
    count = 3 * MOST_SAMPLES
    labels, taken = torch.arange(count) % 2, torch.arange(count) % 3 > 0
    levels = (torch.arange(count) % 251).to(torch.uint8).view(count, 1, 1, 1)
    images, found = Sampled(levels, labels, taken).chosen(Method.parse("sampled+few+all+filtered"), [1])
    expected = [[each for each in range(count) if each % 2 == label and each % 3][:MOST_SAMPLES] for label in (0, 1)]
    assert images.flatten().tolist() == [each % 251 for each in sorted(expected[0] + expected[1])]
    assert found.bincount().tolist() == [MOST_SAMPLES, MOST_SAMPLES]


def several(counts: tuple[int, ...]) -> Split:
    """Random images; those of class k lie in levels of their own."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    levels = torch.randint(0, 60, (len(labels), 3, 2, 4), generator=torch.Generator().manual_seed(1))
    return Split((levels + 80 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def test_smote_lifts_every_class_to_the_most_frequent_by_images_of_its_own_levels() -> None:
    train = several((20, 3, 8))
    images, labels = smote(train, seed=0)
    assert labels.bincount().tolist() == [20, 20, 20]
    assert torch.equal(images[:31], train.images)
    assert (images // 80).flatten(1).unique(dim=1).flatten().tolist() == labels.tolist()
    assert torch.equal(smote(train, seed=0).images, images)
    assert not torch.equal(smote(train, seed=1).images, images)
    with pytest.raises(UserError, match=r"^smote: label 1 "):
        smote(several((9, 1, 4)), seed=0)  # nothing lies between one image
