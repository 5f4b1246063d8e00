"""The evaluate stage: of which images each score is made, and what it says where there are few."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.classifier.model import Classifier, features_and_logits, load_classifier, save_classifier
from ddpm.images.card import DataCard
from ddpm.images.pixels import to_uint8
from ddpm.pipeline.console import UserError
from ddpm.pipeline.stage import Stage
from ddpm.scoring.scores import frechet_distance
from stages.evaluate import main
from tests.small import DIGITS, FRUITS, images
from tests.stages.written import classifier_params, write_samples, write_split

CLASSES = (3, 7)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with params and two classifiers that know nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    Path("params.yaml").write_text("evaluate: {confidence: 0.12, seed: 0}\n")
    deterministic = torch.are_deterministic_algorithms_enabled()
    classifiers(DIGITS)
    yield
    torch.use_deterministic_algorithms(deterministic)


def classifiers(card: DataCard) -> None:
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_classifier(Path(f"models/classifier-{name}.safetensors"), Classifier(classifier_params(seed=seed), card))


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images uint8 (count, 1, 28, 28) of soft spots, and their classes: first all threes, of little contrast."""
    labels = torch.tensor(CLASSES).repeat_interleave((count + 1) // 2)[:count]
    spots = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    scales = torch.where(labels == CLASSES[0], 0.1, 0.4).view(-1, 1, 1, 1)
    return to_uint8(scales * F.interpolate(spots, size=(28, 28), mode="bilinear")), labels


def shuffled(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


TRAIN, FRESH, HONEST = drawn(1200, 0), drawn(600, 1), shuffled(*drawn(300, 2))


def split(name: str, images: Tensor, labels: Tensor, card: DataCard = DIGITS) -> None:
    write_split(name, card, images, labels)


def samples(
    images: Tensor, labels: Tensor | None = None, classes: tuple[int, ...] = CLASSES, card: DataCard = DIGITS
) -> None:
    for name, kept in (("filtered", 0), ("gallery", 2)):
        write_samples(name, card, images, labels, [*classes], kept)


def scores() -> dict[str, Any]:
    main(Stage("evaluate"))
    return json.loads(Path("metrics/evaluate/scores.json").read_text())


def seen(images: Tensor) -> tuple[Tensor, Tensor]:
    return features_and_logits(load_classifier(Path("models/classifier-b.safetensors")), images, CPU)


def test_every_score_is_of_the_images_that_it_says() -> None:
    split("train", *TRAIN)
    split("test", *FRESH)
    copied = (each[-60:] for each in TRAIN)  # a fifth of the samples, all of them sevens
    images, labels = shuffled(*(torch.cat([ours, honest[60:]]) for ours, honest in zip(copied, HONEST, strict=True)))
    samples(images, labels)
    found = scores()
    assert found["count"] == 300
    for name, given in (("samples", (images, labels)), ("test", FRESH)):
        _, logits = seen(given[0])  # all of them, though `count` of the test images make the distances
        assert found[name]["label_accuracy"] == float(f"{(logits.argmax(1) == given[1]).double().mean():.4g}")
        confident = (logits.softmax(1).amax(1) >= 0.12).double().mean().item()
        assert found[name]["confident_share"] == pytest.approx(confident, abs=1e-3)
    assert found["samples"]["near_copies_pixels"] == pytest.approx(0.2, abs=0.04)
    assert found["samples"]["near_copies_judged_pixels"] == 1
    assert found["test"]["twins_pixels"] == 0
    # The first half of the test images is all threes: no sample. Random ones are as near as training images are.
    train, first = seen(TRAIN[0])[0], seen(FRESH[0][:300])[0]
    rows = found["b"]
    assert abs(rows["test"]["frechet"] - rows["floor"]["frechet"]) < 6 * rows["floor"]["frechet_deviation"]
    assert frechet_distance(train, first) > 10 * rows["test"]["frechet"]
    assert rows["floor"]["frechet_over_floor"] == 1
    assert found["floor"].keys() >= {"precision", "recall_deviation"}
    assert scores() == found


def test_samples_without_labels_are_of_the_classes_that_classifier_b_sees_among_those_of_the_model() -> None:
    split("train", *TRAIN)
    split("test", *FRESH)
    samples(TRAIN[0][::4])
    found = scores()
    assert "label_accuracy" not in found["samples"]
    assert found["test"]["label_accuracy"] < 1
    assert found["samples"]["near_copies_judged_pixels"] == found["samples"]["near_copies_judged_features"] == 1
    # Copies of what classifier b takes for the other class are not found; it sees one of the two in all images alike.
    seen_as = torch.tensor(CLASSES)[seen(TRAIN[0][::4])[1][:, CLASSES].argmax(1)]
    right = (seen_as == TRAIN[1][::4]).double().mean().item()
    assert found["samples"]["near_copies_pixels"] == pytest.approx(right, abs=0.01)


def test_few_test_images_judge_no_copies() -> None:
    split("train", *drawn(60, 0))
    split("test", *drawn(20, 1))
    samples(*HONEST)
    found = scores()
    assert found["count"] == 20
    for space in ("pixels", "features"):
        assert found["samples"][f"near_copies_{space}"] is None
        assert found["samples"][f"near_copies_ratio_{space}"] is None
        assert found["samples"][f"near_copies_judged_{space}"] == 0
        assert found["samples"][f"copying_z_{space}"] > -3
    assert found["b"]["test"]["frechet_deviation"] > 0  # of the jackknife: they are all there are


def test_a_class_without_test_images_is_not_judged() -> None:
    split("train", *TRAIN)
    split("test", FRESH[0][300:], FRESH[1][300:])
    samples(*HONEST)
    found = scores()
    assert found["samples"]["near_copies_judged_pixels"] == 0.5
    assert found["samples"]["near_copies_pixels"] <= 0.04


def test_a_single_class() -> None:
    split("train", *TRAIN)
    split("test", *FRESH)
    sevens = HONEST[1] == 7
    samples(HONEST[0][sevens], HONEST[1][sevens], (7,))
    found = scores()
    assert found["count"] == 150
    assert found["samples"]["near_copies_judged_pixels"] == 1
    assert found["samples"]["near_copies_pixels"] <= 0.04


PICTURES = {"by_class.png", "classes.png", "denoising.png", "neighbours.png", "reverse.gif", "samples.png"}
OF_CLASSES = {"confident_share", "class_imbalance", "class_chi_square", "class_p_value"}


def test_images_in_colour_that_are_not_square() -> None:
    classifiers(FRUITS)
    labels = torch.arange(300) % 3
    levels = images(300, FRUITS.shape)
    split("train", levels[:200], labels[:200], FRUITS)
    split("test", levels[200:240], labels[200:240], FRUITS)
    samples(levels[240:], labels[240:], (0, 1, 2), FRUITS)
    found = scores()
    assert found["count"] == 40
    assert None not in [found[row][name] for row in ("samples", "test") for name in OF_CLASSES | {"label_accuracy"}]
    assert {path.name for path in Path("metrics/evaluate").iterdir()} == PICTURES | {"scores.json"}


def test_of_a_set_of_one_class_nothing_is_recognised_and_all_else_is_told() -> None:
    card = FRUITS.model_copy(update={"classes": ("kite",)})
    classifiers(card)
    levels, labels = images(300, card.shape), torch.zeros(300, dtype=torch.long)
    split("train", levels[:200], labels[:200], card)
    split("test", levels[200:240], labels[200:240], card)
    copied = torch.cat([levels[:30], levels[270:]])
    samples(copied, labels[:60], (0,), card)
    found = scores()
    for row in ("samples", "test"):
        assert {name for name in found[row] if found[row][name] is None} >= OF_CLASSES | {"label_accuracy"}
    assert found["samples"]["nearest_train_pixels"] == 0  # of the first forty, thirty are copies
    assert found["test"]["nearest_train_pixels"] > 0
    assert 0 <= found["samples"]["precision"] <= 1
    assert found["b"]["samples"]["frechet"] > 0
    assert {path.name for path in Path("metrics/evaluate").iterdir()} == PICTURES | {"scores.json"}


def test_of_a_set_of_one_class_a_model_that_is_told_none_has_no_labels() -> None:
    card = DIGITS.model_copy(update={"classes": ("kite",)})
    classifiers(card)
    split("train", images(200), torch.zeros(200, dtype=torch.long), card)
    split("test", images(40), torch.zeros(40, dtype=torch.long), card)
    samples(images(60), None, (0,), card)
    found = scores()
    assert "label_accuracy" not in found["samples"]
    assert {name for name in found["samples"] if found["samples"][name] is None} >= OF_CLASSES
    assert found["samples"]["nearest_train_pixels"] == 0


def test_too_few_images_are_refused() -> None:
    split("train", *drawn(60, 0))
    split("test", *drawn(5, 1))
    samples(*HONEST)
    there = "there are 300 samples, 5 test images and 60 training images$"
    with pytest.raises(
        UserError, match=rf"^sample\.population\.count, data\.test: the scores need more than 5 .*{there}"
    ):
        scores()
