"""Leave out all but a few images of some classes: a train file for the study of rare classes."""

from pathlib import Path

from ddpm.images.splits import Processed, load_split, save_split
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.study.cutting import CutParams, cut, seed_of

TRAIN = Path("data/processed/train.safetensors")
CUTS = Path("data/cut")


def main(stage: Stage) -> None:
    """Write what is kept, and of what is left out as much as there is to choose by."""
    params, name = stage.params(CutParams, "cut"), stage.item
    processed = load_split(stage.input(TRAIN))
    parts = cut(processed, params.counts(name, processed.card), params.spare, seed_of(name))
    for part, images in zip(("train", "left_out"), parts, strict=True):
        write(stage.output(CUTS / name / f"{part}.safetensors"), images)


def write(path: Path, processed: Processed) -> None:
    """As the stage preprocess writes a split."""
    card, split, groups, test_counts = processed
    save_split(path, card, split.labels, groups, test_counts, [split.images])


if __name__ == "__main__":
    run_stage("cut", main, argument="COUNT-SEED")
