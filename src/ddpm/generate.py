"""Draw as many images as wanted from a model file: `python -m ddpm.generate --help`."""

import argparse
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ddpm.data.images import to_uint8
from ddpm.data.labels import CLASSES
from ddpm.diffusion.samplers import SamplerParams
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.networks.sampling import batches, check_sampler, draw_batch, draw_labels
from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.device import Runtime, start
from ddpm.runtime.files import write_whole
from ddpm.runtime.params import parse


def main() -> None:
    """Draw the images and write them."""
    args = arguments()
    params = parse(
        SamplerParams, {name: getattr(args, name, "all") for name in SamplerParams.model_fields}, "command line"
    )
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"--out {args.out}: exists and is not an empty folder; nothing was written")
    write = {"png": write_pngs, "npz": write_npz}[args.format]
    runtime = start()
    loaded = load_model(args.model, runtime.device)
    numbers = range(args.first, args.first + args.count)
    drawn = draw_images(loaded, params, args.seed, numbers, runtime)
    conditional = loaded.card.model.class_conditional
    write(args.out, numbers, drawn, draw_labels(loaded.card, params, args.seed, numbers) if conditional else None)


def draw_images(
    loaded: LoadedModel, params: SamplerParams, seed: int, numbers: range, runtime: Runtime
) -> Iterator[tuple[int, Tensor]]:
    """Batches of finished images, uint8 (B, 28, 28), each with the number of its first, under a progress bar.

    Raises:
        UserError: params do not fit the model, see `check_sampler`.
    """
    steps = check_sampler(loaded, params)
    with progress(desc="generate", total=len(numbers) * steps, unit="eval", unit_scale=True) as bar:
        for indices in batches(numbers.start, len(numbers), runtime.sample_batch):
            for step in draw_batch(loaded, params, seed, indices, runtime):
                bar.update(len(indices))
            yield indices.start, to_uint8(step.x_prev).squeeze(1).cpu()


def write_pngs(folder: Path, numbers: range, batches: Iterator[tuple[int, Tensor]], labels: Tensor | None) -> None:
    """A picture for each image, named by its number; each batch is written as soon as it is drawn.

    The labels of all, where there are any, come before the first picture, as labels.csv: none is ever without.
    """
    names = {number: f"{number:06d}.png" for number in numbers}
    for first, images in batches:
        if labels is not None and first == numbers.start:
            table = pd.DataFrame({"image": names.values(), "label": labels.numpy()})
            write_whole(folder / "labels.csv", table.to_csv(index=False).encode())
        for number, image in enumerate(images, start=first):
            buffer = io.BytesIO()
            Image.fromarray(image.numpy()).save(buffer, "PNG")
            write_whole(folder / names[number], buffer.getvalue())


def write_npz(folder: Path, _: range, batches: Iterator[tuple[int, Tensor]], labels: Tensor | None) -> None:
    """One file, images.npz: `images`, uint8 (N, 28, 28), and `labels`, int64 (N,), where there are any."""
    arrays: dict[str, Any] = {"images": torch.cat([images for _, images in batches]).numpy()}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(folder / "images.npz", buffer.getvalue())


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ddpm.generate",
        description="Draw images from a trained model. Equal seeds give equal images, whatever the count.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    path = partial(option, type=Path, required=True, default=argparse.SUPPRESS)
    path("--model", metavar="FILE", help="model file, such as models/ddpm.safetensors")
    path("--out", metavar="FOLDER", help="new or empty folder for the images")
    option("--count", type=at_least(1), default=64, metavar="N", help="number of images")
    option("--format", choices=["png", "npz"], default="png", help="a picture for each image, or one file of arrays")
    option("--seed", type=at_least(0), default=0, metavar="N", help="seed of the noise")
    option("--first", type=at_least(0), default=0, metavar="N", help="number of the first image: go on from there")
    option("--sampler", choices=_choices("sampler"), default="dpmpp_2m", help="reverse process")
    option("--steps", type=at_least(1), default=20, metavar="N", help="evaluations of the network for each image")
    option("--spacing", choices=_choices("spacing"), default="trailing", help="which timesteps are taken")
    option("--eta", type=float, default=1.0, metavar="X", help="noise of all but ddpm, 0 (deterministic) to 1")
    option("--variance", choices=_choices("variance"), default="posterior", help="variance of the noise of ddpm")
    option(
        "--classes",
        type=int,
        choices=range(CLASSES),
        nargs="+",
        default=argparse.SUPPRESS,
        help="what a class-conditional model is to draw (default: all)",
    )
    option("--clip", action=argparse.BooleanOptionalAction, default=True, help="clip the estimates of the clean image")
    return parser.parse_args()


def _choices(field: str) -> tuple[str, ...]:
    """What the sampler's params allow."""
    return get_args(SamplerParams.model_fields[field].annotation)


def at_least(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


if __name__ == "__main__":
    run(main)
