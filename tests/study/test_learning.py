"""What an arm does to the loss and to the batches, that the seed decides all of it, and what is measured."""

import math
import sys
from collections.abc import Iterator

import pytest
import torch
from pydantic import ValidationError
from sklearn import metrics
from torch import Tensor

from ddpm.classifier.model import Classifier
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError
from ddpm.study import learning as module
from ddpm.study.arms import Arm, Drawn
from ddpm.study.learning import LearnParams, by_class, confusion, learn, measures, mixed_loss
from tests.like_a_gpu import Operations
from tests.small import DIGITS, FRUITS, images

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, torch.float32)
PARAMS = LearnParams(channels=4, steps=60, batch_size=20, lr=0.02)
CLASSES = len(FRUITS.classes)
PRIOR = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def imbalanced(counts: tuple[int, ...] = (60, 40, 6)) -> Split:
    """Of one colour each, dark, and a little lighter in the channel that is the label's."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    given = images(len(labels), FRUITS.shape) // 4
    given[torch.arange(len(labels)), labels] += 60
    return Split(given, labels)


def drawn(count: int = 30) -> Drawn:
    """As the rare class's real ones, but for the others that the filter does not take."""
    given = images(count, FRUITS.shape) // 4
    taken = torch.arange(count) % 3 > 0
    given[:, 2] += 60 * taken.view(-1, 1, 1).to(torch.uint8)
    return Drawn(given, torch.full((count,), 2), taken)


def learned(name: str, params: LearnParams = PARAMS, seed: int = 3) -> Classifier:
    return learn(name, imbalanced(), drawn(), [2], Arm.parse(name), FRUITS, params, seed, RUNTIME)


def record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, float, Tensor, Tensor]]:
    """What the loss is given in each step: images, labels, share, weights, offsets."""
    found = []

    def recorded(model: Classifier, x: Tensor, y: Tensor, mix: float, weight: Tensor, offset: Tensor) -> Tensor:
        found.append((x, y, mix, weight, offset))
        return model.head.weight.square().sum()

    monkeypatch.setattr(module, "mixed_loss", recorded)
    return found


# --- the loss --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["nothing", "weights", "adjust"])
def test_the_loss_is_the_formula_s(name: str) -> None:
    x = torch.randn(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 1, 2, 0, 1, 0])
    weight, offset = by_class(PRIOR, Arm.parse(name))
    found = mixed_loss(Given(), x, y, 1.0, weight, offset)
    targets = torch.nn.functional.one_hot(y, CLASSES)
    assert found.item() == pytest.approx(reference(name, Given()(x), targets), rel=1e-5)


@pytest.mark.parametrize("name", ["mixup", "adjust"])
def test_a_mixed_image_has_the_mixed_target(name: str) -> None:
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 2, 1, 0, 2])
    one_hot = torch.nn.functional.one_hot(y, CLASSES).double()
    before = [4, 0, 1, 2, 3]
    images, targets = 0.7 * x + 0.3 * x[before], 0.7 * one_hot + 0.3 * one_hot[before]
    found = mixed_loss(Given(), x, y, 0.7, *by_class(PRIOR, Arm.parse(name)))
    assert found.item() == pytest.approx(reference(name, Given()(images), targets), rel=1e-5)


def test_weights_are_inverse_to_the_prior_and_one_on_average() -> None:
    weight, offset = by_class(PRIOR, Arm(weights=True))
    assert weight.tolist() == pytest.approx([2 / 3, 10 / 9, 5 / 3])
    assert (weight * PRIOR).sum().item() == pytest.approx(1)
    assert offset.tolist() == [0, 0, 0]
    weight, offset = by_class(PRIOR, Arm(adjust=True))
    assert weight.tolist() == [1, 1, 1]
    assert offset.tolist() == pytest.approx([math.log(0.5), math.log(0.3), math.log(0.2)])


def test_a_class_without_images_leaves_the_loss_finite() -> None:
    prior = torch.tensor([0.75, 0, 0.25], dtype=torch.float64)
    assert by_class(prior, Arm(weights=True))[0].tolist() == pytest.approx([2 / 3, 0, 2])
    assert by_class(prior, Arm(adjust=True))[1].tolist() == pytest.approx([math.log(0.75), 0, math.log(0.25)])


