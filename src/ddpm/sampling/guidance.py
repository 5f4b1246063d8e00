"""Guidance: away from what a worse model predicts, at the noise levels where it helps."""

from collections.abc import Callable

from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

PredictNoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> noise like x_t
PredictBoth = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (x_t, t) -> noise by model and guide, each like x_t


def guided(
    predict_noise: PredictNoise,
    predict_both: PredictBoth,
    schedule: NoiseSchedule,
    scale: float,
    interval: tuple[float, float],
) -> PredictNoise:
    """The predicted noise, guided.

    Where the log signal-to-noise ratio lies in the interval it is eps_0 + scale (eps - eps_0), with eps the noise that
    the model predicts, and eps_0 that of its guide. That is the model itself that is not told the class (the
    classifier-free guidance of Ho and Salimans 2022, arXiv:2207.12598; at some noise levels alone, Kynkaanniemi et al.
    2024, arXiv:2404.07724), or the model as it was early in its training (the autoguidance of Karras et al. 2024,
    arXiv:2406.02507). Elsewhere, and with a scale of 1 everywhere, it is eps.

    Args:
        predict_noise: eps.
        predict_both: eps and eps_0.
    """
    if scale == 1:
        return predict_noise
    log_snr = schedule.alphas_cumprod.logit().tolist()

    def predict(x_t: Tensor, t: int) -> Tensor:
        if not interval[0] <= log_snr[t] <= interval[1]:
            return predict_noise(x_t, t)
        pred_noise, of_guide = predict_both(x_t, t)
        return of_guide + scale * (pred_noise - of_guide)

    return predict
