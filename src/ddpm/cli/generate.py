"""`ddpm generate`: sample any number of images from a model file."""

import contextlib
import io
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from ddpm.cli.options import ModelOptions, Seed, sampler_params, with_sampler
from ddpm.diffusion.denoiser import NotFiniteError
from ddpm.diffusion.sets import sample_images, sample_labels
from ddpm.processes.device import start
from exact_stages.console import UserError
from exact_stages.files import write_whole


@with_sampler
class Generate(ModelOptions):
    """Sample images from a trained model. Equal seeds give equal images.

    Other values of --count and --first change an image by rounding only. Several processes can share the work: give
    each its own --first, --count and --out. After Ctrl-C, finished images stay.
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
        """Sample the images; write each png when its batch is finished, and labels or arrays at the end.

        Raises:
            UserError: the model cannot sample with these options, the folder is not empty, a worker was killed, or
                Ctrl-C interrupts the work.
        """
        check_free(self.out)
        runtime = start()
        loaded = self.load(runtime.device)
        card, params = loaded.card, sampler_params(self, loaded.card)
        self.out.mkdir(parents=True, exist_ok=True)
        numbers, batches = range(self.first, self.first + self.count), list[Tensor]()
        labels = sample_labels(card, params, self.seed, numbers) if card.model.class_conditional else None
        try:
            with contextlib.suppress(KeyboardInterrupt):
                for indices, images in sample_images(loaded, params, self.seed, numbers, runtime, "generate"):
                    levels = images.permute(0, 2, 3, 1).squeeze(3)  # (B, H, W) or (B, H, W, 3)
                    if self.format == "png":
                        write_pictures(self.out, indices, levels)
                    else:
                        batches.append(levels)
        except NotFiniteError as error:
            raise UserError(f"{error}; fetch the model again, or retrain it") from None
        finally:
            done = sum(map(len, batches)) + len([*self.out.glob("*.png")])
            finished = None if labels is None else labels[:done]
            if batches:
                write_arrays(self.out / "images.npz", torch.cat(batches), finished, card.data.classes)
            elif done and finished is not None:
                names = [card.data.classes[label] for label in finished]
                table = pd.DataFrame({"image": map(file_name, numbers[:done]), "label": names})
                write_whole(self.out / "labels.csv", table.to_csv(index=False).encode())
        if done < self.count:
            left = f"--first {self.first + done} --count {self.count - done} and another --out"
            raise UserError(f"interrupted after {done} of {self.count} images; continue with {left}")


def check_free(folder: Path) -> None:
    """Refuse a folder that is not empty.

    Raises:
        UserError: the folder is not empty, or not a folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; choose another --out")


def file_name(number: int) -> str:
    """Return the name of an image's file."""
    return f"{number:06d}.png"


def write_pictures(folder: Path, numbers: range, images: Tensor) -> None:
    """Write a PNG for each image, uint8 (B, H, W) or (B, H, W, 3), named by its number."""
    for number, image in zip(numbers, images, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.numpy()).save(buffer, "PNG")
        write_whole(folder / file_name(number), buffer.getvalue())


def write_arrays(path: Path, images: Tensor, labels: Tensor | None, classes: tuple[str, ...]) -> None:
    """Write `images` (N, H, W) or (N, H, W, 3), `labels` (N,) if any, and all names in `classes`."""
    arrays: dict[str, Any] = {"images": images.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays, classes=np.array(classes))
    write_whole(path, buffer.getvalue())
