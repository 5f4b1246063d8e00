"""Draw the pictures of what the model makes, and score it, on the features of both classifiers.

Recipes are chosen by the scores of classifier a, and those of b are reported; what else is measured takes b. Beside
them stand distances on principal components of the pixels, by which nothing is chosen.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ddpm.classifier.model import NAMES, Classifier, features_and_logits, load_classifier
from ddpm.compute.device import Runtime, start
from ddpm.images.card import DataCard
from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.grids import by_class_picture, classes_picture, gallery_pictures, neighbours_picture
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.files import write_json, write_whole
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.scoring.comparisons import Draws, Rows, compare, draw_subsets, variety
from ddpm.scoring.components import Components, principal_components
from ddpm.scoring.copying import copying_z, near_copies, nearest_neighbours, nearness
from ddpm.scoring.manifold import NEIGHBOURS
from ddpm.scoring.scores import class_chi_square, class_imbalance, confident_share, likeliest

PROCESSED = Path("data/processed")
SAMPLES = Path("data/samples")
MODELS = Path("models")
METRICS = Path("metrics/evaluate")


class EvaluateParams(Section):
    """What counts as recognised, and the seed of the random subsets."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Params(Sections):
    """What this stage reads."""

    evaluate: EvaluateParams


class Seen(NamedTuple):
    """A set of images with what one classifier sees in it; where there is but one class, the logits are all zero."""

    images: Tensor  # uint8 (N, C, H, W)
    given: Tensor | None  # the classes that they have or were to have (N,), where there are such
    features: Tensor  # (N, D), where distances are computed: on a GPU with float64, or on the CPU
    logits: Tensor

    @property
    def labels(self) -> Tensor:
        """The most probable classes."""
        return self.logits.argmax(1)

    def given_or_seen(self, classes: list[int]) -> Tensor:
        """The given classes; without them, the most probable ones of these."""
        return likeliest(self.logits, classes) if self.given is None else self.given