# --- the batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing", [60 / 106, 40 / 106, 6 / 106]),
        ("weights", [60 / 106, 40 / 106, 6 / 106]),
        ("oversample", [1 / 3, 1 / 3, 1 / 3]),
        ("smote", [1 / 3, 1 / 3, 1 / 3]),
        ("drawn", [60 / 136, 40 / 136, 36 / 136]),
        ("adjust+drawn+filtered", [60 / 126, 40 / 126, 26 / 126]),
    ],
)
def test_batches_have_the_shares_of_their_arm(
    name: str, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = record(monkeypatch)
    learned(name, PARAMS.model_copy(update={"batch_size": 200, "channels": 1}))
    labels = torch.cat([y for _, y, _, _, _ in found])
    assert len(labels) == 60 * 200
    assert (labels.bincount() / len(labels)).tolist() == pytest.approx(expected, abs=0.015)
    weight, offset = by_class(torch.tensor(expected, dtype=torch.float64), Arm.parse(name))
    assert found[0][3].tolist() == pytest.approx(weight.tolist())
    assert found[0][4].tolist() == pytest.approx(offset.tolist())


def test_images_of_the_base_recipe_are_those_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record(monkeypatch)
    learned("oversample")
    train = imbalanced()
    kept = {(image.numpy().tobytes(), label) for image, label in zip(train.images, train.labels.tolist(), strict=True)}
    for x, y, mix, _, _ in found:
        assert mix == 1
        pixels = ((x + 1) * 127.5).round().to(torch.uint8)
        assert {(image.numpy().tobytes(), label) for image, label in zip(pixels, y.tolist(), strict=True)} <= kept


def test_augmentation_is_of_all_images_and_mixup_has_one_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record(monkeypatch)
    learned("nothing")
    learned("augment")
    learned("mixup", PARAMS.model_copy(update={"steps": 600, "batch_size": 2, "channels": 1}))
    plain, moved, mixed = found[:60], found[60:120], found[120:]
    for (x, y, _, _, _), (other, other_y, mix, _, _) in zip(plain, moved, strict=True):
        assert torch.equal(y, other_y)  # of the same images
        assert (x - other).abs().amax((1, 2, 3)).min() > 0.05
        assert mix == 1
    shares = torch.tensor([mix for _, _, mix, _, _ in mixed])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert shares.var().item() == pytest.approx(0.25 / 1.4, abs=0.015)  # of Beta(0.2, 0.2)


# --- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["nothing", "oversample+augment", "weights+mixup", "adjust", "smote", "oversample+drawn+filtered+halved"]
)
def test_every_arm_learns_easy_classes(name: str) -> None:
    model = learned(name)
    assert not model.training
    assert (model.data, model.params.seed, model.params.channels) == (FRUITS, 3, 4)
    matrix = confusion(model, *imbalanced((20, 20, 20)), CPU)
    assert measures(matrix, [2]).balanced_accuracy > 0.95


def test_the_seed_decides_all_of_it() -> None:
    for name in ("mixup+augment", "smote", "oversample+drawn+few"):
        first, again, other = (learned(name, PARAMS.model_copy(update={"steps": 5}), seed) for seed in (3, 3, 4))
        for key, weight in first.state_dict().items():
            assert torch.equal(weight, again.state_dict()[key]), key
        assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_few_steps_are_a_cycle_as_well(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = record(monkeypatch)
    learned("nothing", PARAMS.model_copy(update={"steps": steps}))
    assert len(found) == steps


def test_a_loss_that_is_not_finite_names_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(*_: object) -> Iterator[torch.Tensor]:
        yield from torch.tensor([2.3, math.inf])

    monkeypatch.setattr(module, "_losses", losses)
    with pytest.raises(UserError, match=r"^rare_learn.lr: the loss is inf; try less than 0\.02$"):
        learned("nothing", PARAMS.model_copy(update={"steps": 2}))


@pytest.mark.parametrize(
    "wrong", [{"channels": 0}, {"steps": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": 2.0}, {"epochs": 3}]
)
def test_params_have_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LearnParams.model_validate(PARAMS.model_dump() | wrong)


def test_the_greatest_params_are_those_of_a_classifier() -> None:
    most = LearnParams(channels=1024, steps=100_000, batch_size=10_000, lr=1.0)
    assert most.classifier(2**63 - 1).images == 10**9


def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # An optimizer counts its steps on the host.
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_value", lambda step: float(step.numpy()))
    seen = Operations()

    def watched(losses: Iterator[torch.Tensor], *_: object) -> None:
        next(losses)
        with seen:
            assert all(loss.shape == () and not loss.requires_grad for loss in losses)

    monkeypatch.setattr(module, "watch", watched)
    learned("weights+augment", PARAMS.model_copy(update={"steps": 4}))
    assert seen.counts["convolution_backward"] == 6 * 3


# --- what is measured ------------------------------------------------------------------------------------------------


def test_the_confusion_has_true_classes_in_rows_and_found_in_columns() -> None:
    model = Classifier(PARAMS.classifier(0), FRUITS)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # whatever it is, it is the second
    matrix = confusion(model, images(9, FRUITS.shape), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2]), CPU)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[0, 4, 0], [0, 3, 0], [0, 2, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_scikit_learn(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    true = torch.randint(len(DIGITS.classes), (200,), generator=source)
    found = torch.where(torch.rand(200, generator=source) < 0.6, true, true.flip(0))
    found[found == 4] = 7  # one is never found
    rare = [1, 4, 9]
    matrix = torch.from_numpy(metrics.confusion_matrix(true, found, labels=range(10)))
    seen = measures(matrix, rare)
    expected = metrics.precision_recall_fscore_support(true, found, labels=range(10), zero_division=0.0)
    for mine, theirs in zip((seen.precision, seen.recall, seen.f1), expected, strict=False):
        assert mine.tolist() == pytest.approx(theirs.tolist(), abs=1e-12)
    assert seen.f1[4] == 0
    means = (seen.rare_precision, seen.rare_recall, seen.rare_f1)
    assert means == pytest.approx([each[rare].mean() for each in expected[:3]])
    assert seen.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(true, found))
    frequent = ~torch.isin(true, torch.tensor(rare))
    assert seen.frequent_accuracy == pytest.approx(metrics.accuracy_score(true[frequent], found[frequent]))


def test_a_class_without_images_counts_in_no_accuracy() -> None:
    seen = measures(torch.tensor([[3, 1, 0], [0, 0, 0], [1, 0, 1]]), [2])
    assert seen.recall.tolist() == [0.75, 0, 0.5]
    assert seen.precision.tolist() == [0.75, 0, 1]
    assert seen.f1.tolist() == pytest.approx([0.75, 0, 2 / 3])
    assert seen.balanced_accuracy == 0.625
    assert seen.frequent_accuracy == 0.75
    assert (seen.rare_recall, seen.rare_precision) == (0.5, 1)
