"""Draw as many images as wanted from a model file: `python -m ddpm.cli.generate --help`."""

if __name__ == "__main__":  # before all else, which takes seconds: Ctrl-C may come meanwhile
    from ddpm.pipeline.process import arm

    arm()

import argparse
import contextlib
import io
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ddpm.cli.drawing_options import LAST_SEED, add_sampler_options, at_least, fitting, sampler_params
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import CPU
from ddpm.images.card import DataCard
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.parallel.group import ALONE, Group, join, place
from ddpm.parallel.launch import HELP, shared_out
from ddpm.parallel.resume import Stop, stopping
from ddpm.pipeline.console import UserError, progress, run
from ddpm.pipeline.files import claimed, write_whole
from ddpm.pipeline.process import sha256
from ddpm.sampling.drawing import batches, check_sampler, draw_batch, draw_labels, fewest_batches, sample_batch
from ddpm.sampling.samplers import SamplerParams

MOST_IMAGES = 1_000_000  # of one run, whose labels and npz file are held in memory
LAST_NUMBER = 10**12


def main() -> None:
    """Draw the images and write them; of several processes that draw together only the first writes."""
    args = arguments()
    params = sampler_params(args)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"--out {args.out}: exists and is not an empty folder; nothing was written")
    write = {"png": write_pngs, "npz": write_npz}[args.format]
    runtime = start()

    def fewest() -> int:
        loaded = load_model(args.model, CPU)
        check_sampler(loaded, fitting(params, args, loaded.card))  # what is wrong is said once
        return fewest_batches(loaded.card, args.count, runtime)

    if shared_out(runtime.device, fewest, "ddpm.cli.generate", sys.argv[1:]):
        return
    group = place()
    loaded = load_model(args.model, runtime.device)
    params = fitting(params, args, loaded.card)
    check_sampler(loaded, params)
    numbers = range(args.first, args.first + args.count)
    join(group, CPU)
    group.agree({"--model": sha256(args.model), "precision": str(runtime.precision)})
    with stopping() as stop, claimed(args.out) if group.rank == 0 else contextlib.nullcontext():
        drawn = draw_images(loaded, params, args.seed, numbers, runtime, stop, group)
        if group.rank == 0:
            labels = all_labels(loaded, params, args.seed, numbers) if loaded.card.model.class_conditional else None
            write(args.out, numbers, drawn, labels, loaded.card.data)
        else:
            for _ in drawn:
                pass


def draw_images(
    loaded: LoadedModel,
    params: SamplerParams,
    seed: int,
    numbers: range,
    runtime: Runtime,
    stop: Stop | None = None,
    group: Group = ALONE,
) -> Iterator[tuple[int, Tensor]]:
    """Batches of finished images, uint8 (B, H, W) or (B, H, W, 3), each with its first number, under a progress bar.

    Args:
        group: the processes that draw together, a batch each at a time. All of them yield all batches.

    Raises:
        UserError: params do not fit the model, see `check_sampler`; or someone has asked the process to end, and the
            batches at work are given up.
        SystemExit: likewise, in another process than the first.
    """
    steps, size = check_sampler(loaded, params), min(group.gather(sample_batch(loaded, runtime)))

    def drawn(indices: range) -> Tensor:
        for step in draw_batch(loaded, params, seed, indices, runtime):
            bar.update(len(together))
            if stop and stop.requested:
                done, left = together.start - numbers.start, numbers.stop - together.start
                raise UserError(
                    f"interrupted after {done} of {len(numbers)} images"
                    + (f"; go on with --first {together.start} --count {left} and another --out" if done else "")
                )
        return to_uint8(step.x_prev).permute(0, 2, 3, 1).squeeze(3).cpu()

    total = len(numbers) * steps
    with progress(desc="generate", total=total, unit="eval", unit_scale=True, disable=group.rank > 0) as bar:
        for together in batches(numbers.start, len(numbers), size * group.size):
            parts = [*batches(together.start, len(together), size)]
            for indices, images in zip(parts, group.each(drawn, parts), strict=True):
                yield indices.start, images


def all_labels(loaded: LoadedModel, params: SamplerParams, seed: int, numbers: range) -> Tensor:
    """See `draw_labels`, int64 (len(numbers),)."""
    parts = batches(numbers.start, len(numbers), 1000)
    return torch.cat([draw_labels(loaded.card, params, seed, indices) for indices in parts])


def write_pngs(
    folder: Path, numbers: range, batches: Iterator[tuple[int, Tensor]], labels: Tensor | None, data: DataCard
) -> None:
    """A picture for each image, named by its number; each batch is written as soon as it is drawn.

    The classes of a batch, where there are any, stand in labels.csv before its pictures: none is ever without.
    """
    for first, images in batches:
        if labels is not None:
            known = numbers[: first - numbers.start + len(images)]
            names = [data.classes[label] for label in labels[: len(known)].tolist()]
            table = pd.DataFrame({"image": [*map(_name, known)], "label": names})
            write_whole(folder / "labels.csv", table.to_csv(index=False).encode())
        for number, image in enumerate(images, start=first):
            buffer = io.BytesIO()
            Image.fromarray(image.numpy()).save(buffer, "PNG")
            write_whole(folder / _name(number), buffer.getvalue())


def write_npz(
    folder: Path, numbers: range, batches: Iterator[tuple[int, Tensor]], labels: Tensor | None, data: DataCard
) -> None:
    """One file, images.npz: `images`, uint8 (N, H, W), in colour (N, H, W, 3), and `classes`, the names of all classes.

    Where there are any, the `labels`, int64 (N,), are indices of these.

    It is written at the end, or when drawing fails or is interrupted: then with the N images that are finished.

    Raises:
        UserError: the disk has no room for it.
    """
    channels, height, width = data.shape
    images = np.empty((len(numbers), height, width, *([3] if channels == 3 else [])), np.uint8)
    if (free := shutil.disk_usage(folder).free) < images.nbytes:
        raise UserError(f"{folder}: {free:,} bytes are free on its disk, and images.npz may take {images.nbytes:,}")
    done = 0
    try:
        for _, batch in batches:
            images[done : done + len(batch)] = batch.numpy()
            done += len(batch)
    finally:
        if done:
            arrays: dict[str, Any] = {"images": images[:done], "classes": np.array(data.classes)}
            if labels is not None:
                arrays["labels"] = labels[:done].numpy()
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            write_whole(folder / "images.npz", buffer.getvalue())


def _name(number: int) -> str:
    """The file of an image."""
    return f"{number:06d}.png"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ddpm.cli.generate",
        description="Draw images from a trained model. Equal seeds give equal images, whatever the count.",
        epilog=f"{HELP} Several machines: --first and --count give each its part.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    path = partial(option, type=Path, required=True, default=argparse.SUPPRESS)
    path("--model", metavar="FILE", help="model file, such as models/ddpm.safetensors")
    path("--out", metavar="FOLDER", help="new or empty folder for the images")
    option("--count", type=at_least(1, MOST_IMAGES), default=64, metavar="N", help="number of images")
    option("--format", choices=["png", "npz"], default="png", help="a picture for each image, or one file of arrays")
    option("--seed", type=at_least(0, LAST_SEED), default=0, metavar="N", help="seed of the noise")
    option(
        "--first",
        type=at_least(0, LAST_NUMBER),
        default=0,
        metavar="N",
        help="number of the first image: go on from there",
    )
    add_sampler_options(parser, "names of the classes that a class-conditional model is to draw (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
