"""Score samples against real images: distances, a two-sample test, variety, recognition and copying.

Distances use the features of each classifier, and principal components of the pixels. Classifier a selects settings; b
is only for reporting. Nothing is selected by the pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.images.card import listed
from ddpm.images.splits import Split
from ddpm.processes.device import Runtime
from ddpm.scores.c2st import c2st_scores, tone_shares
from ddpm.scores.classes import class_mix
from ddpm.scores.classifier import Classifier, features_and_logits, likeliest, load_classifier
from ddpm.scores.comparisons import Draws, Rows, among_real, compare, draw_subsets, variety
from ddpm.scores.components import principal_components
from ddpm.scores.copying import middle, near_copies, nearness, shifted
from ddpm.scores.distances import NONE, digest, share_of, varies
from ddpm.scores.manifold import NEIGHBOURS
from exact_stages.console import UserError, progress

MOST_COMPARED = 50_000  # images in each set: precision and recall compare every pair
PICTURED = 40  # samples at most in each of the sets for pictures
SEED = 0  # of the random subsets and of the two-sample test
VERSION = 5  # of the scores; raise it when equal samples get another score, as by another network or definition


class Classified(NamedTuple):
    """A set of images with one classifier's features and logits; the logits are all zero if there is a single class."""

    images: Tensor  # uint8 (N, C, H, W)
    given: Tensor | None  # true or requested classes (N,), if any
    features: Tensor  # (N, D), where distances are computed: on a GPU with float64, or on the CPU
    logits: Tensor

    @property
    def labels(self) -> Tensor:
        """Return the most probable classes."""
        return self.logits.argmax(1)

    def given_or_seen(self, classes: list[int]) -> Tensor:
        """Return the given classes, or else the most probable of `classes`."""
        return likeliest(self.logits, classes) if self.given is None else self.given

    def take(self, chosen: Tensor) -> "Classified":
        """Select images by a mask (N,)."""
        given = None if self.given is None else self.given[chosen]
        return Classified(self.images[chosen], given, self.features[chosen], self.logits[chosen])


