"""Draw the preview, and the samples that were scored."""

from pathlib import Path

from ddpm.images.arrays import load_arrays
from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.grids import by_class_picture, caption_of, classes_picture, neighbours_picture, preview_pictures
from ddpm.processes.device import start
from exact_stages.files import write_whole
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
SAMPLES = Path("data/samples")
METRICS = Path("metrics/draw")


def main(stage: Stage) -> None:
    """Draw figures of the preview and of the filtered samples, by the classes that classifier b sees."""
    start()
    preview = load_samples(stage.input(SAMPLES / "preview.safetensors"))
    samples = load_samples(stage.input(SAMPLES / "filtered.safetensors"))
    train = load_split(stage.input(TRAIN)).of(samples.classes).images
    classes, _ = load_arrays(stage.input(SAMPLES / "classes.safetensors"))
    images, names, caption = samples.images, preview.card.classes, caption_of(samples.made)
    pictures = {
        **preview_pictures(preview.images, preview.x_t, preview.pred_x_start, preview.kept_t, caption_of(preview.made)),
        "neighbours.png": neighbours_picture(images, train, caption),
        "classes.png": classes_picture(classes["samples"], classes["train"], names, caption),
        "by_class.png": by_class_picture(images, classes["given"], names, caption, samples.clear),
    }
    for name, picture in pictures.items():
        write_whole(stage.output(METRICS / name), picture)


if __name__ == "__main__":
    run_stage("draw", main)
