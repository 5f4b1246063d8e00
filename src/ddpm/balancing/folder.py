"""Write a balanced folder: images in train/<class> and test/<class>, and a table that marks the samples."""

import contextlib
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ddpm.balancing.candidates import SPAN
from ddpm.balancing.filling import Accepted
from ddpm.compute.randomness import generator
from ddpm.images.card import DataCard
from ddpm.images.splits import Split
from exact_stages.files import write_json

COLUMNS = ("file", "class", "origin", "seed", "index", "probability", "nearest", "distance", "model")
Row = tuple[Tensor, tuple[str | int, ...]]  # an image, uint8 (C, H, W), and its row of the table


class Contents(NamedTuple):
    """The contents of a folder.

    card: names of the classes. settings: everything that determines the samples, JSON-compatible. The table repeats
    `seed` and `sha256.model`, the hash of the model file.
    """

    card: DataCard
    train: Split
    test: Split
    accepted: Accepted
    settings: dict[str, Any]


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Yield a new folder in a temporary one next to `out`; it moves to `out` if the block succeeds.

    Raises:
        OSError: folders cannot be made or written to there, or `out` is not empty.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch, out.name)  # the temporary one itself is closed to other users
        folder.mkdir()
        yield folder
        folder.rename(out)


def write_folder(folder: Path, contents: Contents) -> Iterator[None]:
    """Write all images in one format, their table and the settings; yield after each image."""
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for image, facts in rows(contents):
            path = folder / str(facts[0])
            path.parent.mkdir(parents=True, exist_ok=True)  # made on demand: DVC does not keep empty folders
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(path, "PNG")
            table.writerow(facts)
            yield
    write_json(folder / "balance.json", contents.settings)


def rows(contents: Contents) -> Iterator[Row]:
    """Yield all images and their table rows, by file name in each class of each split.

    Real and sampled training images of a class are shuffled, so that their names do not reveal them.
    """
    labels, seed = contents.accepted.numbers // SPAN, contents.settings["seed"]
    for label, name in enumerate(contents.card.classes):
        real = (contents.train.labels == label).nonzero().squeeze(1)
        sampled = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(real) + len(sampled), generator=generator(seed, "balance", label))
        files = [f"train/{name}/{place:06d}.png" for place in order.argsort().tolist()]
        file_of = dict(zip(real.tolist(), files, strict=False))
        for place, index in enumerate(order.tolist()):
            file = f"train/{name}/{place:06d}.png"
            if index < len(real):
                yield contents.train.images[real[index]], (file, name, "real", *[""] * 6)
            else:
                yield _sampled(contents, int(sampled[index - len(real)]), file, name, file_of)
        for place, index in enumerate((contents.test.labels == label).nonzero().squeeze(1).tolist()):
            facts = (f"test/{name}/{place:06d}.png", name, "real", *[""] * 6)
            yield contents.test.images[index], facts


def _sampled(contents: Contents, index: int, file: str, name: str, file_of: dict[int, str]) -> Row:
    accepted = contents.accepted
    probability, distance = (f"{float(value[index]):.6f}" for value in (accepted.probability, accepted.distance))
    number, nearest = int(accepted.numbers[index]), file_of[int(accepted.nearest[index])]
    seed, model = contents.settings["seed"], contents.settings["sha256"]["model"]
    facts = (file, name, "sampled", seed, number, probability, nearest, distance, model)
    return accepted.images[index], facts
