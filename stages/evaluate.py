"""Draw the pictures of what the model makes, and score it, on the features of both classifiers.

Recipes are chosen by the scores of classifier a, and those of b are reported; what else is measured takes b.
"""

import hashlib
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ddpm.data.images import to_float
from ddpm.data.splits import load_samples, load_split
from ddpm.networks.classifier import NAMES, features_and_logits, load_classifier
from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.device import start
from ddpm.runtime.files import write_json, write_whole
from ddpm.runtime.params import Section, Sections, load_params
from ddpm.runtime.randomness import generator
from ddpm.scoring.manifold import NEIGHBOURS, manifold_scores
from ddpm.scoring.pictures import by_class_picture, classes_picture, gallery_pictures, neighbours_picture
from ddpm.scoring.scores import (
    class_chi_square,
    class_imbalance,
    confident_share,
    copying,
    frechet_distance,
    kernel_distance,
    nearest_neighbours,
)

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
    """A set of images with what one classifier sees in it."""

    images: Tensor  # (N, 1, 28, 28) in [-1, 1]
    features: Tensor
    logits: Tensor

    @property
    def labels(self) -> Tensor:
        """The most probable classes."""
        return self.logits.argmax(1)

    def first(self, count: int) -> "Seen":
        """The first of them."""
        return Seen(self.images[:count], self.features[:count], self.logits[:count])


class Sets(NamedTuple):
    """Samples, and real images of the classes trained on; images held out count as training images."""

    samples: Seen
    test: Seen
    train: Seen


def main() -> None:
    """Look at all images with both classifiers, score, and draw."""
    params = load_params(Params).evaluate
    runtime = start()
    gallery, gallery_card = load_samples(SAMPLES / "gallery.safetensors")
    population, card = load_samples(SAMPLES / "population.safetensors")
    if not gallery_card["kept_t"]:
        raise UserError("sample.gallery.keep_every: the strip needs kept frames; set it to 1 or more")
    test, train = (load_split(PROCESSED / f"{split}.safetensors", card["classes"]) for split in ("test", "train"))
    images = (to_float(population["images"]), test.images, train.images)
    count = min(len(images[0]), len(images[1]), len(images[2]) // 2)
    if count <= NEIGHBOURS:
        raise UserError(f"sample.population.count: the scores need more than {NEIGHBOURS} samples and test images")
    scores: dict[str, object] = {"count": count}
    seen = {}
    with progress(desc="evaluate", total=len(NAMES) + 2, unit="step") as bar:
        for name in NAMES:
            path = MODELS / f"classifier-{name}.safetensors"
            classifier = load_classifier(path)
            seen[name] = Sets(*(Seen(each, *features_and_logits(classifier, each, runtime.device)) for each in images))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            scores[name] = {"classifier_sha256": digest, **compare(seen[name], count, params)}
            bar.update()
        labels = {"samples": population.get("labels"), "test": test.labels}
        scores |= examine(seen["b"], labels, count, params)
        bar.update()
        samples, _, train_seen = seen["b"]
        pictures = gallery_pictures(gallery["images"], gallery["x_t"], gallery["pred_x_start"], gallery_card["kept_t"])
        pictures["neighbours.png"] = neighbours_picture(samples.images, train_seen.images)
        pictures["classes.png"] = classes_picture(samples.labels, train_seen.labels)
        pictures["by_class.png"] = by_class_picture(population["images"], population.get("labels", samples.labels))
        bar.update()
    for name, picture in pictures.items():
        write_whole(METRICS / name, picture)
    write_json(METRICS / "scores.json", scores)


def compare(sets: Sets, count: int, params: EvaluateParams) -> dict[str, object]:
    """Distances from the training images, each by `count` images: of samples, of test images, and the floor.

    The floor is the distance of training images that are left out for it from the others.
    """
    train = sets.train.features
    order = floor_order(len(train), params.seed)
    pairs = {
        "samples": (train, sets.samples.features[:count]),
        "test": (train, sets.test.features[:count]),
        "floor": (train[order[count:]], train[order[:count]]),
    }
    frechet = {name: frechet_distance(*pair) for name, pair in pairs.items()}
    rows: dict[str, object] = {}
    for name, pair in pairs.items():
        kid, kid_deviation = kernel_distance(*pair, params.seed)
        rows[name] = {
            "frechet": round(frechet[name], 5),
            "frechet_over_floor": round(frechet[name] / frechet["floor"], 3) if frechet["floor"] else None,
            "kid": round(kid, 6),
            "kid_deviation": round(kid_deviation, 6),
        }
    return rows


def floor_order(images: int, seed: int) -> Tensor:
    """A random order of the training images: the first of them stand for all where counts must be equal."""
    return torch.randperm(images, generator=generator(seed, "floor"))


def examine(
    sets: Sets, labels: dict[str, Tensor | None], count: int, params: EvaluateParams
) -> dict[str, dict[str, float]]:
    """Recognition, balance, variety and copying, of the samples and of as many test images.

    Copying is told from test images, so for them it is not; labels are those of a class-conditional model's samples.
    """
    train = sets.train
    reference = train.features[floor_order(len(train.features), params.seed)[:count]]
    rows = {"samples": sets.samples.first(count), "test": sets.test.first(count)}
    nearest = {
        name: (
            nearest_neighbours(row.images, train.images).distance,
            nearest_neighbours(row.features, train.features).distance,
        )
        for name, row in rows.items()
    }
    found = {}
    for name, row in rows.items():
        chi_square, p_value = class_chi_square(row.labels, train.labels)
        found[name] = {
            "confident_share": confident_share(row.logits, params.confidence),
            **manifold_scores(reference, row.features)._asdict(),
            **({} if (asked := labels[name]) is None else {"label_accuracy": agreement(row.labels, asked[:count])}),
            "class_imbalance": class_imbalance(row.labels, train.labels),
            "class_chi_square": chi_square,
            "class_p_value": p_value,
            "nearest_train_pixels": nearest[name][0].median().item(),
            "nearest_train_features": nearest[name][1].median().item(),
        }
    for space, samples, test in zip(("pixels", "features"), nearest["samples"], nearest["test"], strict=True):
        z, near_copies = copying(samples, test)
        found["samples"] |= {f"copying_z_{space}": z, f"near_copies_{space}": near_copies}
    return {name: {key: float(f"{value:.4g}") for key, value in values.items()} for name, values in found.items()}


def agreement(labels: Tensor, asked: Tensor) -> float:
    """Share of the images that are taken for what they are meant to be."""
    return float((labels == asked).double().mean())


if __name__ == "__main__":
    run(main)
