"""Show the forward diffusion: a figure of a few images, and a table of the schedule."""

from typing import Annotated

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import to_float, to_uint8
from ddpm.pictures.figures import image_table, to_png
from ddpm.schedule import NoiseSchedule
from exact_stages.params import Section


class ForwardDiffusionParams(Section):
    """Params of the figure: images, timesteps and seed."""

    images: Annotated[int, Field(ge=1, le=20)]
    timesteps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=20)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


def forward_strip(images: Tensor, schedule: NoiseSchedule, params: ForwardDiffusionParams) -> bytes:
    """Draw the first of uint8 images (N, C, H, W), a row each: the clean image, then x_t at each timestep."""
    x_start = to_float(images[: params.images])
    columns = [x_start]
    for t in params.timesteps:
        noise = torch.randn(x_start.shape, generator=generator(params.seed, "forward", t))
        columns.append(schedule.q_sample(x_start, torch.full((len(x_start),), t), noise))
    titles = ["clean", *(f"t = {t}" for t in params.timesteps)]
    table = to_uint8(torch.stack(columns, dim=1))
    return to_png(image_table(table, titles, "Forward diffusion: x_t, from the clean image to noise"))


def schedule_table(schedule: NoiseSchedule) -> str:
    """Return the schedule as csv, a row for each t; SNR is alphas_cumprod / (1 - alphas_cumprod)."""
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    columns = {"betas": schedule.betas, "alphas_cumprod": schedule.alphas_cumprod, "log10_snr": snr.log10()}
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    table["log10_snr"] = table["log10_snr"].map("{:.6f}".format)
    return table.to_csv(index_label="t", float_format="%.6e")
