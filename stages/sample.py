"""Draw one set of images, `gallery` or `population`, from the trained model."""

import sys
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ddpm.arrays import save_arrays
from ddpm.checkpoint import load_model
from ddpm.console import UserError, progress, run
from ddpm.device import start
from ddpm.images import to_uint8
from ddpm.params import load_params
from ddpm.samplers import SamplerParams
from ddpm.sampling import batches, check_steps, draw_batch

MODEL = Path("models/ddpm.safetensors")
SAMPLES = Path("data/samples")
SETS = ("gallery", "population")


class SampleParams(SamplerParams):
    """How many images, with which noise, and how often the way to them is kept."""

    count: Annotated[int, Field(ge=2)]
    keep_every: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]


def main() -> None:
    """Draw the set that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:
        raise UserError(f"usage: python -m stages.sample {{{','.join(SETS)}}}")
    name = sys.argv[1]
    params = load_params(SampleParams, f"sample.{name}")
    runtime = start()
    loaded = load_model(MODEL, runtime.device)
    steps = check_steps(loaded, params)
    images: list[Tensor] = []
    kept: list[list[Tensor]] = []  # for each batch, its kept frames: x_t and pred_x_start, stacked
    kept_t: list[int] = []
    with progress(desc=f"sample {name}", total=params.count * steps, unit="eval", unit_scale=True) as bar:
        for indices in batches(0, params.count, runtime.sample_batch):
            kept_t, frames = [], []
            for done, step in enumerate(draw_batch(loaded, params, params.seed, indices, runtime), start=1):
                if params.keep_every and (steps - done) % params.keep_every == 0:
                    kept_t.append(step.t)
                    frames.append(to_uint8(torch.stack([step.x_prev, step.pred_x_start])).cpu())
                bar.update(len(indices))
            images.append(to_uint8(step.x_prev).cpu())
            kept.append(frames)
    whole = [torch.cat(parts, dim=1) for parts in zip(*kept, strict=True)]
    x_t, pred_x_start = torch.stack(whole, dim=1) if whole else torch.empty(2, 0, dtype=torch.uint8)
    save_arrays(
        SAMPLES / f"{name}.safetensors",
        {"images": torch.cat(images), "x_t": x_t, "pred_x_start": pred_x_start},
        {"classes": loaded.card.classes, "kept_t": kept_t},
    )


if __name__ == "__main__":
    run(main)
