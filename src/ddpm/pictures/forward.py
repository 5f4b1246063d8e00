"""Show the forward diffusion: a figure of a few images, and a table of the schedule."""

import pandas as pd
import torch
from torch import Tensor

from ddpm.diffusion.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images.splits import to_float, to_uint8
from ddpm.pictures.figures import image_table, to_png

IMAGES = 4  # rows of the figure
TIMES = (0, 50, 100, 150, 200, 250, 300, 500, 999)  # columns, of 1000


def forward_strip(images: Tensor, schedule: NoiseSchedule) -> bytes:
    """Draw the first of uint8 images (N, C, H, W), a row each: the clean image, then x_t at each timestep."""
    x_start = to_float(images[:IMAGES])
    last = len(schedule.betas) - 1
    timesteps = sorted({min(round(t * (last + 1) / 1000), last) for t in TIMES})
    columns = [x_start]
    for t in timesteps:
        noise = torch.randn(x_start.shape, generator=generator(0, "forward", t))
        columns.append(schedule.q_sample(x_start, torch.full((len(x_start),), t), noise))
    titles = ["clean", *(f"t = {t}" for t in timesteps)]
    table = to_uint8(torch.stack(columns, dim=1))
    return to_png(image_table(table, titles, "Forward diffusion: x_t, from the clean image to noise"))


def schedule_table(schedule: NoiseSchedule) -> str:
    """Return the schedule as csv, a row for each t; SNR is alphas_cumprod / (1 - alphas_cumprod)."""
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    columns = {"betas": schedule.betas, "alphas_cumprod": schedule.alphas_cumprod, "log10_snr": snr.log10()}
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    table["log10_snr"] = table["log10_snr"].map("{:.6f}".format)
    return table.to_csv(index_label="t", float_format="%.6e")
