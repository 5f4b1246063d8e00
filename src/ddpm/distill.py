"""Distillation of a trained model into a student that samples in a few evaluations, by moment matching.

Salimans et al. 2024, "Multistep Distillation of Diffusion Models via Moment Matching" (arXiv:2406.04103, algorithm 2).
The student's estimate takes the place of x_0: from x_t, the student samples x_s ~ q(x_s | x_t, x_0). An auxiliary
model learns to denoise these x_s, and is held near the teacher. If the student's samples were distributed like the
data, the best denoiser would be the teacher. So the student moves along the difference of auxiliary model and teacher.
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.compute.randomness import generator
from ddpm.compute.world import ALONE, World
from ddpm.images.splits import Split, to_float
from ddpm.model import LoadedModel, save_model
from ddpm.optim import Optimization, OptimizationParams, shards_on_cpu
from ddpm.schedule import posterior
from ddpm.timesteps import quantile_timesteps, timestep_cdf
from ddpm.unet import UNet
from exact_stages.console import UserError
from exact_stages.params import Section

STUDENT = OptimizationParams(optimizer="muon", lr=0.0003, lr_decay="cosine", warmup_steps=20, ema_decay=0.99)
AUXILIARY = STUDENT.model_copy(update={"lr": 0.001, "ema_decay": 0.0})
LOG_SNR_CENTER = -1.0  # of the density of the timesteps and of the noise to match
LOG_EVERY = 20  # steps
LEAST_ERROR = 0.01  # of the student against the teacher: bounds the weight of images without error
MOST_EVALUATIONS = 64
COLUMNS = ["step", "auxiliary", "moments"]


class DistillParams(Section):
    """The numbers of evaluations, and the length of the distillation; params.yaml explains each choice."""

    steps: tuple[Annotated[int, Field(ge=1, le=MOST_EVALUATIONS)], ...]
    images_seen: Annotated[int, Field(ge=1, le=10**12)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Batch(NamedTuple):
    """Noisy images x_t (B, C, H, W), their labels, their t, and the s < t to sample next, each (B,)."""

    x_t: Tensor
    labels: Tensor
    t: Tensor
    s: Tensor

    def take(self, shard: slice) -> "Batch":
        """Select some of the images."""
        return Batch(*(each[shard] for each in self))


class Distillation:
    """One distillation. The generator `run` is its loop; `model` has the weights to keep, at any time."""

    def __init__(
        self, teacher: LoadedModel, images: Split, evaluations: int, params: DistillParams, runtime: Runtime
    ) -> None:
        """Move everything to the device of the teacher.

        Raises:
            UserError: the teacher has too few timesteps for the number of evaluations.
        """
        device = runtime.device
        self.params = params
        self.runtime = runtime
        self.card = teacher.card
        cdf = timestep_cdf(teacher.schedule, LOG_SNR_CENTER)
        self.timesteps = quantile_timesteps(evaluations, cdf)
        if len({*self.timesteps}) < evaluations:
            raise UserError(f"distill.steps: {evaluations} of {len(cdf)} timesteps would repeat one; ask for fewer")
        self.schedule = teacher.schedule.to(device)
        self.alphas_cumprod = teacher.schedule.alphas_cumprod.to(device)
        self.images = images.to(device)
        network = teacher.network.requires_grad_(False)
        student, auxiliary = (copy.deepcopy(network).requires_grad_() for _ in range(2))
        networks = network, student, auxiliary
        self.teacher, self.student, self.auxiliary = (teacher.denoiser(runtime, each) for each in networks)
        self.total_steps = max(1, round(params.images_seen / params.batch_size))
        self.of_student = Optimization(student, STUDENT, self.total_steps)
        self.of_auxiliary = Optimization(auxiliary, AUXILIARY, self.total_steps)
        on_cpu = device.type == "cpu"
        self.pieces = shards_on_cpu(network.params, params.batch_size) if on_cpu else 1
        self.sums = torch.zeros(2, device=device)
        self.since_log = 0
        self.rows: list[list[float]] = []  # see COLUMNS
        self._below = torch.cat([cdf.new_zeros(1), cdf]).float().to(device)  # probability of timesteps before t
        self._starts = torch.tensor(self.timesteps, device=device)
        self._ends = torch.tensor([*self.timesteps[1:], 0], device=device)

    @property
    def model(self) -> UNet:
        """Return the student, with EMA weights if params ask for them."""
        return self.of_student.model

    @property
    def step(self) -> int:
        """Return the number of steps taken, each of auxiliary model and student."""
        return self.of_student.steps

    def run(self, world: World = ALONE) -> Iterator[float | None]:
        """Distil to the end, in all processes of a world at once.

        Yield None after every step, or the difference of the moments every LOG_EVERY steps.

        Raises:
            UserError: a loss is not finite.
        """
        self.of_student.world = self.of_auxiliary.world = world
        while self.step < self.total_steps:
            auxiliary = self._step_of_auxiliary()
            moments = self._step_of_student()
            self.sums += torch.stack([auxiliary, moments])
            self.since_log += 1
            yield self._log() if self.step % LOG_EVERY == 0 or self.step == self.total_steps else None

    def summary(self) -> dict[str, Any]:
        """Summarise the distillation: mean squared errors per pixel, averaged over the last steps.

        auxiliary: the error of the auxiliary model's v. moments: auxiliary model against teacher, in the estimate of
        x_0.
        """
        _, auxiliary, moments = self.rows[-1]
        return {
            "timesteps": list(self.timesteps),
            "steps": self.step,
            "images_seen": self.step * self.params.batch_size,
            "auxiliary": round(auxiliary, 6),
            "moments": round(moments, 6),
        }

    def csv(self) -> bytes:
        """Return the losses as csv."""
        table: str = pd.DataFrame(self.rows, columns=COLUMNS).to_csv(index=False, float_format="%.6f")
        return table.encode()

    def save(self, path: Path, **facts: Any) -> None:
        """Write the model file of the student, with its timesteps; see `save_model` for the facts."""
        kept = {"guides": (), "images_seen": None, "timesteps": self.timesteps}
        save_model(path, self.model, self.card.model_copy(update=kept), **facts)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the distillation."""
        return {
            "student": self.of_student.state_dict(),
            "auxiliary": self.of_auxiliary.state_dict(),
            "sums": self.sums,
            "since_log": self.since_log,
            "rows": self.rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another Distillation with the same arguments."""
        self.of_student.load_state_dict(state["student"])
        self.of_auxiliary.load_state_dict(state["auxiliary"])
        self.sums.copy_(state["sums"])
        self.since_log, self.rows = state["since_log"], state["rows"]

    def _log(self) -> float:
        auxiliary, moments = (self.sums / self.since_log).tolist()
        if not math.isfinite(moments + auxiliary):
            raise UserError(
                f"distill: the losses are {moments} and {auxiliary} at step {self.step}; train the model again"
            )
        self.sums.zero_()
        self.since_log = 0
        self.rows.append([self.step, auxiliary, moments])
        return moments

    def _step_of_auxiliary(self) -> Tensor:
        """Train the auxiliary model to denoise the student's samples; return the error of its v.

        Its estimate is also pulled to the teacher's, so that it cannot run ahead of the student.
        """
        rng = self._rng("auxiliary")
        batch, noise = self._batch(rng), self._normal(rng)
        errors = torch.zeros(len(noise), device=noise.device)
        for shard in self.of_auxiliary.shards(errors, self.pieces):
            part = batch.take(shard)
            with torch.no_grad():
                x_start, x_s = self._student_sample(part, noise[shard])
                teacher = self.teacher(x_s, part.s, part.labels).x_start
            estimate = self.auxiliary(x_s, part.s, part.labels).x_start
            # The error of v is the error of x_0 over 1 - abar (Salimans and Ho 2022, arXiv:2202.00512, section 4).
            weights = 1 / self.schedule.sqrt_one_minus_alphas_cumprod[part.s].square()
            error, distance = (
                (estimate - wanted).square().mean(dim=(1, 2, 3)) * weights for wanted in (x_start, teacher)
            )
            ((error + distance).sum() / self.params.batch_size).backward()
            errors[shard] = error.detach()
        self.of_auxiliary.step()
        return errors.mean()

    def _step_of_student(self) -> Tensor:
        """Take one student step; return the mean squared difference of auxiliary model and teacher.

        The difference is the gradient. Dividing by the error of student against teacher makes all noise levels count
        alike (Yin et al. 2024, arXiv:2311.18828, eq. 8).
        """
        rng = self._rng("student")
        batch, noise = self._batch(rng), self._normal(rng)
        moments = torch.zeros(len(noise), device=noise.device)
        for shard in self.of_student.shards(moments, self.pieces):
            part = batch.take(shard)
            x_start, x_s = self._student_sample(part, noise[shard])
            with torch.no_grad():
                both = [each(x_s, part.s, part.labels).x_start for each in (self.auxiliary, self.teacher)]
                auxiliary, teacher = (each.clamp(-1, 1) for each in both)
                error = (x_start - teacher).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=LEAST_ERROR)
            ((x_start * (auxiliary - teacher) / error).sum() / self.params.batch_size).backward()
            moments[shard] = (both[0] - both[1]).square().mean(dim=(1, 2, 3))
        self.of_student.step()
        return moments.mean()

    def _batch(self, rng: torch.Generator) -> Batch:
        """Make noisy images at the student's timesteps t, equally many at each, from real images.

        The target s is between t and the student's next timestep, sampled from the density that spaces the timesteps.
        """
        count, device = self.params.batch_size, self.runtime.device
        chosen = torch.randint(len(self.images.images), (count,), generator=rng, device=device)
        images, labels = self.images.batch(chosen.to(self.images.images.device), device)
        first = torch.randint(len(self.timesteps), (), generator=rng, device=device)
        place = (torch.randperm(count, generator=rng, device=device) + first) % len(self.timesteps)
        t, end = self._starts[place], self._ends[place]
        shares = torch.rand(count, generator=rng, device=device)
        least, most = self._below[end], self._below[t]
        s = torch.searchsorted(self._below, least + shares * (most - least), right=True) - 1
        s = torch.minimum(torch.maximum(s, end), (t - 1).clamp(min=0))  # rounding may leave the range
        x_t = self.schedule.q_sample(to_float(images), t, self._normal(rng))
        return Batch(x_t, labels, t, s)

    def _student_sample(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's estimate of x_0, and x_s ~ q(x_s | x_t, x_0) given that estimate.

        The estimate is clipped to [-1, 1], as in sampling. Its gradient ignores the clipping.
        """
        x_start = self.student(batch.x_t, batch.t, batch.labels).x_start
        x_start = x_start + (x_start.clamp(-1, 1) - x_start).detach()
        abar_t, abar_s = (self.alphas_cumprod[each].view(-1, 1, 1, 1) for each in (batch.t, batch.s))
        coef1, coef2, variance = (each.float() for each in posterior(abar_t, abar_s))
        return x_start, coef1 * x_start + coef2 * batch.x_t + variance.sqrt() * noise

    def _normal(self, rng: torch.Generator) -> Tensor:
        shape = (self.params.batch_size, *self.card.data.shape)
        return torch.randn(shape, generator=rng, device=self.runtime.device)

    def _rng(self, of: str) -> torch.Generator:
        return generator(self.params.seed, of, self.step, self.runtime.device)
