"""Make one form of a folder of labelled images, and describe it."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.images.card import DataCard, listed
from ddpm.images.splits import LEAST_TEST, save_split
from ddpm.ingest.folders import Folder, read_folder
from ddpm.ingest.idx import is_idx_folder, read_idx_folder
from ddpm.ingest.near_duplicates import twin_groups
from ddpm.ingest.preparation import LEVELS, DataParams, Images, counted, looks_of, statistics_of, target_of
from ddpm.pipeline.console import UserError, progress, shown
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, run_stage

PROCESSED = Path("data/processed")
METRICS = Path("metrics/preprocess")
LEAST_TRAIN = 2 * LEAST_TEST
FEW = 2000


class Params(Sections):
    """What this stage reads."""

    data: DataParams


def main(stage: Stage) -> None:
    """One file of arrays for each split, and a summary of both."""
    params = stage.params(Params).data
    root = stage.input(Path(params.set))
    folder = read_idx_folder(root) if is_idx_folder(root) else read_folder(root)
    pictures = [*folder.train, *(folder.test or [])]
    with progress(desc="look", total=len(pictures), unit="img") as bar:
        looks = looks_of(pictures, params.background_colour, bar.update)
    target, why = target_of(looks, params)
    card = DataCard(name=shown(root.resolve().name) or "images", shape=target.shape, classes=folder.classes)
    PROCESSED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=PROCESSED) as scratch:
        with progress(desc="preprocess", total=len(pictures), unit="img") as bar:
            images = Images(scratch, pictures, target, bar.update)
        groups, test = split_images(images, folder, params)
        places = images.places[groups] if folder.test is None else None
        check_counts(card, images.labels[~test], images.labels[test], places, params)
        tested = images.labels[test].bincount(minlength=len(card.classes)).tolist()
        summary: dict[str, Any] = {"train": {}, "test": {}, "data": card.model_dump(mode="json"), "follows": why}
        for name, chosen in (("train", ~test), ("test", test)):
            labels, counts = images.labels[chosen], torch.zeros(LEVELS, dtype=torch.long)
            renumbered = (chosen.cumsum(0) - 1)[groups[chosen]]
            path = stage.output(PROCESSED / f"{name}.safetensors")
            save_split(path, card, labels, renumbered, tested, counted(images.take(chosen), counts))
            summary[name] = describe(card, labels, counts)
    summary["equal_in_both"] = int(torch.isin(images.keys[test], images.keys[~test]).sum())
    summary["with_twins"] = int((groups != torch.arange(len(groups))).sum())
    report(summary, folder)
    write_json(stage.output(METRICS / "summary.json"), summary)


def split_images(images: Images, folder: Folder, params: DataParams) -> tuple[Tensor, Tensor]:
    """The groups of all images (N,), see `splits.Processed`, and which are test images (N,).

    Twins are on one side where the folder leaves the choice.
    """
    count = len(folder.train)
    groups = torch.arange(len(images.labels))
    groups[:count] = twin_groups(images.thumbnails[:count], images.ranks[:count])
    if folder.test is None:
        return groups, images.places[groups] < params.test
    return groups, torch.arange(len(groups)) >= count


def check_counts(card: DataCard, train: Tensor, test: Tensor, places: Tensor | None, params: DataParams) -> None:
    """Refuse splits of labels (N,) and (M,), perhaps by places (N + M,), that later stages could do nothing with.

    Raises:
        UserError: a class has no training image, or a split has too few.
    """
    for name, count in zip(card.classes, train.bincount(minlength=len(card.classes)).tolist(), strict=True):
        if not count:
            raise UserError(f"data.set: {params.set} leaves no training images of {name}; add some, or see data.test")
    for split, labels, least in (("train", train, LEAST_TRAIN), ("test", test, LEAST_TEST)):
        if len(labels) < least:
            raise UserError(
                f"data.set: {params.set} gives {len(labels)} {split} images, and at least {least} are needed; add "
                f"images{other_share(places)}"
            )


def other_share(places: Tensor | None) -> str:
    """A share of images with these places (N,) that would do, if any; None is for a folder with a test of its own."""
    if places is None:
        return ""
    for percent in range(1, 51):
        test = int((places < percent / 100).sum())
        if test >= LEAST_TEST and len(places) - test >= LEAST_TRAIN:
            return f", or set data.test to {percent / 100:g}"
    return ""


def describe(card: DataCard, labels: Tensor, levels: Tensor) -> dict[str, Any]:
    """Of a split with labels (N,), in which each level occurs so often."""
    found = statistics_of(levels)
    counts = labels.bincount(minlength=len(card.classes)).tolist()
    return {
        "images": len(labels),
        "pixel_mean": round(found.mean, 6),
        "pixel_deviation": round(found.deviation, 6),
        "label_counts": dict(zip(card.classes, counts, strict=True)),
    }


def report(summary: dict[str, Any], folder: Folder) -> None:
    """Say what followed from the images, a line each, and what a user would want to know of them."""
    for name, text in summary["follows"].items():
        print(f"{name}: {text}")
    train, test = summary["train"]["images"], summary["test"]["images"]
    how = "the folder's own" if folder.test is not None else "held out by their content"
    print(f"{len(folder.classes)} classes, {train:,} training images, {test:,} test images, {how}")
    if folder.ignored:
        print(f"ignored, for they are no pictures: {len(folder.ignored)}, such as {folder.ignored[0]}")
    few = [name for name, count in summary["test"]["label_counts"].items() if count < LEAST_TEST]
    if few and len(folder.classes) > 1:
        print(f"note: fewer than {LEAST_TEST} test images, too few to train on these alone: {listed(few)}")
    if twins := summary["with_twins"]:
        print(f"{twins} images are equal or nearly equal to others, which are on the same side")
    if equal := summary["equal_in_both"]:
        print(f"warning: {equal} test images are equal to training images: scores of them say less")
    if train < FEW:
        print(f"note: {train:,} training images are few; docs/images.md says what to expect")


if __name__ == "__main__":
    run_stage("preprocess", main)
