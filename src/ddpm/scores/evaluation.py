"""Score samples against real images: distances, a two-sample test, variety, recognition, copying and specks.

The rows differ in one thing: samples before a filter and after it, real training images with the label counts of the
samples, the same through the filter, and test images; see `comparisons`. Distances use the features of each classifier,
and principal components of the pixels. Classifier a selects settings; b is only for reporting. Nothing is selected by
the pixels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.images.card import listed
from ddpm.images.splits import Split
from ddpm.processes.device import Runtime
from ddpm.processes.workers import map_shards
from ddpm.scores.c2st import c2st_pairs, run_c2st
from ddpm.scores.classes import class_mix
from ddpm.scores.classifier import NAMES, Classifier, features_and_logits, likeliest, load_classifier
from ddpm.scores.comparisons import Places, Rows, compare, draw_places, left_out, variety
from ddpm.scores.components import principal_components
from ddpm.scores.copying import middle, near_copies, nearness, shifted
from ddpm.scores.distances import NONE, digest, share_of, varies
from ddpm.scores.filtering import passing, recognised_by
from ddpm.scores.judges import Judge
from ddpm.scores.manifold import NEIGHBOURS
from ddpm.scores.specks import has_specks, may_have_specks
from exact_stages.console import UserError, progress

PICTURED = 40  # samples at most in each of the sets for pictures
SEED = 0  # of the random subsets and of the two-sample test
VERSION = 7  # of the scores; raise it when equal samples get another score, as by another network or definition


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
    """Samples before any filter, and real images of the trained classes; validation images count as training images."""

    samples: Classified
    test: Classified
    train: Classified

    def of_classes(self, there: Tensor, classes: list[int]) -> list[Tensor]:
        """Tell for each set which images are of the classes `there`, given or seen among `classes`."""
        return [torch.isin(each.given_or_seen(classes), there) for each in self]

    @property
    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of each set."""
        return self.samples.features, self.test.features, self.train.features

    def drawn(self, places: Places) -> dict[str, Classified]:
        """Return the images of each row; of training images, those of the first set."""
        sources = {"samples": self.samples, "unfiltered": self.samples, "test": self.test}
        rows = {name: each for name, each in places.items() if name not in ("fewer", "no reference")}
        return {name: sources.get(name, self.train).take(each[0]) for name, each in rows.items()}


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
    kept: Tensor | None = None,
    judge: Judge | None = None,
) -> Evaluation:
    """Compute all scores.

    Classes without test images are left out of all sets: there would be no new real images to compare them with.

    Args:
        samples: images uint8 (N, C, H, W), and the requested classes (N,), if any; before the filter.
        test: real test images of the same classes.
        train: real training images of the same classes.
        classes: labels of the sampled classes.
        classifiers: their files by name. The first one filters; the last one gives all scores except distances.
        c2st_classifier: the network of the two-sample test, one of C2ST_CLASSIFIERS.
        kept: the samples that a filter kept (N,); without one, all.
        judge: takes the place of the last classifier; the reference of distances is its own.

    Raises:
        UserError: there are too few images, or a classifier sees no differences between them.
    """
    kept = torch.ones(len(samples[0]), dtype=torch.bool) if kept is None else kept
    classifiers = classifiers if judge is None else {**classifiers, NAMES[-1]: judge.path}
    reference = None if judge is None else judge.reference
    there, distinct = test.labels.unique(), [digest(image) for image in samples[0][kept]]
    seen: dict[str, Sets] = {}
    for name, path in progress(classifiers.items(), desc="classify", unit="classifier"):
        classifier = load_classifier(path)
        sets = seen[name] = Sets(*(classify(classifier, *each, runtime) for each in (samples, test, train)))
        if not varies(sets.train.features):
            raise UserError(
                f"{path}: its features of all training images are alike; look at the images, or train it longer"
            )
    if len(there) < len(classes):
        masks = sets.of_classes(there, classes)
        seen = {name: Sets(*map(Classified.take, found, masks)) for name, found in seen.items()}
        kept, sets = kept[masks[0]], seen[name]
        reference = None if reference is None else reference[masks[2]]
    check_enough(int(kept.sum()), len(sets.test.images), len(sets.train.images))
    places = draw_rows(next(iter(seen.values())), kept, classes, reference)
    rows = sets.drawn(places)
    pairs = c2st_pairs({name: row.images for name, row in rows.items()}, rows["real"].images)
    tasks: dict[object, Callable[[], Any]] = {  # those that take longest first, so that workers end together
        "examined": partial(examine, sets, places, classes),
        **{test: partial(run_c2st, *pair, c2st_classifier, SEED, runtime) for test, pair in pairs.items()},
        "pixels": partial(compare_pixels, sets, places),
        **{name: partial(compare, *found.features, places) for name, found in seen.items()},
    }
    done = progress(
        map_shards(lambda index: [*tasks.values()][index](), range(len(tasks))),
        desc="evaluate",
        total=len(tasks),
        unit="step",
    )
    found = dict(zip(tasks, done, strict=True))
    scores: dict[str, Any] = {name: rounded(found[name], 5) for name in (*seen, "pixels")}
    examined, copied = found["examined"]
    for name, key in pairs:
        examined[name] |= found[name, key].accuracy.row(key)
    for name, values in rounded(examined, 4).items():
        scores[name] = {"images": len(rows[name].images), **values}
    if equal := len(distinct) - len({*distinct}):
        print(f"warning: {equal} of {len(distinct)} samples equal another one")
    if known := len({*distinct}.intersection(map(digest, train.images))):
        print(f"warning: {known} of {len(distinct)} samples are real training images, bit for bit")
    none = [classifier.data.classes[label] for label in classes if label not in there]
    if none:
        print(f"note: left out of the scores, since there are no test images of them: {listed(none)}")
    without = {"left_out": dict.fromkeys(none, "no test images")} if none else {}
    count = len(rows["samples"].images)
    scale = {"scale": judge.scale(count, runtime.name)} if judge else {}
    facts = {"version": VERSION, "count": count, "equal_samples": equal, **scale, **without}
    detected = found["samples", "c2st_accuracy"].most_certain
    return Evaluation(facts | scores, *(rows["samples"].images[order[:PICTURED]] for order in (copied, detected)))


