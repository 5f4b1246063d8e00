"""The loss of a denoiser, in training and in validation (Ho et al. 2020, eq. 14)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.images.card import Shape
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split


class Denoising:
    """How wrong a network is about the noise in images of shape (C, H, W)."""

    def __init__(self, schedule: NoiseSchedule, shape: Shape, loss: str, runtime: Runtime) -> None:
        """Put the schedule on the device; `loss` is that of `TrainParams`."""
        self.schedule = schedule.to(runtime.device)
        self.shape = shape
        self.loss = loss
        self.runtime = runtime
        self._schedule = schedule

    def cdf(self, log_snr_center: float | None) -> Tensor:
        """See `timestep_cdf`; on the device, in float32 where it has no wider numbers."""
        device = self.runtime.device
        widest = torch.float32 if device.type == "mps" else torch.float64
        return timestep_cdf(self._schedule, log_snr_center).to(widest).to(device)

    def draw(self, count: int, cdf: Tensor, sampling: str, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """So many timesteps (count,), and as much noise (count, C, H, W)."""
        t = draw_timesteps(count, cdf, sampling, source)
        return t, torch.randn(count, *self.shape, generator=source, device=self.runtime.device)

    def errors(self, model: nn.Module, split: Split, t: Tensor, noise: Tensor) -> Tensor:
        """The simple loss of every image, shape (B,): the squared error of the predicted noise."""
        x_t = self.schedule.q_sample(to_float(split.images), t, noise)
        with self.runtime.autocast():
            pred_noise = model(x_t, t, split.labels)
        return F.mse_loss(pred_noise.float(), noise, reduction="none").mean(dim=(1, 2, 3))

    def trained(self, errors: Tensor, t: Tensor) -> Tensor:
        """The loss that is trained, of the errors (B,) at t (B,).

        The error of v is that of the noise over alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512, section 4): as
        a loss it gives more weight to the noisy images, where the shape of things is decided.
        """
        return errors / self.schedule.alphas_cumprod[t] if self.loss == "v" else errors
