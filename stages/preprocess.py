"""Convert a set of labelled images to train and test arrays of one size and colour."""

import tempfile
from pathlib import Path
from typing import Any

from ddpm.images.card import Shape
from ddpm.images.decoded import Images
from ddpm.images.preparation import read_source
from ddpm.images.splitting import check_counts, split_images
from ddpm.images.starts import CHOSEN, CLIP_ART, NONE, SCRATCH
from ddpm.images.summary import repetitions, report, write_split
from ddpm.images.tracking import check_tracked
from ddpm.params.data import DataParams
from exact_stages.files import write_json
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
METRICS = Path("metrics/preprocess")
FEW = 2000  # training images; clip art helps 1,000, see studies/small_sets
SIDES = (20, 36)  # pixels that become as many levels as the network of clip art has


class Params(Sections):
    """The params of this stage."""

    data: DataParams


def main(stage: Stage) -> None:
    """Write one file for each split, what a training begins with, and a summary."""
    params = stage.params(Params).data
    root = stage.input(Path(params.set))
    folder, target, card, why = read_source(root, **params.wanted)
    check_tracked(root, folder)
    PROCESSED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=PROCESSED) as scratch:
        images = Images(scratch, folder.pictures, target)
        sides = split_images(images, folder, params.test)
        check_counts(card, images, sides, folder, params.set)
        summary: dict[str, Any] = {
            name: write_split(stage.output(PROCESSED / f"{name}.safetensors"), card, images, sides, chosen)
            for name, chosen in (("train", ~sides.test), ("test", sides.test))
        }
    start, reason = start_for(summary["train"]["images"], card.shape)
    clip_art = stage.input(Path(CLIP_ART)).read_bytes() if start == CLIP_ART else NONE
    stage.write(Path(CHOSEN), clip_art)
    why["train.fine_tune_from"] = f"{start}, since {reason}"
    summary |= {"data": card.model_dump(mode="json"), "chosen": why, **repetitions(images, sides)}
    report(summary, folder, images)
    resolved = {"shape": list(target.shape), "inner": list(target.inner)}
    unread = [CLIP_ART] if clip_art == NONE else []
    stage.record(PROCESSED / "train.safetensors", folder.files, unread=unread, environment={}, resolved=resolved)
    write_json(stage.output(METRICS / "summary.json"), summary)


def start_for(count: int, shape: Shape) -> tuple[str, str]:
    """Return what `count` training images of a shape (C, H, W) begin with, and why."""
    if count >= FEW:
        return SCRATCH, f"{count:,} images need no other model"
    if shape[0] == 1:
        return SCRATCH, "no model is known that helps few grey images"
    if not SIDES[0] <= min(shape[1:]) <= max(shape[1:]) <= SIDES[1]:
        return SCRATCH, f"clip art fits {SIDES[0]} to {SIDES[1]} pixels a side; data.image_size=32 would begin with it"
    return CLIP_ART, f"{count:,} images in colour are fewer than {FEW:,}"


if __name__ == "__main__":
    run_stage("preprocess", main)