def check_enough(samples: int, test: int, train: int) -> None:
    """Check that there are enough images to compare.

    Raises:
        UserError: there are too few.
    """
    if min(samples, test, train // 2) <= NEIGHBOURS:
        raise UserError(
            f"{samples} samples, {test} test images and {train} training images, of classes that have test images, are "
            f"too few: the scores need more than {NEIGHBOURS} of each, and twice as many training images; give more "
            "images (in the pipeline, raise sample.scored.count or data.test)"
        )


def classify(classifier: Classifier, images: Tensor, given: Tensor | None, runtime: Runtime) -> Classified:
    """Apply a classifier to uint8 images (N, C, H, W) with the given classes (N,)."""
    place = runtime.device if runtime.device.type == "cuda" else torch.device("cpu")
    features, logits = features_and_logits(classifier, images, runtime.device)
    logits = logits if classifier.knows_classes else torch.zeros(len(logits), 1)
    return Classified(images, given, features.to(place), logits)


def draw_rows(sets: Sets, kept: Tensor, classes: list[int], reference: Tensor | None = None) -> Places:
    """Choose the images of each row, by the labels if the samples have any; at random otherwise.

    Args:
        sets: as the classifier that filters sees them.

    Raises:
        UserError: of the classes of the samples there are too few real images.
    """
    asked = sets.samples.given is not None
    labels = [each.given_or_seen(classes) if asked else likeliest(each.logits, classes) for each in sets]
    samples, _, train = (recognised_by(each.logits, own) for each, own in zip(sets, labels, strict=True))
    passes = passing(samples.take(kept), train) if not kept.all() else torch.ones_like(train.labels, dtype=torch.bool)
    own, test, real = labels if asked else map(torch.zeros_like, labels)
    places = draw_places(own, test, real, kept, passes, SEED, reference)
    check_enough(len(places["samples"][0]), len(places["test"][0]), 2 * len(places["real"][0]))
    return places


def compare_pixels(sets: Sets, places: Places) -> Rows:
    """Compute the distances on principal components of the training images."""
    pixels = principal_components(sets.train.images)
    samples, test, train = (pixels(each.images).to(each.features.device) for each in sets)
    return compare(samples, test, train, places)


def examine(sets: Sets, places: Places, classes: list[int]) -> tuple[Rows, Tensor]:
    """Score recognition, copying and specks in each row, and variety in those without a filter.

    Return the scores, and the places of samples in their row, nearest to training images first. With a single class,
    there is no recognition.
    """
    rows, varied = sets.drawn(places), variety(*sets.features, places)
    several, specks = sets.train.logits.shape[1] > 1, may_have_specks(sets.train.images)
    found: Rows = {name: {} | varied.get(name, {}) for name in rows}
    for name, seen in rows.items():
        if seen.given is not None:
            found[name] |= (share_of(seen.labels == seen.given) if several else NONE).row("conditional_accuracy")
        found[name] |= (share_of(has_specks(seen.images)) if specks else NONE).row("specks")
    guessed, true = (likeliest(rows[name].logits, classes) for name in ("samples", "test"))
    if sets.samples.given is None and len(true.unique()) > 1:
        for name, mix in zip(("samples", "test"), class_mix(guessed, true), strict=True):
            found[name] |= mix.row("class_mix")
    real, device = left_out(places, 0, ("real", "real_filtered")), sets.samples.features.device
    train = middle(sets.train.images), sets.train.given_or_seen(classes)
    own, others, test = (
        nearness(shifted(each.images.to(device)), each.given_or_seen(classes), *train, trained)
        for each, trained in ((sets.samples, False), (sets.train.take(real), True), (sets.test, False))
    )
    of_train = torch.empty(len(sets.train.images)).index_copy(0, real, others.ratio)
    ratios = {
        name: (of_train if name.startswith("real") else own.ratio)[places[name][0]] for name in rows if name != "test"
    }
    for name, share in zip([*ratios, "test"], near_copies([*ratios.values()], test), strict=True):
        found[name] |= share.row("near_copies_ratio_pixels")
    return found, ratios["samples"].argsort()


def rounded(rows: Rows, digits: int) -> Rows:
    """Round to `digits` significant digits."""
    return {
        name: {key: None if value is None else float(f"{value:.{digits}g}") for key, value in row.items()}
        for name, row in rows.items()
    }
