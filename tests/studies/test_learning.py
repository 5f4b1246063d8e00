"""What a method does to the loss and to the batches, that the seed decides all of it, and what is measured."""

import math

import pytest
import torch
from sklearn import metrics
from torch import Tensor

from ddpm.classifier.model import Classifier
from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed, Split
from studies.rare_class import learning as module
from studies.rare_class.comparing import compare
from studies.rare_class.copies import count_copies
from studies.rare_class.learning import LearnParams, by_class, confusion, learn, mixed_loss
from studies.rare_class.measures import measures
from studies.rare_class.methods import Method, Sampled
from tests.small import FRUITS, images

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
PARAMS = LearnParams(channels=4, steps=60, batch_size=20, lr=0.02)
CLASSES = len(FRUITS.classes)
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def imbalanced(counts: tuple[int, ...] = (60, 40, 6)) -> Split:
    """Of one colour each, dark, and a little lighter in the channel that is the label's."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    given = images(len(labels), FRUITS.shape) // 4
    given[torch.arange(len(labels)), labels] += 60
    return Split(given, labels)


def sampled(count: int = 30) -> Sampled:
    """As the rare class's real ones, but for the others that the filter does not take."""
    given = images(count, FRUITS.shape) // 4
    taken = torch.arange(count) % 3 > 0
    given[:, 2] += 60 * taken.view(-1, 1, 1).to(torch.uint8)
    return Sampled(given, torch.full((count,), 2), taken)


def learned(name: str, params: LearnParams = PARAMS, seed: int = 3) -> Classifier:
    return learn(name, imbalanced(), sampled(), [2], Method.parse(name), FRUITS, params, seed, RUNTIME)


