"""A balanced folder: pictures in train/<class> and test/<class>, and a table that says which of them are drawn."""

import contextlib
import csv
import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ddpm.balancing.filling import Kept
from ddpm.compute.randomness import generator
from ddpm.images.card import DataCard
from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_json
from ddpm.pipeline.lock import TAKEN

MANIFEST = "manifest.csv"
SETTINGS = "balance.json"
COLUMNS = ("file", "class", "origin", "seed", "index", "probability", "nearest", "distance", "model")


class Contents(NamedTuple):
    """What a folder is made of.

    card: names of the classes. seed, model: with which the images were drawn, and the hash of the model's file.
    settings: all else that decided them, JSON-compatible.
    """

    card: DataCard
    train: Split
    test: Split
    kept: Kept
    seed: int
    model: str
    settings: dict[str, Any]


class Row(NamedTuple):
    """A picture, uint8 (C, H, W), and what the table says of it, see COLUMNS."""

    image: Tensor
    facts: tuple[str | int, ...]


def check_free(out: Path) -> None:
    """Refuse a place where something is.

    Raises:
        UserError: it is not a new or empty folder, or the one that this process works in.
    """
    free = not out.is_symlink() and (not out.exists() or (out.is_dir() and not any(out.iterdir())))
    if not free or (out.exists() and out.samefile(".")):
        raise UserError(f"{out}: exists and is not an empty folder; nothing was written")


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out`, this process's alone, that takes its place when the block ends well, and else is removed.

    What a killed process has left of it is removed first.

    Raises:
        UserError: `out` is there and not an empty folder, or another process is writing it.
        OSError: folders cannot be made or written to there.
    """
    out = Path(os.path.abspath(out))
    check_free(out)
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock, folder, out)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        try:
            yield folder
            os.sync()  # one for all files: a crash of the machine leaves none empty
            folder.rename(out)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _lock(lock: int, folder: Path, out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        reason = "another process is writing it" if error.errno in TAKEN else f"cannot be locked ({error.strerror})"
        raise UserError(f"{out}: {reason}; name another folder") from None
    if not (folder.exists() and os.path.samestat(os.fstat(lock), folder.stat())):  # moved into place meanwhile
        raise UserError(f"{out}: another process has just written it; name another folder")


def write_folder(folder: Path, contents: Contents) -> Iterator[None]:
    """Write all pictures, in one format, the table of them and the settings; yields after each picture."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(COLUMNS)
    for image, facts in rows(contents):
        path = folder / str(facts[0])
        path.parent.mkdir(parents=True, exist_ok=True)  # none is empty: DVC would not keep it
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(path, "PNG")
        table.writerow(facts)
        yield
    (folder / MANIFEST).write_text(buffer.getvalue(), encoding="utf-8", newline="")
    write_json(folder / SETTINGS, contents.settings)


def rows(contents: Contents) -> Iterator[Row]:
    """All pictures, by file name in each class of each split.

    Real and drawn training images of a class are shuffled, so that their names do not tell them.
    """
    for label, name in enumerate(contents.card.classes):
        real = (contents.train.labels == label).nonzero().squeeze(1)
        drawn = (contents.kept.labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(real) + len(drawn), generator=generator(contents.seed, "balance", label))
        files = [f"train/{name}/{place:06d}.png" for place in order.argsort().tolist()]
        file_of = dict(zip(real.tolist(), files, strict=False))
        for place, index in enumerate(order.tolist()):
            file = f"train/{name}/{place:06d}.png"
            if index < len(real):
                yield Row(contents.train.images[real[index]], (file, name, "real", *[""] * 6))
            else:
                yield _drawn(contents, int(drawn[index - len(real)]), file, name, file_of)
        for place, index in enumerate((contents.test.labels == label).nonzero().squeeze(1).tolist()):
            facts = (f"test/{name}/{place:06d}.png", name, "real", *[""] * 6)
            yield Row(contents.test.images[index], facts)


def _drawn(contents: Contents, index: int, file: str, name: str, file_of: dict[int, str]) -> Row:
    kept = contents.kept
    probability, distance = (f"{float(value[index]):.6f}" for value in (kept.probability, kept.distance))
    number, nearest = int(kept.numbers[index]), file_of[int(kept.nearest[index])]
    facts = (file, name, "drawn", contents.seed, number, probability, nearest, distance, contents.model)
    return Row(kept.images[index], facts)
