"""The arms of a study: their names, and how often each image is taken."""

import itertools
import sys

import pytest
import torch

from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError
from ddpm.study.arms import EXCLUSIVE, FEW, MODIFIERS, Arm, Drawn, shares, smote

TRAIN = Split(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1), torch.tensor([0, 0, 0, 1, 1, 2]))
DRAWN = Drawn(
    torch.arange(10, 16, dtype=torch.uint8).view(6, 1, 1, 1),
    torch.tensor([2, 0, 1, 2, 2, 2]),
    torch.tensor([True, True, False, False, True, True]),
)
RARE = (1, 2)


# --- names -----------------------------------------------------------------------------------------------------------


def test_an_arm_is_named_by_its_words_in_one_order() -> None:
    assert Arm.parse("nothing") == Arm()
    assert str(Arm()) == "nothing"
    arm = Arm.parse("filtered+augment+drawn+oversample")
    assert arm == Arm(oversample=True, augment=True, drawn=True, filtered=True)
    assert str(arm) == "oversample+augment+drawn+filtered"
    assert str(Arm.parse("halved+all+few+filtered+drawn+mixup")) == "mixup+drawn+filtered+few+all+halved"


def test_every_arm_that_there_is_is_found_again_by_its_name() -> None:
    arms = []
    for said in itertools.product([False, True], repeat=len(Arm._fields)):
        arm = Arm(*said)
        words = {word for word, each in arm._asdict().items() if each}
        wrong = any(len(words & each) > 1 for each in EXCLUSIVE)
        if wrong or (words & {*MODIFIERS} and not arm.drawn):
            with pytest.raises(ValueError, match=r"exclude each other|needs drawn"):
                Arm.parse(str(arm))
        else:
            assert Arm.parse(str(arm)) == arm
            arms.append(arm)
    # none, oversample, weights or adjust, without drawn or with some of four modifiers; smote; two words for each
    assert len(arms) == (4 * (1 + 2**4) + 1) * 2**2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "oversampel",
            r"^oversampel: there is no word 'oversampel' here; an arm is nothing, or some of oversample, weig",
        ),
        ("", "there is no word ''"),
        ("augment+", "there is no word ''"),
        ("augment + mixup", "there is no word 'augment '"),
        ("nothing+augment", "there is no word 'nothing'"),
        ("_fields", "there is no word '_fields'"),
        ("augment+mixup+augment", r"^augment\+mixup\+augment: augment stands there twice$"),
        ("oversample+weights", r"^oversample\+weights: oversample and weights exclude each other$"),
        ("adjust+augment+weights", "adjust and weights exclude each other"),
        ("adjust+oversample", "adjust and oversample exclude each other"),
        ("weights+smote", "weights and smote exclude each other"),
        ("drawn+smote", "drawn and smote exclude each other"),
        ("filtered", r"^filtered: filtered needs drawn$"),
        ("oversample+halved", "halved needs drawn"),
        ("few", "few needs drawn"),
        ("smote+all", "all needs drawn"),
    ],
)
def test_what_is_no_arm_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Arm.parse(text)


# --- which images, and how often -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("nothing", [0, 1, 2, 3, 4, 5], [1 / 6] * 6),
        ("weights+augment+mixup", [0, 1, 2, 3, 4, 5], [1 / 6] * 6),
        ("oversample", [0, 1, 2, 3, 4, 5], [1 / 9] * 3 + [1 / 6] * 2 + [1 / 3]),
        ("drawn", [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15], [1 / 11] * 11),
        ("drawn+filtered", [0, 1, 2, 3, 4, 5, 10, 14, 15], [1 / 9] * 9),
        ("drawn+all", [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15], [1 / 12] * 12),
        ("drawn+all+filtered", [0, 1, 2, 3, 4, 5, 10, 11, 14, 15], [1 / 10] * 10),
        # of class 2 there are one real image and four drawn ones, of class 1 two and one
        (
            "oversample+drawn",
            [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15],
            [1 / 9] * 3 + [1 / 9] * 2 + [1 / 15, 1 / 15, 1 / 9, 1 / 15, 1 / 15, 1 / 15],
        ),
        (
            "oversample+drawn+halved",
            [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15],
            [1 / 9] * 3 + [1 / 12] * 2 + [1 / 6, 1 / 24, 1 / 6, 1 / 24, 1 / 24, 1 / 24],
        ),
        (
            "drawn+halved",
            [0, 1, 2, 3, 4, 5, 10, 12, 13, 14, 15],
            [1 / 11] * 3 + [3 / 44] * 2 + [5 / 22, 5 / 88, 3 / 22, 5 / 88, 5 / 88, 5 / 88],
        ),
        # of class 1 the filter leaves no drawn image, so that its real ones are all of it
        (
            "oversample+drawn+filtered+halved",
            [0, 1, 2, 3, 4, 5, 10, 14, 15],
            [1 / 9] * 3 + [1 / 6] * 2 + [1 / 6] + [1 / 18] * 3,
        ),
    ],
)
def test_the_shares_of_a_small_set(name: str, pixels: list[int], expected: list[float]) -> None:
    pool, share = shares(TRAIN, DRAWN, RARE, Arm.parse(name), seed=0)
    assert pool.images.flatten().tolist() == pixels
    assert pool.images.dtype == torch.uint8
    both = dict(zip(range(16), [*TRAIN.labels.tolist(), 0, 0, 0, 0, *DRAWN.labels.tolist()], strict=True))
    assert pool.labels.tolist() == [both[pixel] for pixel in pixels]
    assert share.tolist() == pytest.approx(expected, abs=1e-12)
    assert share.sum().item() == pytest.approx(1, abs=1e-12)