class Given(torch.nn.Module):
    """A linear network, so that what comes out for a mixed image is known."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :CLASSES] * 3


def reference(name: str, logits: Tensor, targets: Tensor) -> float:
    """Written out; of targets (B, classes) that sum to 1."""
    prior = PRIOR.tolist()
    above = below = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if name == "adjust":
            row = [each + math.log(share) for each, share in zip(row, prior, strict=True)]
        total = math.log(sum(math.exp(each) for each in row))
        for each, wanted, share in zip(row, target, prior, strict=True):
            weight = 1 / (CLASSES * share) if name == "weights" else 1
            above += weight * wanted * (total - each)
            below += weight * wanted
    return above / below


@pytest.mark.parametrize(
    ("name", "mix"), [("nothing", 1), ("weights", 1), ("adjust", 1), ("mixup", 0.7), ("adjust", 0.7)]
)
def test_the_loss_is_the_formula_s(name: str, mix: float) -> None:
    x = torch.randn(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 1, 2, 0, 1, 0])
    targets = torch.nn.functional.one_hot(y, CLASSES).double()
    mixed, mixed_targets = mix * x + (1 - mix) * x.roll(1, 0), mix * targets + (1 - mix) * targets.roll(1, 0)
    found = mixed_loss(Given(), x, y, mix, *by_class(PRIOR, Method.parse(name)))
    assert found.item() == pytest.approx(reference(name, Given()(mixed), mixed_targets), rel=1e-5)


def test_a_class_without_images_leaves_the_loss_finite() -> None:
    prior = torch.tensor([0.75, 0, 0.25], dtype=torch.float64)
    assert by_class(prior, Method(weights=True))[0].tolist() == pytest.approx([2 / 3, 0, 2])
    assert by_class(prior, Method(adjust=True))[1].tolist() == pytest.approx([math.log(0.75), 0, math.log(0.25)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("weights+augment", [60 / 106, 40 / 106, 6 / 106]),
        ("oversample", [1 / 3, 1 / 3, 1 / 3]),
        ("smote", [1 / 3, 1 / 3, 1 / 3]),
        ("adjust+sampled+filtered", [60 / 126, 40 / 126, 26 / 126]),
    ],
)
def test_batches_are_those_of_their_arm(name: str, expected: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def recorded(model: Classifier, x: Tensor, y: Tensor, *_: object) -> Tensor:
        seen.append((x, y))
        return model.head.weight.square().sum()

    monkeypatch.setattr(module, "mixed_loss", recorded)
    learned(name, PARAMS.model_copy(update={"batch_size": 200, "channels": 1}))
    labels = torch.cat([y for _, y in seen])
    assert (labels.bincount() / len(labels)).tolist() == pytest.approx(expected, abs=0.015)
    levels = (torch.cat([x for x, _ in seen[:3]]) + 1) * 127.5
    assert bool(torch.allclose(levels, levels.round(), atol=1e-3)) == ("augment" not in name)


@pytest.mark.parametrize(
    "name", ["nothing", "oversample+augment", "weights+mixup", "adjust", "smote", "oversample+sampled+filtered+halved"]
)
def test_every_method_learns_easy_classes_and_the_seed_decides_all_of_it(name: str) -> None:
    matrix = confusion(learned(name), *imbalanced((20, 20, 20)), RUNTIME.device)
    assert measures(matrix, [2]).balanced_accuracy > 0.95
    short = PARAMS.model_copy(update={"steps": 5})
    first, again, other = (learned(name, short, seed).head.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_confusion_has_true_classes_in_rows_and_found_in_columns() -> None:
    model = Classifier(PARAMS.classifier(0), FRUITS)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # whatever it is, it is the second
    matrix = confusion(model, images(9, FRUITS.shape), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2]), RUNTIME.device)
    assert matrix.tolist() == [[0, 4, 0], [0, 3, 0], [0, 2, 0]]


def test_measures_are_those_of_scikit_learn() -> None:
    rng = torch.Generator().manual_seed(0)
    true = torch.randint(10, (200,), generator=rng)
    found = torch.where(torch.rand(200, generator=rng) < 0.6, true, true.flip(0))
    found[found == 4] = 7  # one is never found
    rare = [1, 4, 9]
    seen = measures(torch.from_numpy(metrics.confusion_matrix(true, found, labels=range(10))), rare)
    expected = metrics.precision_recall_fscore_support(true, found, labels=range(10), zero_division=0.0)
    for mine, theirs in zip((seen.precision, seen.recall, seen.f1), expected, strict=False):
        assert mine.tolist() == pytest.approx(theirs.tolist(), abs=1e-12)
    means = (seen.rare_precision, seen.rare_recall, seen.rare_f1)
    assert means == pytest.approx([each[rare].mean() for each in expected[:3]])
    assert seen.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, found))
    frequent = ~torch.isin(true, torch.tensor(rare))
    assert seen.frequent_accuracy == pytest.approx(metrics.accuracy_score(true[frequent], found[frequent]))


def processed(split: Split) -> Processed:
    return Processed(FRUITS, split, torch.arange(len(split.labels)), (1, 1, 1))


def test_traces_are_sampled_images_of_frequent_classes_that_pass_for_rare_ones() -> None:
    looks_rare = imbalanced((0, 0, 6)).images
    generated = Sampled(looks_rare, torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([True] * 4 + [False, True]))
    test = imbalanced((3, 2, 1))
    given = (processed(imbalanced()), generated, [2], test, "oversample", 1, PARAMS, RUNTIME)
    assert compare("oversample", *given) == {"confusion": [[3, 0, 0], [0, 2, 0], [0, 0, 1]], "traces": 1.0}
    oracle = compare("oracle", processed(imbalanced()), None, [], test, "nothing", 1, PARAMS, RUNTIME)
    assert [*oracle] == ["confusion"]


def test_copies_are_counted_among_what_the_method_learns_of_rare_classes() -> None:
    rng = torch.Generator().manual_seed(0)

    def noise(count: int) -> Tensor:
        return torch.randint(0, 256, (count, *FRUITS.shape), generator=rng, dtype=torch.uint8)

    train, test = (processed(Split(noise(count), torch.full((count,), 2))) for count in (10, 200))
    shown = torch.cat([train.split.images[:3], noise(5)])  # three copies, of which the filter takes two
    some = Sampled(shown, torch.full((8,), 2), torch.tensor([True, True, False, True, True, True, True, True]))
    assert count_copies(train, some, [2], test, "sampled")["near_copies"]["distance"] == 3 / 8
    assert count_copies(train, some, [2], test, "sampled+filtered")["near_copies"]["distance"] == 2 / 7
    none = some._replace(taken=torch.zeros(8, dtype=torch.bool))
    assert count_copies(train, none, [2], test, "sampled+filtered") == {"near_copies": None}
