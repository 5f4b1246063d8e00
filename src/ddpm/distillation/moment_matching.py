"""Distillation of a trained model to one that draws in a few evaluations, by moment matching.

Salimans et al. 2024, "Multistep Distillation of Diffusion Models via Moment Matching" (arXiv:2406.04103, algorithm
2). The student's estimate of the clean image stands for the image itself: from x_t it goes to x_s by q(x_s | x_t, x_0).
Were what it draws distributed as the data, the best denoiser of its x_s would be the teacher. So an auxiliary model
learns to denoise them, and the student is moved along the difference of the two, until there is none.
"""

import copy
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.compute.randomness import generator
from ddpm.diffusion.timesteps import quantile_timesteps, timestep_cdf
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split
from ddpm.networks.checkpoint import LoadedModel
from ddpm.networks.unet import UNet
from ddpm.training.optim import Optimization, OptimizationParams

LEAST_ERROR = 0.01  # of the teacher's estimate: what is right already would weigh without bound
MOST_EVALUATIONS = 64


class DistillParams(OptimizationParams):
    """The recipe; see params.yaml for what each choice means."""

    steps: tuple[Annotated[int, Field(ge=1, le=MOST_EVALUATIONS)], ...]
    images: Annotated[int, Field(ge=1, le=10**12)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    auxiliary_lr: Annotated[float, Field(gt=0, le=1)]
    log_snr_center: Annotated[float, Field(ge=-20, le=20)]
    log_every: Annotated[int, Field(ge=1, le=10**9)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Logged(NamedTuple):
    """Means since the last `Logged`, up to and including step `step`, each a mean squared error over the pixels.

    auxiliary: of the auxiliary model's v. moments: what it and the teacher estimate of the clean image differ by.
    """

    step: int
    auxiliary: float
    moments: float


class Batch(NamedTuple):
    """Noisy images x_t (B, C, H, W), their labels, t and the s < t that the student is to go to, each (B,)."""

    x_t: Tensor
    labels: Tensor
    t: Tensor
    s: Tensor


class Distillation:
    """One distillation. `run` is its loop, a generator; `model` is what to keep, at any time."""

    def __init__(
        self, teacher: LoadedModel, images: Split, evaluations: int, params: DistillParams, runtime: Runtime
    ) -> None:
        """Put everything on the device, where the teacher is already.

        Raises:
            ValueError: the teacher has too few timesteps for so many evaluations.
        """
        device = runtime.device
        self.params = params
        self.runtime = runtime
        cdf = timestep_cdf(teacher.schedule, params.log_snr_center)
        self.timesteps = quantile_timesteps(evaluations, cdf)
        self.schedule = teacher.schedule.to(device)
        self.images = images.to(device)
        network = teacher.network.requires_grad_(False)
        student, auxiliary = (copy.deepcopy(network).requires_grad_() for _ in range(2))
        self.teacher, self.student, self.auxiliary = (
            teacher.denoiser(runtime, each) for each in (network, student, auxiliary)
        )
        self.shape = teacher.card.data.shape
        self.total_steps = max(1, round(params.images / params.batch_size))
        others = params.model_copy(update={"lr": params.auxiliary_lr, "ema_decay": 0.0})
        self.of_student = Optimization(student, params, self.total_steps)
        self.of_auxiliary = Optimization(auxiliary, others, self.total_steps)
        self.sums = torch.zeros(2, device=device)
        self.since_log = 0
        self.rows: list[list[float]] = []  # of every Logged
        self._below = torch.cat([cdf.new_zeros(1), cdf]).float().to(device)  # how likely an earlier timestep is than t
        self._walk = torch.tensor(self.timesteps, device=device)
        self._ends = torch.tensor([*self.timesteps[1:], 0], device=device)

    @property
    def model(self) -> UNet:
        """The student, with averaged weights where params ask for it."""
        return self.of_student.model

    @property
    def step(self) -> int:
        """Steps taken, each one of the auxiliary model and one of the student."""
        return self.of_student.steps

    def run(self) -> Iterator[Logged | None]:
        """Distil to the end: something after every step, a `Logged` every log_every steps."""
        while self.step < self.total_steps:
            auxiliary = self._step_of_auxiliary()
            moments = self._step_of_student()
            self.sums += torch.stack([auxiliary, moments])
            self.since_log += 1
            due = self.step % self.params.log_every == 0 or self.step == self.total_steps
            yield self._log() if due else None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while it runs."""
        return {
            "student": self.of_student.state_dict(),
            "auxiliary": self.of_auxiliary.state_dict(),
            "sums": self.sums,
            "since_log": self.since_log,
            "rows": self.rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where another Distillation with the same arguments was."""
        self.of_student.load_state_dict(state["student"])
        self.of_auxiliary.load_state_dict(state["auxiliary"])
        self.sums.copy_(state["sums"])
        self.since_log, self.rows = state["since_log"], state["rows"]

    def _log(self) -> Logged:
        auxiliary, moments = (self.sums / self.since_log).tolist()
        self.sums.zero_()
        self.since_log = 0
        self.rows.append([self.step, auxiliary, moments])
        return Logged(self.step, auxiliary, moments)

    def _step_of_auxiliary(self) -> Tensor:
        """Let it learn to denoise what the student draws, by the loss of v; that loss."""
        source = self._source("auxiliary")
        batch = self._batch(source)
        with torch.no_grad():
            drawn, x_s = self._drawn(batch, source)
        estimate = self.auxiliary(x_s, batch.s, batch.labels).x_start
        # The error of v is that of x_0 over the share of noise (Salimans and Ho 2022, arXiv:2202.00512, section 4).
        weights = 1 / self.schedule.sqrt_one_minus_alphas_cumprod[batch.s].square()
        loss = ((estimate - drawn).square().mean(dim=(1, 2, 3)) * weights).mean()
        return self._descend(self.of_auxiliary, loss)

    def _step_of_student(self) -> Tensor:
        """Move what it draws toward where teacher and auxiliary model agree; how far they do not.

        The difference is the gradient. It is taken over the error of the teacher's estimate, by which images of all
        noise levels count alike (Yin et al. 2024, arXiv:2311.18828, eq. 8).
        """
        source = self._source("student")
        batch = self._batch(source)
        drawn, x_s = self._drawn(batch, source)
        with torch.no_grad():
            both = [each(x_s, batch.s, batch.labels).x_start for each in (self.auxiliary, self.teacher)]
            auxiliary, teacher = (each.clamp(-1, 1) for each in both)
            error = (drawn - teacher).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=LEAST_ERROR)
        self._descend(self.of_student, (drawn * (auxiliary - teacher) / error).sum() / len(drawn))
        return (both[0] - both[1]).square().mean()

    def _descend(self, optimization: Optimization, loss: Tensor) -> Tensor:
        optimization.network.zero_grad(set_to_none=True)
        loss.backward()
        optimization.step()
        return loss.detach()

    def _batch(self, source: torch.Generator) -> Batch:
        """Real images with noise, as the student meets its own on the way: at each of its timesteps as many.

        From there it goes to any s below, down to its next timestep, as likely as the density of t has it.
        """
        count, device = self.params.batch_size, self.runtime.device
        chosen = torch.randint(len(self.images.images), (count,), generator=source, device=device)
        images, labels = self.images.batch(chosen.to(self.images.images.device), device)
        first = torch.randint(len(self.timesteps), (), generator=source, device=device)
        place = (torch.randperm(count, generator=source, device=device) + first) % len(self.timesteps)
        t, end = self._walk[place], self._ends[place]
        shares = torch.rand(count, generator=source, device=device)
        least, most = self._below[end], self._below[t]
        s = torch.searchsorted(self._below, least + shares * (most - least), right=True) - 1
        s = torch.minimum(torch.maximum(s, end), (t - 1).clamp(min=0))  # rounding may lead beyond
        x_t = self.schedule.q_sample(to_float(images), t, self._normal(source))
        return Batch(x_t, labels, t, s)

    def _drawn(self, batch: Batch, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the student takes for the clean images, and x_s on the way to them."""
        drawn = self.student(batch.x_t, batch.t, batch.labels).x_start
        return drawn, self.schedule.q_between(drawn, batch.x_t, batch.s, batch.t, self._normal(source))

    def _normal(self, source: torch.Generator) -> Tensor:
        shape = (self.params.batch_size, *self.shape)
        return torch.randn(shape, generator=source, device=self.runtime.device)

    def _source(self, of: str) -> torch.Generator:
        return generator(self.params.seed, of, self.step, self.runtime.device)
