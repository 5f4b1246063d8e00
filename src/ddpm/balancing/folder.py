"""Write a balanced folder: images in train/<class> and test/<class>, and a table that marks the samples."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ddpm.balancing.filling import SPAN, Sample
from ddpm.diffusion.randomness import generator
from ddpm.images.card import DataCard
from ddpm.images.splits import Split
from exact_stages.files import write_json

COLUMNS = ("file", "class", "origin", "seed", "index", "probability", "nearest", "distance", "model")
REAL = ("real", *[""] * 6)  # the facts of a real image


def write_folder(
    folder: Path, card: DataCard, train: Split, test: Split, samples: Sequence[Sample], settings: dict[str, Any]
) -> None:
    """Write all images in one format, their table and the settings.

    Real and sampled training images of a class are shuffled, so that their names do not reveal them.

    Args:
        settings: everything that determines the samples, JSON-compatible; the table repeats `seed` and `sha256.model`.
    """
    seed, model = settings["seed"], settings["sha256"]["model"]
    table: list[tuple[str | int, ...]] = [COLUMNS]

    def write(image: Tensor, file: str, name: str, facts: tuple[str | int, ...]) -> None:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)  # made on demand: DVC does not keep empty folders
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(path, "PNG")
        table.append((file, name, *facts))

    for label, name in enumerate(card.classes):
        real, tested = ((labels == label).nonzero().squeeze(1).tolist() for labels in (train.labels, test.labels))
        sampled = [each for each in samples if each.number // SPAN == label]
        order = torch.randperm(len(real) + len(sampled), generator=generator(seed, "balance", label)).tolist()
        file_of = {index: f"train/{name}/{place:06d}.png" for place, index in enumerate(order)}
        for index, file in file_of.items():
            if index < len(real):
                write(train.images[real[index]], file, name, REAL)
                continue
            image, number, probability, nearest, distance = sampled[index - len(real)]
            shown = f"{probability:.6f}", file_of[real.index(nearest)], f"{distance:.6f}"
            write(image, file, name, ("sampled", seed, number, *shown, model))
        for place, index in enumerate(tested):
            write(test.images[index], f"test/{name}/{place:06d}.png", name, REAL)
    write_json(folder / "balance.json", settings)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(table)
