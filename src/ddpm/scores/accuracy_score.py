"""Compute the classification accuracy score: train classifiers on samples, test them on real images.

The score is from Ravuri and Vinyals, arXiv:1905.10887. The labels of samples are the requested classes. For an
unconditional model, classifier b predicts the labels. For comparison, classifiers also learn from equally many real
images with true labels. Each training is repeated from several seeds, because a single one varies by more than typical
differences.
"""

import statistics
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion.randomness import generator
from ddpm.images.splits import Split, SplitFile
from ddpm.processes.device import Runtime
from ddpm.scores.classifier import Classifier, accuracy, features_and_logits, likeliest
from ddpm.scores.fit import fit_classifiers

CLASSIFIERS = 3  # trained on each, with different seeds
SEED = 2  # of the first; classifiers a and b have 0 and 1


def accuracy_score(
    samples: tuple[Tensor, Tensor | None],
    classes: list[int],
    train: SplitFile,
    test: SplitFile,
    classifier_b: Classifier,
    most: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """Train on samples and on real images in turn; test on the real test images of the sampled classes.

    Args:
        samples: images uint8 (N, C, H, W), and the requested classes (N,), if any.
        classes: labels of the sampled classes. With a single class there is no score.
        most: the largest number of training images.
        classifier_b: the new classifiers see as many images; it gives samples without a requested class their label.
    """
    if len(classes) == 1:
        return {"count": 0, "samples": None, "real": None}
    real, tested = train.of(classes), test.of(classes)
    images, asked = samples
    count = min(most, len(images), len(real.images))
    images = images[:count]
    if asked is None:
        labels = likeliest(features_and_logits(classifier_b, images, runtime.device)[1], classes)
    else:
        labels = asked[:count]
    recipe = classifier_b.recipe
    recipe = recipe.model_copy(update={"images_seen": recipe.epochs_of(len(train.split.labels)) * count})
    trainings = []
    for number in range(CLASSIFIERS):
        rng = generator(SEED, "classification accuracy score", number)
        subset = real.take(torch.randperm(len(real.images), generator=rng)[:count])
        new = recipe.model_copy(update={"seed": SEED + number})
        trainings += [(Split(images, labels), new), (subset, new)]
    learned = fit_classifiers("learn from samples and real images", trainings, classifier_b.data, runtime)
    found = [accuracy(each, *tested, runtime.device) for each in learned]
    rows: dict[str, dict[str, float | str]] = {}
    for name, each in (("samples", found[::2]), ("real", found[1::2])):
        mean, deviation = statistics.mean(each), statistics.stdev(each)
        rows[name] = {"accuracy": round(mean, 6), "accuracy_deviation": round(deviation, 6)}
    rows["samples"]["labels"] = "classifier b" if asked is None else "asked for"
    return {"count": count, "classifiers": CLASSIFIERS, **rows}
