"""Draw the gallery, and the samples that were scored."""

from pathlib import Path

from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.grids import by_class_picture, caption_of, gallery_pictures, neighbours_picture
from ddpm.processes.device import start
from ddpm.scores.classifier import features_and_logits, likeliest, load_classifier
from exact_stages.files import write_whole
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
SAMPLES = Path("data/samples")
CLASSIFIER = Path("models/classifier-b.safetensors")
METRICS = Path("metrics/draw")


def main(stage: Stage) -> None:
    """Draw figures of the gallery and of the filtered samples, by their labels, or else by what classifier b sees."""
    runtime = start()
    gallery = load_samples(stage.input(SAMPLES / "gallery.safetensors"))
    population = load_samples(stage.input(SAMPLES / "filtered.safetensors"))
    train = load_split(stage.input(TRAIN)).of(population.classes).images
    classifier = load_classifier(stage.input(CLASSIFIER))
    images, labels, caption = population.images, population.labels, caption_of(population.made)
    if labels is None:
        labels = likeliest(features_and_logits(classifier, images, runtime.device)[1], population.classes)
    pictures = {
        **gallery_pictures(gallery.images, gallery.x_t, gallery.pred_x_start, gallery.kept_t, caption_of(gallery.made)),
        "neighbours.png": neighbours_picture(images, train, caption),
        "by_class.png": by_class_picture(images, labels, gallery.card.classes, caption, population.clear),
    }
    for name, picture in pictures.items():
        write_whole(stage.output(METRICS / name), picture)


if __name__ == "__main__":
    run_stage("draw", main)
