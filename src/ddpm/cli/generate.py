"""`ddpm generate`: sample any number of images from a model file."""

import csv
import io
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor

from ddpm.cli.options import ModelOptions, Seed, sampler_params, with_sampler
from ddpm.compute.device import start
from ddpm.images.card import DataCard
from ddpm.sampling.params import sample_labels
from ddpm.sampling.sets import sample_images
from exact_stages.console import UserError
from exact_stages.files import write_whole


@with_sampler
class Generate(ModelOptions):
    """Sample images from a trained model. Equal seeds give equal images.

    Other values of --count and --first change an image by rounding only. Several processes can share the
    work and the folder: give each its own --first and --count. After Ctrl-C, finished images stay.
    """

    out: Path
    """new or empty folder for the images"""
    count: Annotated[int, Field(ge=1)] = 64
    """number of images"""
    format: Literal["png", "npz"] = "png"
    """a file for each image and labels.csv, or one file of arrays"""
    seed: Seed = 0
    """seed of the noise"""
    first: Annotated[int, Field(ge=0, le=10**12)] = 0
    """number of the first image, to continue from there"""

    def run(self) -> None:
        """Sample the images, and write each batch when it is finished.

        Raises:
            UserError: the model cannot sample with these options, the folder is not empty, the disk is full, a worker
                was killed, or Ctrl-C interrupts the work.
        """
        check_free(self.out)
        runtime = start()
        loaded = self.load(runtime.device)
        params = sampler_params(self, loaded.card)
        self.out.mkdir(parents=True, exist_ok=True)
        numbers, done = range(self.first, self.first + self.count), 0
        data = loaded.card.data
        writer = Pictures(self.out, data) if self.format == "png" else Arrays(self.out, data, self.first)
        with closing(writer):
            try:
                for indices, images in sample_images(loaded, params, self.seed, numbers, runtime, "generate"):
                    told = loaded.card.model.class_conditional
                    labels = sample_labels(loaded.card, params, self.seed, indices) if told else None
                    writer.add(indices, images.permute(0, 2, 3, 1).squeeze(3), labels)  # (B, H, W) or (B, H, W, 3)
                    done += len(images)
            except (OSError, KeyboardInterrupt, UserError) as error:
                if isinstance(error, UserError) and not done:
                    raise
                left = f"--first {self.first + done} --count {self.count - done} and another --out"
                raise UserError(f"{_reason(error)} after {done} of {self.count} images; continue with {left}") from None


def check_free(folder: Path) -> None:
    """Refuse a folder that is not empty.

    Raises:
        UserError: the folder is not empty, or not a folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; choose another --out")


class Pictures:
    """A writer of one PNG for each image, named by its number, and of their classes in labels.csv."""

    def __init__(self, folder: Path, data: DataCard) -> None:
        self.folder, self.classes = folder, data.classes

    def add(self, numbers: range, images: Tensor, labels: Tensor | None) -> None:
        """Write a batch; labels, if any, come last, so that the table names only files that exist."""
        names = [f"{number:06d}.png" for number in numbers]
        for name, image in zip(names, images, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image.numpy()).save(buffer, "PNG")
            write_whole(self.folder / name, buffer.getvalue())
        if labels is None:
            return
        path = self.folder / "labels.csv"
        header = [] if path.exists() else [("image", "label")]
        with path.open("a", encoding="utf-8", newline="") as file:
            rows = zip(names, (self.classes[label] for label in labels.tolist()), strict=True)
            csv.writer(file, lineterminator="\n").writerows([*header, *rows])

    def close(self) -> None:
        """Do nothing: every batch is written already."""


class Arrays:
    """A writer of an npz file: `images` (N, H, W) or (N, H, W, 3), `labels` (N,) if any, and all names in `classes`.

    It is images.npz or, if the first number is not 0, images-FIRST.npz, so that processes can share a folder. Each
    batch is written as such a file of its own. Closing joins them, also after an error.
    """

    def __init__(self, folder: Path, data: DataCard, first: int) -> None:
        """Make the folder of the batches.

        Raises:
            UserError: another process writes this file.
        """
        self.path = folder / (f"images-{first:06d}.npz" if first else "images.npz")
        self.parts = self.path.with_suffix(".parts")
        if self.parts.exists() or self.path.exists():
            raise UserError(f"{self.path}: another process writes it; give each its own --first or --out")
        self.parts.mkdir()
        self.classes = np.array(data.classes)

    def add(self, numbers: range, images: Tensor, labels: Tensor | None) -> None:
        """Write a batch."""
        arrays: dict[str, Any] = {"images": images.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
        buffer = io.BytesIO()
        np.savez(buffer, **arrays, classes=self.classes)
        write_whole(self.parts / f"{numbers.start:013d}.npz", buffer.getvalue())

    def close(self) -> None:
        """Replace the batches by one file, unless there are none.

        Raises:
            UserError: the disk is full, or Ctrl-C interrupts; the batches stay.
        """
        written, whole = sorted(self.parts.glob("*.npz")), self.parts / "whole.npz"
        try:
            if written:
                names = [name for name in np.load(written[0]) if name != "classes"]
                joined: dict[str, Any] = {
                    name: np.concatenate([np.load(part)[name] for part in written]) for name in names
                }
                np.savez_compressed(whole, **joined, classes=self.classes)
                os.replace(whole, self.path)
        except (OSError, KeyboardInterrupt) as error:
            whole.unlink(missing_ok=True)
            kept = f"each file in {self.parts} has a batch of the images"
            raise UserError(f"{self.path}: not written, {_reason(error)}; {kept}") from None
        shutil.rmtree(self.parts)


def _reason(error: OSError | KeyboardInterrupt | UserError) -> str:
    """Say why the work ends, and name the file if the error does."""
    if isinstance(error, UserError):
        return f"{error}; ended"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
