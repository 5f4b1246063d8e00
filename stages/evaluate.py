"""Draw the pictures of what the model makes, and score it, on the features of both classifiers.

Recipes are chosen by the scores of classifier a, and those of b are reported; what else is measured takes b.
"""

import hashlib
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ddpm.data.images import to_float, to_uint8
from ddpm.data.splits import load_samples, load_split
from ddpm.networks.classifier import NAMES, features_and_logits, load_classifier
from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.device import start
from ddpm.runtime.files import write_json, write_whole
from ddpm.runtime.params import Section, Sections, load_params
from ddpm.runtime.randomness import generator
from ddpm.scoring.figures import class_histogram, image_gif, image_png, image_table, tile, to_png
from ddpm.scoring.manifold import NEIGHBOURS, manifold_scores
from ddpm.scoring.scores import (
    class_chi_square,
    class_imbalance,
    class_shares,
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
GRID_ROWS, GRID_COLUMNS, STRIP_FRAMES, PAIRS, EACH_CLASS = 6, 7, 10, 10, 10


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
        draw_gallery(gallery, gallery_card["kept_t"])
        draw_neighbours(seen["b"])
        draw_classes(seen["b"])
        draw_by_class(population["images"], population.get("labels", seen["b"].samples.labels))
        bar.update()
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


def draw_gallery(gallery: dict[str, Tensor], kept_t: list[int]) -> None:
    """The grid of samples, one sample's strip from noise to digit, and the reverse process as an animation."""
    images = gallery["images"].squeeze(1)
    x_t, pred_x_start = gallery["x_t"].squeeze(2), gallery["pred_x_start"].squeeze(2)
    write_whole(METRICS / "samples.png", image_png(tile(images[: GRID_ROWS * GRID_COLUMNS], GRID_COLUMNS), scale=4))
    last = slice(-STRIP_FRAMES, None)
    strip = torch.stack([x_t[last, 0], pred_x_start[last, 0]])
    titles = [f"t = {t}" for t in kept_t[last]]
    write_whole(
        METRICS / "denoising.png",
        to_png(image_table(strip, titles, "One sample: x_t above, the estimate of x_0 below")),
    )
    frames = [
        torch.cat([tile(noisy, 8), tile(clean, 8)], dim=1) for noisy, clean in zip(x_t, pred_x_start, strict=True)
    ]
    write_whole(METRICS / "reverse.gif", image_gif(frames, scale=1))


def draw_neighbours(sets: Sets) -> None:
    """Samples above, the training image nearest to each below."""
    shown = sets.samples.images[:PAIRS]
    nearest = nearest_neighbours(shown, sets.train.images)
    table = to_uint8(torch.stack([shown, sets.train.images[nearest.nearest]])).squeeze(2)
    titles = [f"{distance:.3f}" for distance in nearest.distance.tolist()]
    title = "Samples above, their nearest training images below (root-mean-square difference)"
    write_whole(METRICS / "neighbours.png", to_png(image_table(table, titles, title)))


def draw_classes(sets: Sets) -> None:
    """How often each class is recognised, among the samples and among the training images."""
    shares = {"samples": class_shares(sets.samples.labels), "training images": class_shares(sets.train.labels)}
    write_whole(METRICS / "classes.png", to_png(class_histogram(shares, "Classes as classifier b sees them")))


def draw_by_class(images: Tensor, labels: Tensor) -> None:
    """The first samples of each class, a row for each: as they were asked for, or else as classifier b sees them."""
    rows = []
    for label in labels.unique():
        row = images[labels == label][:EACH_CLASS]
        rows.append(F.pad(row, (0, 0) * 3 + (0, EACH_CLASS - len(row))))
    write_whole(METRICS / "by_class.png", image_png(tile(torch.cat(rows).squeeze(1), EACH_CLASS), scale=4))


if __name__ == "__main__":
    run(main)
