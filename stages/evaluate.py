"""Draw the pictures of what the model makes, and score it on the classifier's features."""

from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ddpm.arrays import load_arrays
from ddpm.classifier import features_and_logits, load_classifier
from ddpm.console import UserError, progress, run
from ddpm.device import start
from ddpm.figures import class_histogram, image_gif, image_png, image_table, tile, to_png
from ddpm.files import write_json, write_whole
from ddpm.images import to_float, to_uint8
from ddpm.params import Section, Sections, load_params
from ddpm.randomness import generator
from ddpm.scores import class_shares, confident_share, frechet_distance, kernel_distance, nearest_neighbours

PROCESSED = Path("data/processed")
SAMPLES = Path("data/samples")
CLASSIFIER = Path("models/classifier.safetensors")
METRICS = Path("metrics/evaluate")
SAMPLE_ARRAYS = {"images", "x_t", "pred_x_start"}
GRID_ROWS, GRID_COLUMNS, STRIP_FRAMES, PAIRS = 6, 7, 10, 10


class EvaluateParams(Section):
    """What counts as recognised, and the seed of the random subsets."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


class Params(Sections):
    """What this stage reads."""

    evaluate: EvaluateParams


class Scored(NamedTuple):
    """A set of images with what the classifier sees in it."""

    images: Tensor  # (N, 1, 28, 28) in [-1, 1]
    features: Tensor
    logits: Tensor

    def take(self, index: Tensor | slice) -> "Scored":
        """Some of them."""
        return Scored(self.images[index], self.features[index], self.logits[index])


def main() -> None:
    """Pictures first, then scores."""
    params = load_params(Params).evaluate
    runtime = start()
    gallery, gallery_card = load_arrays(SAMPLES / "gallery.safetensors", SAMPLE_ARRAYS)
    population, card = load_arrays(SAMPLES / "population.safetensors", SAMPLE_ARRAYS)
    if not gallery_card["kept_t"]:
        raise UserError("sample.gallery.keep_every: the strip needs kept frames; set it to 1 or more")
    draw_gallery(gallery, gallery_card["kept_t"])
    classifier = load_classifier(CLASSIFIER)
    with progress(desc="evaluate", total=5, unit="step") as bar:

        def see(images: Tensor) -> Scored:
            scored = Scored(images, *features_and_logits(classifier, images, runtime.device))
            bar.update()
            return scored

        train, test = (see(images_of(split, card["classes"])) for split in ("train", "test"))
        samples = see(to_float(population["images"]))
        scores = score(samples, train, test, params)
        bar.update()
        draw_neighbours(samples, train)
        draw_classes(samples, train)
        bar.update()
    write_json(METRICS / "scores.json", scores)


def images_of(split: str, classes: list[int]) -> Tensor:
    """The real images of the classes that the model was trained on."""
    arrays, _ = load_arrays(PROCESSED / f"{split}.safetensors", {"images", "labels"})
    return arrays["images"][torch.isin(arrays["labels"], torch.tensor(classes))]


def score(samples: Scored, train: Scored, test: Scored, params: EvaluateParams) -> dict[str, object]:
    """All scores, at equal counts: samples, test images, and, as the floor, training images against the others."""
    count = min(len(samples.images), len(test.images), len(train.images) // 2)
    order = torch.randperm(len(train.images), generator=generator(params.seed, "floor"))
    floor = distances(train.features[order[count:]], train.features[order[:count]], params.seed)
    rows = {
        name: {
            **distances(train.features, rows.features[:count], params.seed),
            **recognition(rows.take(slice(count)), train, params.confidence),
        }
        for name, rows in (("samples", samples), ("test", test))
    }
    ratio = round(rows["samples"]["frechet"] / floor["frechet"], 3)
    return {"count": count, "frechet_over_floor": ratio, **rows, "floor": floor}


def distances(reference: Tensor, features: Tensor, seed: int) -> dict[str, float]:
    """Frechet and kernel distance between two sets of features."""
    kid, kid_deviation = kernel_distance(reference, features, seed)
    return {
        "frechet": round(frechet_distance(reference, features), 5),
        "kid": round(kid, 6),
        "kid_deviation": round(kid_deviation, 6),
    }


def recognition(rows: Scored, train: Scored, confidence: float) -> dict[str, float]:
    """How surely digits are recognised, how evenly they fall on the classes, how near they are to training images.

    The imbalance is the total variation distance between the shares of the recognised classes and those of the
    training images: 0 where they agree, 1 where they have nothing in common.
    """
    shares = class_shares(rows.logits.argmax(1))
    wanted = class_shares(train.logits.argmax(1))
    imbalance = sum(abs(share - want) for share, want in zip(shares, wanted, strict=True)) / 2
    distance = nearest_neighbours(rows.images, train.images).distance
    return {
        "confident_share": round(confident_share(rows.logits, confidence), 4),
        "class_imbalance": round(imbalance, 4),
        "nearest_train_distance": round(distance.median().item(), 4),
    }


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


def draw_neighbours(samples: Scored, train: Scored) -> None:
    """Samples above, the training image nearest to each below."""
    shown = samples.images[:PAIRS]
    nearest = nearest_neighbours(shown, train.images)
    table = to_uint8(torch.stack([shown, train.images[nearest.nearest]])).squeeze(2)
    titles = [f"{distance:.3f}" for distance in nearest.distance.tolist()]
    title = "Samples above, their nearest training images below (root-mean-square difference)"
    write_whole(METRICS / "neighbours.png", to_png(image_table(table, titles, title)))


def draw_classes(samples: Scored, train: Scored) -> None:
    """How often each class is recognised, among the samples and among the training images."""
    shares = {
        name: class_shares(rows.logits.argmax(1)) for name, rows in (("samples", samples), ("training images", train))
    }
    write_whole(METRICS / "classes.png", to_png(class_histogram(shares, "Classes as the classifier sees them")))


if __name__ == "__main__":
    run(main)
