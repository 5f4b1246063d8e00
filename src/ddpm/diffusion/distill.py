"""Distillation of a trained model into a student that samples in a few evaluations, by moment matching.

Salimans et al. 2024, "Multistep Distillation of Diffusion Models via Moment Matching" (arXiv:2406.04103, algorithm 2).
The student's estimate takes the place of x_0: from x_t, the student samples x_s ~ q(x_s | x_t, x_0). An auxiliary
model learns to denoise these x_s, and is held near the teacher. If the student's samples were distributed like the
data, the best denoiser would be the teacher. So the student moves along the difference of auxiliary model and teacher.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .denoiser import Denoiser, NotFiniteError
from .optim import Optimization
from .randomness import generator
from .schedule import NoiseSchedule, posterior
from .shards import ALONE, Group, images_of, sums, total
from .timesteps import quantile_timesteps, timestep_cdf
from .unet import UNet

STUDENT: dict[str, Any] = {"optimizer": "muon", "lr": 0.0003, "warmup_steps": 20, "ema_decay": 0.99}
AUXILIARY = STUDENT | {"lr": 0.001, "ema_decay": 0.0}
LOG_SNR_CENTER = -1.0  # of the density of the timesteps and of the noise to match
LOG_EVERY = 20  # steps
LEAST_ERROR = 0.01  # of the student against the teacher: bounds the weight of images without error
# (how many, generator) -> random real images in [-1, 1], (B, C, H, W), and their labels, (B,), on its device
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
Losses = Callable[["Batch", Tensor], tuple[Tensor, Tensor]]  # (some of a batch, noise) -> losses and reports, (B, ...)


class Batch(NamedTuple):
    """Noisy images x_t (B, C, H, W), their labels, their t, and the s < t to sample next, each (B,)."""

    x_t: Tensor
    labels: Tensor
    t: Tensor
    s: Tensor

    def take(self, some: slice) -> "Batch":
        """Select some of the images."""
        return Batch(*(each[some] for each in self))


class Distillation:
    """One distillation. The generator `run` is its loop; `model` has the weights to keep, at any time."""

    def __init__(
        self,
        teacher: Denoiser,
        schedule: NoiseSchedule,
        draw: Draw,
        evaluations: int,
        *,
        images_seen: int = 32_000,
        batch_size: int = 64,
        seed: int = 0,
        shards: int = 1,
    ) -> None:
        """Begin with two copies of the teacher, whose weights are frozen.

        Args:
            schedule: the teacher's, in float64.
            evaluations: of the network, for an image of the student.
            images_seen: length of the distillation, in images.
            shards: how many shards a batch has, see `train_loop`.

        Raises:
            ValueError: the teacher has too few timesteps for the number of evaluations.
        """
        self.device = teacher.device
        self.draw = draw
        self.batch_size = batch_size
        self.seed = seed
        self.shards = shards
        cdf = timestep_cdf(schedule, LOG_SNR_CENTER)
        self.timesteps = quantile_timesteps(evaluations, cdf)
        if len({*self.timesteps}) < evaluations:
            raise ValueError(f"evaluations: {evaluations} of {len(cdf)} timesteps would repeat one; ask for fewer")
        self.schedule = teacher.schedule
        self.alphas_cumprod = schedule.alphas_cumprod.to(self.device)
        self.teacher, self.student, self.auxiliary = teacher, copy.copy(teacher), copy.copy(teacher)
        network: Any = teacher.network.requires_grad_(False)
        student = self.student.network = copy.deepcopy(network).requires_grad_()
        auxiliary = self.auxiliary.network = copy.deepcopy(network).requires_grad_()
        self.total_steps = max(1, round(images_seen / batch_size))
        self.of_student = Optimization(student, self.total_steps, **STUDENT)
        self.of_auxiliary = Optimization(auxiliary, self.total_steps, **AUXILIARY)
        self.length = batch_size + self.of_student.size
        self.sums = torch.zeros(2, device=self.device)
        self.since_log = 0
        self.rows: list[list[float]] = []  # of step, and mean losses of auxiliary model and moments since the last row
        self._below = torch.cat([cdf.new_zeros(1), cdf]).float().to(self.device)  # probability of timesteps before t
        self._starts = torch.tensor(self.timesteps, device=self.device)
        self._ends = torch.tensor([*self.timesteps[1:], 0], device=self.device)

    @property
    def model(self) -> UNet:
        """Return the student, with its EMA weights."""
        return self.of_student.model

    @property
    def step(self) -> int:
        """Return the number of steps taken, each of auxiliary model and student."""
        return self.of_student.steps

    def run(self, world: Group = ALONE) -> Iterator[float | None]:
        """Distil to the end, in all processes of a world at once.

        Yield None after every step, or the difference of the moments every LOG_EVERY steps.

        Raises:
            NotFiniteError: a loss is not finite.
        """
        while self.step < self.total_steps:
            auxiliary = self._descend("auxiliary", self.of_auxiliary, self._auxiliary_losses, world)
            moments = self._descend("student", self.of_student, self._student_losses, world)
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
            "images_seen": self.step * self.batch_size,
            "auxiliary": round(auxiliary, 6),
            "moments": round(moments, 6),
        }

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
            raise NotFiniteError(f"the losses are {moments} and {auxiliary} at step {self.step}")
        self.sums.zero_()
        self.since_log = 0
        self.rows.append([self.step, auxiliary, moments])
        return moments

    def _auxiliary_losses(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses by which the auxiliary model learns to denoise the student's samples; the error of its v.

        Its estimate is also pulled to the teacher's, so that it cannot run ahead of the student.
        """
        with torch.no_grad():
            x_start, x_s = self._student_sample(batch, noise)
            teacher = self.teacher(x_s, batch.s, batch.labels).x_start
        estimate = self.auxiliary(x_s, batch.s, batch.labels).x_start
        # The error of v is the error of x_0 over 1 - abar (Salimans and Ho 2022, arXiv:2202.00512, section 4).
        weights = 1 / self.schedule.sqrt_one_minus_alphas_cumprod[batch.s].square()
        error, distance = ((estimate - wanted).square().mean(dim=(1, 2, 3)) * weights for wanted in (x_start, teacher))
        return error + distance, error.detach()

    def _student_losses(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses with the student's gradient, the difference of auxiliary model and teacher; and its squares.

        Dividing by the error of student against teacher makes all noise levels count alike (Yin et al. 2024,
        arXiv:2311.18828, eq. 8).
        """
        x_start, x_s = self._student_sample(batch, noise)
        with torch.no_grad():
            both = [each(x_s, batch.s, batch.labels).x_start for each in (self.auxiliary, self.teacher)]
            auxiliary, teacher = (each.clamp(-1, 1) for each in both)
            error = (x_start - teacher).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=LEAST_ERROR)
        return x_start * (auxiliary - teacher) / error, (both[0] - both[1]).square().mean(dim=(1, 2, 3))

    def _descend(self, of: str, optimization: Optimization, losses: Losses, world: Group) -> Tensor:
        """Take a step along the gradient of the losses of a new batch; return the mean of what they report, ()."""
        rng, count = generator(self.seed, of, self.step, self.device), self.batch_size
        whole = self._batch(rng)
        noise = normal_like(whole.x_t, rng)
        results = sums(world, self.shards, count + optimization.size, self.device)  # reports, gradient
        for result, shard in zip(results, world.own_shards(self.shards), strict=False):
            some = images_of(shard, self.shards, count)
            optimization.set_gradient(result[count:])
            loss, result[some] = losses(whole.take(some), noise[some])
            (loss.sum() / count).backward()
        reports, gradient = total(world, results, self.shards).tensor_split([count])
        optimization.step(gradient, world)
        return reports.mean()

    def _batch(self, rng: torch.Generator) -> Batch:
        """Make noisy images at the student's timesteps t, equally many at each, from real images.

        The target s is between t and the student's next timestep, sampled from the density that spaces the timesteps.
        """
        count, device = self.batch_size, self.device
        x_start, labels = self.draw(count, rng)
        first = torch.randint(len(self.timesteps), (), generator=rng, device=device)
        place = (torch.randperm(count, generator=rng, device=device) + first) % len(self.timesteps)
        t, end = self._starts[place], self._ends[place]
        shares = torch.rand(count, generator=rng, device=device)
        least, most = self._below[end], self._below[t]
        s = torch.searchsorted(self._below, least + shares * (most - least), right=True) - 1
        s = torch.minimum(torch.maximum(s, end), (t - 1).clamp(min=0))  # rounding may leave the range
        return Batch(self.schedule.q_sample(x_start, t, normal_like(x_start, rng)), labels, t, s)

    def _student_sample(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's estimate of x_0, and x_s ~ q(x_s | x_t, x_0) given that estimate.

        The estimate is clipped to [-1, 1], as in sampling. Its gradient ignores the clipping.
        """
        x_start = self.student(batch.x_t, batch.t, batch.labels).x_start
        x_start = x_start + (x_start.clamp(-1, 1) - x_start).detach()
        abar_t, abar_s = (self.alphas_cumprod[each].view(-1, 1, 1, 1) for each in (batch.t, batch.s))
        coef1, coef2, variance = (each.float() for each in posterior(abar_t, abar_s))
        return x_start, coef1 * x_start + coef2 * batch.x_t + variance.sqrt() * noise


def normal_like(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return standard normal noise, shaped like images."""
    return torch.randn(images.shape, generator=rng, device=images.device)
