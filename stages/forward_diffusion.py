"""Show the forward diffusion: a few images on their way to noise, and the schedule as curves."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.pixels import to_float, to_uint8
from ddpm.images.splits import load_split
from ddpm.pictures.figures import image_table, to_png
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_whole
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
METRICS = Path("metrics/forward_diffusion")


class ForwardDiffusionParams(Section):
    """Which images are shown, and when."""

    images: Annotated[int, Field(ge=1, le=20)]
    timesteps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=20)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Params(Sections):
    """What this stage reads."""

    schedule: ScheduleParams
    forward_diffusion: ForwardDiffusionParams


def main(stage: Stage) -> None:
    """Write the strip and the table of the schedule."""
    params = stage.params(Params)
    late = [t for t in params.forward_diffusion.timesteps if t >= params.schedule.timesteps]
    if late:
        raise UserError(
            f"forward_diffusion.timesteps: {late} must be below schedule.timesteps, {params.schedule.timesteps}"
        )
    schedule = NoiseSchedule(params.schedule)
    split = load_split(stage.input(TRAIN)).split
    strip = draw_strip(split.images, schedule, params.forward_diffusion)
    write_whole(stage.output(METRICS / "strip.png"), strip)
    write_whole(stage.output(METRICS / "schedule.csv"), schedule_table(schedule).encode())


def draw_strip(images: Tensor, schedule: NoiseSchedule, params: ForwardDiffusionParams) -> bytes:
    """The first of uint8 images (N, C, H, W), a row for each; columns are the timesteps, after the clean images."""
    x_start = to_float(images[: params.images])
    columns = [x_start]
    for t in params.timesteps:
        noise = torch.randn(x_start.shape, generator=generator(params.seed, "forward", t))
        columns.append(schedule.q_sample(x_start, torch.full((len(x_start),), t), noise))
    titles = ["clean", *(f"t = {t}" for t in params.timesteps)]
    table = to_uint8(torch.stack(columns, dim=1))
    return to_png(image_table(table, titles, "Forward diffusion: x_t, from the clean image to noise"))


def schedule_table(schedule: NoiseSchedule) -> str:
    """The schedule as csv, a row for each t; SNR is alphas_cumprod / (1 - alphas_cumprod)."""
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    columns = {"betas": schedule.betas, "alphas_cumprod": schedule.alphas_cumprod, "log10_snr": snr.log10()}
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    table["log10_snr"] = table["log10_snr"].map("{:.6f}".format)
    return table.to_csv(index_label="t", float_format="%.6e")


if __name__ == "__main__":
    run_stage("forward_diffusion", main)
