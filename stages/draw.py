"""Draw the preview, and the samples that were scored."""

from pathlib import Path

from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.grids import by_class_picture, caption_of, neighbours_picture, preview_pictures
from ddpm.processes.device import start
from ddpm.scores.classifier import features_and_logits, likeliest, load_classifier
from exact_stages.files import write_whole
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
SAMPLES = Path("data/samples")
CLASSIFIER = Path("models/classifier-b.safetensors")
METRICS = Path("metrics/draw")


def main(stage: Stage) -> None:
    """Draw figures of the preview and of the filtered samples, by their labels, or else by what classifier b sees."""
    runtime = start()
    preview = load_samples(stage.input(SAMPLES / "preview.safetensors"))
    samples = load_samples(stage.input(SAMPLES / "filtered.safetensors"))
    train = load_split(stage.input(TRAIN)).of(samples.classes).images
    classifier = load_classifier(stage.input(CLASSIFIER))
    images, labels, caption = samples.images, samples.labels, caption_of(samples.made)
    if labels is None:
        labels = likeliest(features_and_logits(classifier, images, runtime.device)[1], samples.classes)
    pictures = {
        **preview_pictures(preview.images, preview.x_t, preview.pred_x_start, preview.kept_t, caption_of(preview.made)),
        "neighbours.png": neighbours_picture(images, train, caption),
        "by_class.png": by_class_picture(images, labels, preview.card.classes, caption, samples.clear),
    }
    for name, picture in pictures.items():
        write_whole(stage.output(METRICS / name), picture)


if __name__ == "__main__":
    run_stage("draw", main)
