"""All scores: of which images each is made, and what is left out where there are few."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, to_uint8
from ddpm.scores import c2st
from ddpm.scores.classifier import Classifier, features_and_logits, load_classifier, save_classifier
from ddpm.scores.distances import frechet_distance
from ddpm.scores.evaluation import Classified, Sets, evaluate
from exact_stages.console import UserError
from tests.small import CPU, DIGITS, FRUITS, images
from tests.stages.written import classifier_params

CLASSES = [3, 7]


@pytest.fixture(autouse=True)
def _a_short_c2st(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c2st, "STEPS", 1)


@pytest.fixture
def classifiers(tmp_path: Path) -> dict[str, Path]:
    """Two that know nothing."""
    return written(tmp_path, DIGITS)


def written(folder: Path, card: DataCard) -> dict[str, Path]:
    paths = {name: folder / f"classifier-{name}.safetensors" for name in "ab"}
    for seed, path in enumerate(paths.values()):
        torch.manual_seed(seed)
        save_classifier(path, Classifier(classifier_params(seed=seed), card))
    return paths


def drawn(count: int, seed: int) -> Split:
    """Images uint8 (count, 1, 28, 28) of soft spots, and their classes: first all threes, of little contrast."""
    labels = torch.tensor(CLASSES).repeat_interleave((count + 1) // 2)[:count]
    spots = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    scales = torch.where(labels == CLASSES[0], 0.1, 0.4).view(-1, 1, 1, 1)
    return Split(to_uint8(scales * F.interpolate(spots, size=(28, 28), mode="bilinear")), labels)


def shuffled(split: Split) -> Split:
    return split.take(torch.randperm(len(split.images), generator=torch.Generator().manual_seed(0)))


TRAIN, FRESH, HONEST = drawn(1200, 0), drawn(600, 1), shuffled(drawn(300, 2))
COPIER = shuffled(Split(*(torch.cat([ours[-60:], honest[60:]]) for ours, honest in zip(TRAIN, HONEST, strict=True))))


def scores(
    classifiers: dict[str, Path],
    samples: tuple[Tensor, Tensor | None],
    test: Split = FRESH,
    train: Split = TRAIN,
    kept: Tensor | None = None,
) -> dict[str, Any]:
    classes = train.labels.unique().tolist()
    return evaluate(samples, test, train, classes, classifiers, CPU, kept=kept)[0]


def seen(classifiers: dict[str, Path], given: Tensor) -> tuple[Tensor, Tensor]:
    return features_and_logits(load_classifier(classifiers["b"]), given, CPU.device)


def test_every_score_is_of_the_images_that_it_says(
    classifiers: dict[str, Path], allowed: Callable[[int], None]
) -> None:
    found = scores(classifiers, COPIER)  # a fifth of the samples are copies, all of them sevens
    assert found["count"] == found["samples"]["images"] == found["real"]["images"] == 300
    sevens = float((COPIER.labels == 7).double().mean())
    for name, given in (("samples", COPIER), ("test", FRESH)):
        _, logits = seen(classifiers, given.images)
        right = (logits.argmax(1) == given.labels).double()
        of_class = [float(right[given.labels == label].mean()) for label in CLASSES]
        expected = of_class[0] * (1 - sevens) + of_class[1] * sevens  # test images of the samples' mix
        assert found[name]["conditional_accuracy"] == pytest.approx(expected, abs=0.03)
    assert found["samples"]["near_copies_ratio_pixels"] == pytest.approx(0.2, abs=0.04)
    assert found["real"]["near_copies_ratio_pixels"] < 0.05  # though they are training images
    # The first half of the test images is all threes: no sample. Random ones are as near as training images are.
    train, first = (seen(classifiers, given)[0] for given in (TRAIN.images, FRESH.images[:300]))
    rows = found["b"]
    assert abs(rows["test"]["frechet_excess"]) < 4 * rows["test"]["frechet_excess_error"]
    assert frechet_distance(train, first) > 10 * rows["test"]["frechet"]
    assert found["real"].keys() >= {"precision", "recall_error"}
    assert "class_mix" not in found["samples"]
    allowed(3)
    assert scores(classifiers, COPIER) == found, "whoever computes a score"


def test_rows_of_a_filter_have_the_images_before_it_and_real_ones_that_it_would_keep(
    classifiers: dict[str, Path],
) -> None:
    """A filter that keeps the half of the samples that classifier a finds clearest."""
    logits = features_and_logits(load_classifier(classifiers["a"]), HONEST.images, CPU.device)[1]
    probability = logits.softmax(1).gather(1, HONEST.labels[:, None]).squeeze(1)
    kept = probability >= probability.median()
    found, without = scores(classifiers, HONEST, kept=kept), scores(classifiers, HONEST.take(kept))
    assert found["count"] == int(kept.sum())
    assert [found[row]["images"] for row in ("unfiltered", "real_filtered")] == [found["count"]] * 2
    assert found["samples"] | found["b"]["samples"] == pytest.approx(
        without["samples"] | without["b"]["samples"], abs=0.2
    )
    assert {"unfiltered", "real_filtered"}.isdisjoint(without)
    filtered = found["a"]["real_filtered"]
    assert abs(filtered["frechet_excess"]) > 3 * filtered["frechet_excess_error"]  # the clearer half is another set


def test_only_classes_that_have_test_images_are_compared(classifiers: dict[str, Path]) -> None:
    """Of sevens, which look otherwise, there are none: the test images would be far from the training images."""
    samples, test, train = (split.take(split.labels == 3) for split in (HONEST, FRESH, TRAIN))
    found = scores(classifiers, HONEST, test)
    assert found.pop("left_out") == {"7": "no test images"}
    assert found == scores(classifiers, samples, test, train)


def test_samples_without_labels_are_compared_if_they_are_seen_as_a_class_that_is() -> None:
    logits = torch.zeros(4, 10)
    logits[:, 0], logits[[0, 2], 7] = 2, 1  # zeros are not among the classes
    samples = Classified(HONEST.images[:4], None, torch.arange(4), logits)
    real = samples._replace(given=torch.tensor([3, 3, 7, 7]))
    sets = Sets(samples, real, real)
    found = [*map(Classified.take, sets, sets.of_classes(torch.tensor([3]), CLASSES))]
    assert [each.features.tolist() for each in found] == [[1, 3], [0, 1], [0, 1]]
    assert [len(each.images) for each in found] == [len(each.logits) for each in found] == [2, 2, 2]


def test_few_test_images_judge_no_copies(classifiers: dict[str, Path]) -> None:
    found = scores(classifiers, HONEST.take(torch.arange(25) % 20), drawn(20, 1), drawn(60, 0))
    # 18 of them are threes, beside which there are 15 of 30 training images, and 10 test images.
    assert (found["count"], found["test"]["images"], found["equal_samples"]) == (15 + 6, 10 + 4, 5)
    assert found["samples"]["near_copies_ratio_pixels"] is None
    assert found["b"]["test"]["frechet_error"] > 0  # of the jackknife: they are all there are
    with pytest.raises(UserError, match=r"sample\.scored\.count or data\.test"):
        scores(classifiers, HONEST, drawn(5, 1), drawn(60, 0))


def test_of_a_set_of_one_class_nothing_is_recognised_and_all_else_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = FRUITS.model_copy(update={"classes": ("kite",)})
    levels, labels = images(300, card.shape), torch.zeros(300, dtype=torch.long)
    samples = Split(torch.cat([levels[:30], levels[270:]]), labels[:60])
    test, train = Split(levels[200:240], labels[:40]), Split(levels[:200], labels[:200])
    found = scores(written(tmp_path, card), samples, test, train)
    assert "warning: 30 of 60 samples are real training images, bit for bit" in capsys.readouterr().out
    for row in ("samples", "test"):
        assert found[row]["conditional_accuracy"] is None
    assert 0 <= found["samples"]["precision"] <= 1
    assert found["b"]["samples"]["frechet"] > 0
    assert "conditional_accuracy" not in scores(written(tmp_path, card), (samples.images, None), test, train)["samples"]


def test_a_classifier_that_sees_no_differences_ends_in_one_line(classifiers: dict[str, Path]) -> None:
    arrays, metadata = load_arrays(classifiers["b"])
    arrays["levels.2.4.weight"], arrays["levels.2.4.bias"] = torch.zeros(8), torch.full((8,), 0.3)
    save_arrays(classifiers["b"], arrays, metadata)  # collapsed: each feature is the same for all images
    with pytest.raises(UserError, match="classifier-b"):
        scores(classifiers, HONEST)
