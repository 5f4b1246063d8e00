"""The denoiser: converts the prediction of a network, noise or v, into x_0 and noise.

Training, sampling, guidance, likelihood and distillation all call the network through it. The network predicts eps,
the noise in x_t, or v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans and Ho 2022, arXiv:2202.00512, appendix D).
The conversion is in float32: where x_t is nearly all noise, bfloat16 would lose the image. Karras et al. 2022
(arXiv:2206.00364) call such an object the preconditioned network.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .schedule import NoiseSchedule

PredictionKind = Literal["noise", "v"]
NARROW = 8  # pixels


class NotFiniteError(ArithmeticError):
    """What a network predicts is not finite; the message says where."""


class Prediction(NamedTuple):
    """The estimates x_start and noise at x_t, each float32, (B, C, H, W), unclipped.

    Each is computed from the network's output directly. From v, x_start needs no division by the signal, which would
    amplify rounding errors.
    """

    x_t: Tensor
    output: Tensor  # of the network: noise or v
    kind: PredictionKind
    signal: Tensor  # sqrt(abar_t), (B, 1, 1, 1)
    spread: Tensor  # sqrt(1 - abar_t), (B, 1, 1, 1)

    @property
    def x_start(self) -> Tensor:
        """Return the estimate of x_0; from noise by Ho et al. 2020, eq. 15."""
        if self.kind == "v":
            return self.signal * self.x_t - self.spread * self.output
        return (self.x_t - self.spread * self.output) / self.signal

    @property
    def noise(self) -> Tensor:
        """Return the estimate of eps."""
        return self.spread * self.x_t + self.signal * self.output if self.kind == "v" else self.output


class Denoiser:
    """A network with its noise schedule, on one device and in one precision."""

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        prediction: PredictionKind = "noise",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Wrap a network that is on the device.

        Args:
            network: maps x_t (B, C, H, W), t (B,) and labels, (B,) or None, to (B, C, H, W).
            prediction: what the network outputs.
            dtype: of its matrix products; its weights and sums are float32.

        Raises:
            ValueError: there is no such prediction.
        """
        if prediction not in ("noise", "v"):
            raise ValueError(f"prediction: {prediction}; choose noise or v")
        self.network = network
        self.device = torch.device(device)
        self.dtype = dtype
        self.schedule = schedule.to(self.device)
        self.prediction = prediction

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        """Predict from x_t (B, C, H, W), float32, from t (B,), integers in 0..T-1, and from labels (B,)."""
        height, width = x_t.shape[2:]
        # On CPUs with AMX, torch's bfloat16 convolutions of such images read memory that nobody wrote (torch 2.13).
        narrow = width <= NARROW and width < height
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32 and not narrow):
            output = self.network(x_t, t, labels).float()
        signal = self.schedule.sqrt_alphas_cumprod[t].view(-1, 1, 1, 1)
        spread = self.schedule.sqrt_one_minus_alphas_cumprod[t].view(-1, 1, 1, 1)
        return Prediction(x_t, output, self.prediction, signal, spread)
