"""Draw the gallery, and the samples that were scored."""

from pathlib import Path

from ddpm.images.arrays import load_arrays
from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.grids import by_class_picture, caption_of, classes_picture, gallery_pictures, neighbours_picture
from ddpm.processes.device import start
from exact_stages.files import write_whole
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
SAMPLES = Path("data/samples")
METRICS = Path("metrics/draw")


def main(stage: Stage) -> None:
    """Draw figures of the gallery and of the filtered samples, by the classes that classifier b sees."""
    start()
    gallery = load_samples(stage.input(SAMPLES / "gallery.safetensors"))
    population = load_samples(stage.input(SAMPLES / "filtered.safetensors"))
    train = load_split(stage.input(TRAIN)).of(population.classes).images
    classes, _ = load_arrays(stage.input(SAMPLES / "classes.safetensors"))
    images, names, caption = population.images, gallery.card.classes, caption_of(population.made)
    pictures = {
        **gallery_pictures(gallery.images, gallery.x_t, gallery.pred_x_start, gallery.kept_t, caption_of(gallery.made)),
        "neighbours.png": neighbours_picture(images, train, caption),
        "classes.png": classes_picture(classes["samples"], classes["train"], names, caption),
        "by_class.png": by_class_picture(images, classes["given"], names, caption, population.clear),
    }
    for name, picture in pictures.items():
        write_whole(stage.output(METRICS / name), picture)


if __name__ == "__main__":
    run_stage("draw", main)
