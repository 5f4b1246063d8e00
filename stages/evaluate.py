"""Score the samples by the features of both classifiers, and draw figures of them."""

from pathlib import Path

from ddpm.classifier.model import NAMES
from ddpm.compute.device import start
from ddpm.images.card import listed
from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.grids import by_class_picture, caption_of, classes_picture, gallery_pictures, neighbours_picture
from ddpm.scoring.evaluation import evaluate
from exact_stages.console import UserError
from exact_stages.files import write_json, write_whole
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
SAMPLES = Path("data/samples")
MODELS = Path("models")
METRICS = Path("metrics/evaluate")


def main(stage: Stage) -> None:
    """Score the filtered samples, and draw figures of them and of the gallery."""
    runtime = start()
    gallery = load_samples(stage.input(SAMPLES / "gallery.safetensors"))
    population = load_samples(stage.input(SAMPLES / "filtered.safetensors"))
    if not gallery.kept_t:
        raise UserError("sample.gallery.keep_every: the strip needs kept frames; set it to 1 or more")
    images, classes, names = population.images, population.classes, gallery.card.classes
    test, train = (load_split(stage.input(PROCESSED / f"{name}.safetensors")).of(classes) for name in ("test", "train"))
    classifiers = {name: stage.input(MODELS / f"classifier-{name}.safetensors") for name in NAMES}
    scores, seen, *_ = evaluate((images, population.labels), test, train, classes, classifiers, runtime)
    arrays, caption = (gallery.images, gallery.x_t, gallery.pred_x_start), caption_of(population.made)
    labels = seen.samples.given_or_seen(classes)
    if none := scores.get("left_out"):
        print(f"note: left out of the scores, since there are no test images of them: {listed(none)}")
    pictures = {
        **gallery_pictures(*arrays, gallery.kept_t, caption_of(gallery.made)),
        "neighbours.png": neighbours_picture(images, train.images, caption),
        "classes.png": classes_picture(seen.samples.labels, seen.train.labels, names, caption),
        "by_class.png": by_class_picture(images, labels, names, caption, population.clear),
    }
    for name, picture in pictures.items():
        write_whole(stage.output(METRICS / name), picture)
    write_json(stage.output(METRICS / "scores.json"), scores)


if __name__ == "__main__":
    run_stage("evaluate", main)