class Sets(NamedTuple):
    """Samples, and real images of the trained classes; validation images count as training images."""

    samples: Classified
    test: Classified
    train: Classified

    def of(self, there: Tensor, classes: list[int]) -> "Sets":
        """Return the images of the classes `there`, given or seen among `classes`; copy nothing if these are all."""
        if len(there) == len(classes):
            return self
        return Sets(*(each.take(torch.isin(each.given_or_seen(classes), there)) for each in self))

    def features(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of the first `count` samples, which have the mix of all, and of all real images."""
        return self.samples.features[:count], self.test.features, self.train.features


class Evaluation(NamedTuple):
    """All scores, and samples for pictures, uint8 (PICTURED, C, H, W) or fewer.

    copied: those nearest to a training image, by the ratio of `Nearness` in pixels.
    detected: tested ones, those first of which the C2ST classifier is most certain; none without a two-sample test.
    """

    scores: dict[str, Any]
    copied: Tensor
    detected: Tensor


def evaluate(
    samples: tuple[Tensor, Tensor | None],
    test: Split,
    train: Split,
    classes: list[int],
    classifiers: Mapping[str, Path],
    runtime: Runtime,
    c2st_classifier: str = "b",
) -> Evaluation:
    """Compute all scores.

    Classes without test images are left out of all three sets. Otherwise test images would differ from training images
    by more than chance, and samples would look good beside them.

    Args:
        samples: images uint8 (N, C, H, W), and the requested classes (N,), if any.
        test: real test images of the same classes.
        train: real training images of the same classes.
        classes: labels of the sampled classes.
        classifiers: their files by name. The last one gives all scores except distances.
        c2st_classifier: the network of the two-sample test, one of C2ST_CLASSIFIERS.

    Raises:
        UserError: there are too few images, or a classifier sees no differences between them.
    """
    there = test.labels.unique()
    scores: dict[str, Any] = {}
    with progress(desc="evaluate", total=len(classifiers) + 3, unit="step") as bar:
        for name, path in classifiers.items():
            classifier = load_classifier(path)
            seen = Sets(*(classify(classifier, *each, runtime) for each in (samples, test, train)))
            if not varies(seen.train.features):
                raise UserError(
                    f"{path}: its features of all training images are alike; look at the images, or train it longer"
                )
            sets = seen.of(there, classes)
            count = comparable(*(len(each.images) for each in sets))
            draws = draw_subsets(len(sets.test.images), len(sets.train.images), count, SEED)
            scores[name] = distances(*sets.features(count), draws)
            bar.update()
        scores["pixels"] = compare_pixels(sets, count, draws)
        bar.update()
        rows, copied = examine(sets, draws, classes)
        bar.update()
        of_c2st, detected = c2st_scores(sets.samples.images, sets.train.images, c2st_classifier, SEED, runtime)
        bar.update()
        of_c2st["test"] = tone_shares(test.images)
        scores |= rounded({name: row | of_c2st[name] for name, row in rows.items()}, 4)
    distinct = {*map(digest, samples[0])}
    if equal := len(samples[0]) - len(distinct):
        print(f"warning: {equal} of {len(samples[0])} samples equal another one")
    if known := len(distinct.intersection(map(digest, train.images))):
        print(f"warning: {known} of {len(samples[0])} samples are real training images, bit for bit")
    none = [classifier.data.classes[label] for label in classes if label not in there]
    if none:
        print(f"note: left out of the scores, since there are no test images of them: {listed(none)}")
    left_out = {"left_out": dict.fromkeys(none, "no test images")} if none else {}
    pictured = (sets.samples.images[order[:PICTURED]] for order in (copied, detected))
    return Evaluation({"version": VERSION, "count": count, "equal_samples": equal, **left_out, **scores}, *pictured)


def comparable(samples: int, test: int, train: int) -> int:
    """Return how many images of each set to compare.

    Raises:
        UserError: there are too few.
    """
    count = min(samples, test, train // 2, MOST_COMPARED)
    if count <= NEIGHBOURS:
        raise UserError(
            f"{samples} samples, {test} test images and {train} training images, of classes that have test images, are "
            f"too few: the scores need more than {NEIGHBOURS} of each, and twice as many training images; give more "
            "images (in the pipeline, raise sample.scored.count or data.test)"
        )
    return count


def classify(classifier: Classifier, images: Tensor, given: Tensor | None, runtime: Runtime) -> Classified:
    """Apply a classifier to uint8 images (N, C, H, W) with the given classes (N,)."""
    place = runtime.device if runtime.device.type == "cuda" else torch.device("cpu")
    features, logits = features_and_logits(classifier, images, runtime.device)
    logits = logits if classifier.knows_classes else torch.zeros(len(logits), 1)
    return Classified(images, given, features.to(place), logits)


def distances(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Compute the distances of `compare` and `among_real`, rounded."""
    baseline = among_real(train, len(samples)).row("frechet")
    return rounded(compare(samples, test, train, draws) | {"baseline": baseline}, 5)


def compare_pixels(sets: Sets, count: int, draws: Draws) -> Rows:
    """Compute the distances on principal components of the training images."""
    pixels = principal_components(sets.train.images)
    samples, test, train = (pixels(each.images).to(each.features.device) for each in sets)
    return distances(samples[:count], test, train, draws)


def examine(sets: Sets, draws: Draws, classes: list[int]) -> tuple[Rows, Tensor]:
    """Score variety, recognition and copying of samples and test images; of the baseline, only variety.

    Return the scores, and the indices of samples, nearest to training images first. Scores that depend on the size of a
    set use equal counts; shares do not, and use all images. With a single class, there is no recognition.
    """
    rows = variety(*sets.features(len(draws.test)), draws)
    several = sets.train.logits.shape[1] > 1
    for name, seen in (("samples", sets.samples), ("test", sets.test)):
        if seen.given is not None:
            rows[name] |= (share_of(seen.labels == seen.given) if several else NONE).row("conditional_accuracy")
    given = sets.samples.given is not None
    labels, true = (each.given_or_seen(classes) if given else likeliest(each.logits, classes) for each in sets[:2])
    if len(true.unique()) > 1:
        for name, mix in zip(("samples", "test"), class_mix(labels, true), strict=True):
            rows[name] |= mix.row("class_mix")
    place = sets.samples.features.device
    train = middle(sets.train.images), sets.train.given_or_seen(classes)
    near = [nearness(shifted(each.images.to(place)), each.given_or_seen(classes), *train) for each in sets[:2]]
    for name, share in zip(("samples", "test"), near_copies(*near), strict=True):
        rows[name] |= share.row("near_copies_ratio_pixels")
    return rows, near[0].ratio.argsort()


def rounded(rows: Rows, digits: int) -> Rows:
    """Round to `digits` significant digits."""
    return {
        name: {key: None if value is None else float(f"{value:.{digits}g}") for key, value in row.items()}
        for name, row in rows.items()
    }
