"""Guidance: away from what a worse model predicts, at the noise levels where it helps."""

from collections.abc import Callable

from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

Denoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> the estimate of x_0, like x_t


def guided(
    denoise: Denoise, guide: Denoise, schedule: NoiseSchedule, scale: float, interval: tuple[float, float]
) -> Denoise:
    """Guide a model by a worse one: D_guide + scale (D - D_guide), where log SNR is in the interval (arXiv:2404.07724).

    The guide is the same model without the class (classifier-free guidance, Ho and Salimans 2022, arXiv:2207.12598), or
    the model as it was early in its training (autoguidance, Karras et al. 2024, arXiv:2406.02507). Elsewhere, and with
    a scale of 1 everywhere, the model's own estimate stands.
    """
    if scale == 1:
        return denoise
    log_snr = schedule.alphas_cumprod.logit().tolist()

    def denoise_guided(x_t: Tensor, t: int) -> Tensor:
        pred_x_start = denoise(x_t, t)
        if not interval[0] <= log_snr[t] <= interval[1]:
            return pred_x_start
        of_guide = guide(x_t, t)
        return of_guide + scale * (pred_x_start - of_guide)

    return denoise_guided