def test_few_are_the_first_of_each_class_after_the_filter() -> None:
    count = 3 * FEW
    labels, taken = torch.arange(count) % 2, torch.arange(count) % 3 > 0
    drawn = Drawn(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), labels, taken)
    drawn.images.view(count)[:] = torch.arange(count) % 251
    images, found = drawn.chosen(Arm.parse("drawn+few"), [1])
    assert found.tolist() == [1] * FEW
    assert images.flatten().tolist() == [each % 251 for each in range(count) if each % 2][:FEW]
    images, found = drawn.chosen(Arm.parse("drawn+few+all+filtered"), [1])
    taken_of = [[each for each in range(count) if each % 2 == label and each % 3][:FEW] for label in (0, 1)]
    assert len(taken_of[0]) == len(taken_of[1]) == FEW
    assert images.flatten().tolist() == [each % 251 for each in sorted(taken_of[0] + taken_of[1])]
    assert found.bincount().tolist() == [FEW, FEW]
    fewer = Drawn(*(each[:7] for each in drawn))
    assert len(fewer.chosen(Arm.parse("drawn+few"), [1]).labels) == 3
    assert drawn.taken.equal(taken)


def test_an_arm_that_takes_drawn_images_does_not_go_on_without() -> None:
    with pytest.raises(ValueError, match=r"^drawn\+few: no images were drawn$"):
        shares(TRAIN, None, RARE, Arm.parse("drawn+few"), seed=0)
    pool, _ = shares(TRAIN, None, RARE, Arm(), seed=0)
    assert torch.equal(pool.images, TRAIN.images)


# --- SMOTE -----------------------------------------------------------------------------------------------------------


def several(counts: tuple[int, ...], shape: tuple[int, int, int] = (3, 2, 4)) -> Split:
    """Random images; those of class k lie in levels of their own."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    levels = torch.randint(0, 60, (len(labels), *shape), generator=torch.Generator().manual_seed(1))
    return Split((levels + 80 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def test_smote_lifts_every_class_to_the_most_frequent_by_images_between_two() -> None:
    train = several((20, 3, 8))
    images, labels = smote(train, seed=0)
    assert labels.bincount().tolist() == [20, 20, 20]
    assert torch.equal(images[:31], train.images)
    assert torch.equal(labels[:31], train.labels)
    assert (images.dtype, images.shape) == (torch.uint8, (60, 3, 2, 4))
    for image, label in zip(images[31:].flatten(1).double(), labels[31:], strict=True):
        own = train.images[train.labels == label].flatten(1).double()
        off = []  # from the line between each two
        for one, other in itertools.permutations(own, 2):
            way = other - one
            place = ((image - one) @ way / way.square().sum()).clamp(0, 1)
            off.append((one + place * way - image).abs().max().item())
        assert min(off) < 0.75  # half a level of rounding, and what it moves the nearest place on the line


def test_the_images_between_are_decided_by_the_seed_and_as_likely_as_all() -> None:
    train = several((9, 4))
    (pool, share), (again, _), (other, _) = (shares(train, None, [1], Arm(smote=True), seed) for seed in (0, 0, 1))
    assert torch.equal(pool.images, again.images)
    assert not torch.equal(pool.images, other.images)
    assert share.tolist() == pytest.approx([1 / 18] * 18)


def test_of_one_image_nothing_lies_between() -> None:
    with pytest.raises(UserError, match=r"^smote: label 1 has one image"):
        smote(several((9, 1, 4)), seed=0)
    assert smote(several((4, 4)), seed=0).labels.bincount().tolist() == [4, 4]
    assert smote(several((3, 2)), seed=0).labels.bincount().tolist() == [3, 3]


def test_without_imbalanced_learn_smote_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(UserError, match=r"^smote: needs imbalanced-learn; `pip install -e '\.\[rare\]'` installs it$"):
        smote(several((4, 2)), seed=0)
