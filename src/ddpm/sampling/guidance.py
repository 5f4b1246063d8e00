"""Guidance: moves samples away from the predictions of a worse model, at the noise levels where this helps."""

from collections.abc import Callable

from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

Denoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> the estimate of x_0, like x_t


def guided(
    denoise: Denoise, guide: Denoise, schedule: NoiseSchedule, scale: float, interval: tuple[float, float]
) -> Denoise:
    """Guide a model by a worse one: D_guide + scale (D - D_guide), where log SNR is in the interval (arXiv:2404.07724).

    Classifier-free guidance: the guide is the same model without the class (Ho and Salimans 2022, arXiv:2207.12598).
    Autoguidance: the guide is the model from early in its training (Karras et al. 2024, arXiv:2406.02507).
    Outside the interval the model is not guided.
    """
    log_snr = schedule.alphas_cumprod.logit().tolist()

    def denoise_guided(x_t: Tensor, t: int) -> Tensor:
        pred_x_start = denoise(x_t, t)
        if not interval[0] <= log_snr[t] <= interval[1]:
            return pred_x_start
        guide_x_start = guide(x_t, t)
        return guide_x_start + scale * (pred_x_start - guide_x_start)

    return denoise_guided
