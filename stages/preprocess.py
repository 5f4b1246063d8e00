"""Convert a set of labelled images to train and test arrays of one size and colour."""

import tempfile
from pathlib import Path
from typing import Any

from ddpm.images.decoded import Images
from ddpm.images.preparation import read_source
from ddpm.images.splitting import check_counts, split_images
from ddpm.images.summary import repetitions, report, write_split
from ddpm.images.tracking import check_tracked
from ddpm.params.data import DataParams
from exact_stages.files import write_json
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
METRICS = Path("metrics/preprocess")


class Params(Sections):
    """The params of this stage."""

    data: DataParams


def main(stage: Stage) -> None:
    """Write one file for each split, and a summary of both."""
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
    summary |= {"data": card.model_dump(mode="json"), "chosen": why, **repetitions(images, sides)}
    report(summary, folder, images)
    resolved = {"shape": list(target.shape), "inner": list(target.inner)}
    stage.record(PROCESSED / "train.safetensors", folder.files, environment={}, resolved=resolved)
    write_json(stage.output(METRICS / "summary.json"), summary)


if __name__ == "__main__":
    run_stage("preprocess", main)
