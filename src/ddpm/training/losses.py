"""The denoising loss of training and validation: L_simple of Ho et al. 2020 (eq. 14), its weighting and its target."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.compute.device import Runtime
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule, exact
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.images.card import Shape
from ddpm.images.splits import Split, to_float
from ddpm.networks.unet import NO_LABEL


class DenoisingLoss:
    """The loss of a denoiser on images of shape (C, H, W)."""

    def __init__(self, schedule: NoiseSchedule, shape: Shape, loss: str, runtime: Runtime) -> None:
        """Move the schedule to the device; `loss` is "noise" or "v", see `weighted`."""
        self.schedule = schedule.to(runtime.device)
        self.shape = shape
        self.loss = loss
        self.runtime = runtime
        self._schedule = schedule

    def cdf(self, log_snr_center: float | None, log_snr_uniform: float = 0) -> Tensor:
        """Return `timestep_cdf` on the device, in float64, or in float32 on MPS, which lacks float64."""
        return exact(timestep_cdf(self._schedule, log_snr_center, log_snr_uniform), self.runtime.device)

    def draw(self, count: int, cdf: Tensor, sampling: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample timesteps (count,) and noise (count, C, H, W): lines 3 and 4 of algorithm 1."""
        t = draw_timesteps(count, cdf, sampling, rng)
        noise = torch.randn(count, *self.shape, generator=rng, device=self.runtime.device)
        return t, noise

    def mse(
        self, denoiser: Denoiser, split: Split, t: Tensor, noise: Tensor, others: tuple[Split, Tensor] | None = None
    ) -> Tensor:
        """Return L_simple of every image, (B,): the mean squared error of the predicted noise (eq. 14).

        With `others` the gradient is that of the error from a stable target: the noise if the image were
        `stable_start`, which takes these others. It has nearly the same mean, and varies less. The value stays the
        error of the noise.
        """
        x_start = to_float(split.images)
        x_t = self.schedule.q_sample(x_start, t, noise)  # sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (eq. 4)
        pred_noise = denoiser(x_t, t, split.labels).noise  # eps_theta(x_t, t)
        mse = F.mse_loss(pred_noise, noise, reduction="none").mean(dim=(1, 2, 3))
        if others is None:
            return mse
        signal = self.schedule.sqrt_alphas_cumprod[t].view(-1, 1, 1, 1)
        spread = self.schedule.sqrt_one_minus_alphas_cumprod[t].view(-1, 1, 1, 1)
        start = stable_start(x_t, x_start, split.labels, signal, spread, *others)
        target = noise + signal / spread * (x_start - start)
        stable = F.mse_loss(pred_noise, target, reduction="none").mean(dim=(1, 2, 3))
        return stable + (mse - stable).detach()  # the value of mse, the gradient of stable

    def weighted(self, mse: Tensor, t: Tensor) -> Tensor:
        """Return the loss to minimise, (B,), from the mean squared errors (B,) at t (B,).

        The error of v is the error of the noise divided by alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512,
        section 4). It gives more weight to noisy images, which decide the shapes.
        """
        return mse / self.schedule.alphas_cumprod[t] if self.loss == "v" else mse


def stable_start(
    x_t: Tensor, x_start: Tensor, labels: Tensor, signal: Tensor, spread: Tensor, others: Split, itself: Tensor
) -> Tensor:
    """Return the mean of x_0 given x_t, (B, C, H, W), over x_start and the other images of its class.

    This is the stable target field of Xu et al. 2023 (arXiv:2302.00670). Where noise is strong, many images may have
    become x_t: their mean is what the network has to learn, and x_start is a noisy sample of it. Where noise is weak,
    the mean is x_start.

    Args:
        x_t: (B, C, H, W), noisy x_start.
        signal, spread: sqrt(abar) and sqrt(1 - abar) at each t, (B, 1, 1, 1).
        labels: (B,); NO_LABEL takes others of all classes.
        others: K images and their labels.
        itself: where an image is among the others, (B, K), so that it does not count twice.
    """
    x, own, signal, spread = (each.flatten(1) for each in (x_t, x_start, signal, spread))
    images = others.images.flatten(1).float().div_(127.5).sub_(1)  # to_float in place, several times faster
    # The logarithm of N(x_t; signal x_0, spread^2 I) times spread^2, up to a constant of each x_t.
    of_own = signal * (x * own).sum(1, keepdim=True) - signal.square() * own.square().sum(1, keepdim=True) / 2
    of_others = signal * (x @ images.T) - signal.square() * images.square().sum(1) / 2
    labels = labels.view(-1, 1)
    of_others.masked_fill_(itself | (labels != NO_LABEL) & (labels != others.labels), -torch.inf)
    weights = (torch.cat([of_own, of_others], dim=1) / spread.square()).softmax(dim=1)
    return (weights[:, :1] * own + weights[:, 1:] @ images).view_as(x_t)
