"""The denoiser: one object between the network and everything that trains it, samples from it or scores it.

A network predicts either the noise in x_t or v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans and Ho 2022,
arXiv:2202.00512, appendix D). The denoiser turns what it predicts into x_0, eps and v, all in float32: where x_t is
nearly all noise, bfloat16 would lose the trace of the image. It is what Karras et al. 2022 (arXiv:2206.00364) call the
preconditioned network.
"""

from typing import Literal, NamedTuple

from torch import Tensor, nn

from ddpm.compute.device import Runtime, compiled
from ddpm.diffusion.schedule import NoiseSchedule

PredictionKind = Literal["noise", "v"]


class Prediction(NamedTuple):
    """What a denoiser makes of x_t: the estimates x_start, noise and v, each float32 (B, C, H, W) and unclipped.

    Each comes straight from the network's output. Of v, x_start needs no division by the signal, which would enlarge
    what float32 rounds off.
    """

    x_t: Tensor
    output: Tensor
    kind: PredictionKind
    signal: Tensor  # sqrt(abar_t), (B, 1, 1, 1)
    spread: Tensor  # sqrt(1 - abar_t), (B, 1, 1, 1)

    @property
    def x_start(self) -> Tensor:
        """The estimate of x_0; of the noise by Ho et al. 2020, eq. 15."""
        if self.kind == "v":
            return self.signal * self.x_t - self.spread * self.output
        return (self.x_t - self.spread * self.output) / self.signal

    @property
    def noise(self) -> Tensor:
        """The estimate of eps."""
        return self.spread * self.x_t + self.signal * self.output if self.kind == "v" else self.output

    @property
    def v(self) -> Tensor:
        """The estimate of v."""
        return self.output if self.kind == "v" else (self.output - self.spread * self.x_t) / self.signal


class Denoiser:
    """A network with the schedule that it belongs to, on one device and in one precision."""

    def __init__(
        self, network: nn.Module, schedule: NoiseSchedule, prediction: PredictionKind, runtime: Runtime
    ) -> None:
        """Wrap a network that is on the runtime's device.

        Args:
            network: called with x_t (B, C, H, W), t (B,) and labels (B,) or None; gives (B, C, H, W).
            prediction: what it gives.
        """
        self.network = compiled(network)
        self.schedule = schedule.to(runtime.device)
        self.prediction = prediction
        self.runtime = runtime

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        """Predict from x_t (B, C, H, W), float32, at t (B,) of integers in 0..T-1, and labels (B,)."""
        with self.runtime.autocast():
            output = self.network(x_t, t, labels).float()
        signal = self.schedule.sqrt_alphas_cumprod[t].view(-1, 1, 1, 1)
        spread = self.schedule.sqrt_one_minus_alphas_cumprod[t].view(-1, 1, 1, 1)
        return Prediction(x_t, output, self.prediction, signal, spread)