class Sets(NamedTuple):
    """Samples, and real images of the classes trained on; images held out count as training images."""

    samples: Seen
    test: Seen
    train: Seen

    def features(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the first so many samples, which are drawn independently, and of all real images."""
        return self.samples.features[:count], self.test.features, self.train.features


def main(stage: Stage) -> None:
    """Look at all images with both classifiers, score, and draw."""
    params = stage.params(Params).evaluate
    runtime = start()
    gallery, data, kept = load_samples(stage.input(SAMPLES / "gallery.safetensors"))
    population, _, facts = load_samples(stage.input(SAMPLES / "filtered.safetensors"))
    if not kept["kept_t"]:
        raise UserError("sample.gallery.keep_every: the strip needs kept frames; set it to 1 or more")
    samples = population["images"], population.get("labels")
    test, train = (
        load_split(stage.input(PROCESSED / f"{split}.safetensors")).of(facts["classes"]) for split in ("test", "train")
    )
    count = min(len(samples[0]), len(test.images), len(train.images) // 2)
    if count <= NEIGHBOURS:
        found = f"{len(samples[0])} samples, {len(test.images)} test images and {len(train.images)} training images"
        raise UserError(
            f"sample.population.count, data.test: the scores need more than {NEIGHBOURS} samples and test images, "
            f"and twice as many training images, of the classes drawn; there are {found}"
        )
    draws = draw_subsets(len(test.images), len(train.images), count, params.seed)
    scores: dict[str, object] = {"count": count}
    with progress(desc="evaluate", total=len(NAMES) + 2, unit="step") as bar:
        for name in NAMES:
            path = stage.input(MODELS / f"classifier-{name}.safetensors")
            sets = look(load_classifier(path), (samples, test, train), runtime)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            scores[name] = {"classifier_sha256": digest, **rounded(compare(*sets.features(count), draws), 5)}
            bar.update()
        pixels = Components(*(each.to(sets.samples.features.device) for each in principal_components(train.images)))
        drawn_pixels, test_pixels, train_pixels = (pixels(each) for each in (samples[0], test.images, train.images))
        scores["pixels"] = rounded(compare(drawn_pixels[:count], test_pixels, train_pixels, draws), 5)
        # From here on, as classifier b sees them, which is the last.
        scores |= rounded(examine(sets, draws, data, facts["classes"], params), 4)
        bar.update()
        pictures = gallery_pictures(gallery["images"], gallery["x_t"], gallery["pred_x_start"], kept["kept_t"])
        pictures["neighbours.png"] = neighbours_picture(sets.samples.images, train.images)
        names = data.classes
        pictures["classes.png"] = classes_picture(sets.samples.labels, sets.train.labels, names)
        drawn = sets.samples.given_or_seen(facts["classes"])
        pictures["by_class.png"] = by_class_picture(population["images"], drawn, names)
        bar.update()
    for name, picture in pictures.items():
        write_whole(stage.output(METRICS / name), picture)
    write_json(stage.output(METRICS / "scores.json"), scores)


def look(classifier: Classifier, images: Iterable[tuple[Tensor, Tensor | None]], runtime: Runtime) -> Sets:
    """What the classifier sees in samples, test images and training images, each with the given classes."""
    place = runtime.device if runtime.device.type == "cuda" else torch.device("cpu")

    def seen(each: Tensor, given: Tensor | None) -> Seen:
        features, logits = features_and_logits(classifier, each, runtime.device)
        logits = logits if classifier.knows_classes else torch.zeros(len(logits), 1)
        return Seen(each, given, features.to(place), logits)

    return Sets(*(seen(*each) for each in images))


def examine(sets: Sets, draws: Draws, data: DataCard, classes: list[int], params: EvaluateParams) -> Rows:
    """Variety, recognition, balance and copying, of the samples and of test images; of the floor, variety alone.

    Shares of a set do not depend on its size, and are those of all images; what does depend on it is told by equal
    counts. Where there is but one class, nothing is recognised.
    """
    count = len(draws.test[0])
    rows = variety(*sets.features(count), draws)
    for name, seen, chosen in (("samples", sets.samples, slice(count)), ("test", sets.test, draws.test[0])):
        row = recognition(seen, seen.labels[chosen], sets.train.labels, params.confidence)
        rows[name] |= row if len(data.classes) > 1 else dict.fromkeys(row)
    for name, row in copies(sets, classes, draws.test[0]).items():
        rows[name] |= row
    return rows


def recognition(seen: Seen, labels: Tensor, train: Tensor, confidence: float) -> dict[str, float | None]:
    """How sure and how right the classifier is of a set, and how often it sees each class beside training images (M,).

    Args:
        labels: what it sees in as many images (N,) as are compared.
    """
    chi_square, p_value = class_chi_square(labels, train)
    return {
        "confident_share": confident_share(seen.logits, confidence),
        **({} if seen.given is None else {"label_accuracy": agreement(seen.labels, seen.given)}),
        "class_imbalance": class_imbalance(labels, train),
        "class_chi_square": chi_square,
        "class_p_value": p_value,
    }


def copies(sets: Sets, classes: list[int], chosen: Tensor) -> Rows:
    """How near samples and test images are to training images, in pixels and in features.

    Distances to the nearest of all training images are those of the chosen test images, and of as many samples; how
    near images are to those of their class is told of all.
    """
    labels = [each.given_or_seen(classes) for each in sets]
    place = sets.samples.features.device
    rows: Rows = {"samples": {}, "test": {}}
    for space, (samples, test, train) in (
        ("pixels", (sets.samples.images.to(place), sets.test.images.to(place), sets.train.images)),
        ("features", (each.features for each in sets)),
    ):
        distances = [nearest_neighbours(each, train).distance.cpu() for each in (samples[: len(chosen)], test[chosen])]
        of_class = [nearness(each, own, train, labels[2]) for each, own in ((samples, labels[0]), (test, labels[1]))]
        found = near_copies(*of_class)
        rows["samples"] |= {
            f"nearest_train_{space}": distances[0].median().item(),
            f"copying_z_{space}": copying_z(*distances),
            f"near_copies_{space}": found.distance,
            f"near_copies_ratio_{space}": found.ratio,
            f"near_copies_judged_{space}": found.judged,
        }
        rows["test"] |= {f"nearest_train_{space}": distances[1].median().item(), f"twins_{space}": found.twins}
    return rows


def rounded(rows: Rows, digits: int) -> Rows:
    """To so many digits that count."""
    return {
        name: {key: None if value is None else float(f"{value:.{digits}g}") for key, value in row.items()}
        for name, row in rows.items()
    }


def agreement(labels: Tensor, given: Tensor) -> float:
    """Share of the images that are taken for what they are, or are meant to be."""
    return float((labels == given).double().mean())


if __name__ == "__main__":
    run_stage("evaluate", main)
