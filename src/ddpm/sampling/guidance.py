"""Guidance: moves samples away from the predictions of a worse model, at the noise levels where this helps."""

from collections.abc import Callable

from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

CLASSIFIER_FREE_SCALE = 1.1  # more costs variety
FULL_SCALE, FULL_IMAGES = 1.3, 320_000  # best for the default training, and its images, counting repeats
Denoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> the estimate of x_0, like x_t


def autoguidance_scale(images_seen: int | None) -> float:
    """Return a scale for a model that was trained on `images_seen` images, counting repeats; None: on many.

    The guide of a short training has hardly learned, so its errors say little about those of the model.
    """
    share = 1 if images_seen is None else min(1, images_seen / FULL_IMAGES)
    return round(1 + (FULL_SCALE - 1) * share, 2)


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
