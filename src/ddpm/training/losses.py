"""The loss of a denoiser, in training and in validation (Ho et al. 2020, eq. 14)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.compute.device import Runtime
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.images.card import Shape
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split


class DenoisingLoss:
    """The error of a denoiser on images of shape (C, H, W)."""

    def __init__(self, schedule: NoiseSchedule, shape: Shape, loss: str, runtime: Runtime) -> None:
        """Put the schedule on the device; `loss` is that of `TrainParams`."""
        self.schedule = schedule.to(runtime.device)
        self.shape = shape
        self.loss = loss
        self.runtime = runtime
        self._schedule = schedule

    def cdf(self, log_snr_center: float | None) -> Tensor:
        """Return `timestep_cdf` on the device, in float32 where it has no wider numbers."""
        device = self.runtime.device
        widest = torch.float32 if device.type == "mps" else torch.float64
        return timestep_cdf(self._schedule, log_snr_center).to(widest).to(device)

    def draw(self, count: int, cdf: Tensor, sampling: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw timesteps (count,) and noise (count, C, H, W)."""
        t = draw_timesteps(count, cdf, sampling, generator)
        return t, torch.randn(count, *self.shape, generator=generator, device=self.runtime.device)

    def mse(self, denoiser: Denoiser, split: Split, t: Tensor, noise: Tensor) -> Tensor:
        """Return the simple loss of every image, (B,): the mean squared error of the predicted noise."""
        x_t = self.schedule.q_sample(to_float(split.images), t, noise)
        prediction = denoiser(x_t, t, split.labels)
        return F.mse_loss(prediction.noise, noise, reduction="none").mean(dim=(1, 2, 3))

    def weighted(self, mse: Tensor, t: Tensor) -> Tensor:
        """Return the loss to minimise, of the mean squared errors (B,) at t (B,).

        The error of v is that of the noise over alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512, section 4): as
        a loss it gives more weight to the noisy images, where the shape of things is decided.
        """
        return mse / self.schedule.alphas_cumprod[t] if self.loss == "v" else mse
