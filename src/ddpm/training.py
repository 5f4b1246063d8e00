"""Training the denoiser: the loss, the averaged weights and the loop (Ho et al. 2020, algorithm 1)."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from ddpm.device import Runtime, to_device
from ddpm.muon import Muon
from ddpm.params import Section
from ddpm.randomness import generator
from ddpm.schedule import NoiseSchedule
from ddpm.unet import UNet

TIMESTEP_BUCKETS = 10
Tensors = tuple[Tensor, ...] | list[Tensor]
Label = Annotated[int, Field(ge=0, le=9)]


class TrainParams(Section):
    """The recipe; see params.yaml for what each choice means."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    optimizer: Literal["adam", "muon"]
    lr: Annotated[float, Field(gt=0, le=1)]
    lr_decay: Literal["none", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    loss: Literal["noise", "v"]
    timestep_sampling: Literal["uniform", "stratified"]
    classes: Annotated[tuple[Label, ...], Field(min_length=1)]
    validation: Annotated[int, Field(ge=0)]
    log_every: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**64)]  # what torch takes

    @field_validator("classes", mode="before")
    @classmethod
    def _labels(cls, value: object) -> tuple[object, ...]:
        if value == "all":
            return tuple(range(10))
        if isinstance(value, list | tuple):
            return tuple(value)
        raise ValueError("must be all, or a list of labels such as [7]")


class Logged(NamedTuple):
    """The mean training loss since the last `Logged`, up to and including step `step` (the first is 1)."""

    step: int
    loss: float


class EpochEnd(NamedTuple):
    """Mean losses per timestep bucket, shape (TIMESTEP_BUCKETS,): training over the epoch, and validation.

    `validation` is the loss of the averaged weights on the held-out images, None without such images.
    """

    epoch: int
    step: int
    training: Tensor
    validation: Tensor | None


class Training:
    """One training run. `run` is its loop, a generator; `model` is what to keep, at any time."""

    def __init__(
        self,
        model: UNet,
        schedule: NoiseSchedule,
        images: Tensor,
        validation: Tensor,
        params: TrainParams,
        runtime: Runtime,
    ) -> None:
        """Put everything on the device.

        Args:
            images, validation: training and held-out images, (N, 1, 28, 28) in [-1, 1]; the latter may be empty.

        Raises:
            ValueError: there are fewer images than batch_size.
        """
        if len(images) < params.batch_size:
            raise ValueError(f"batch_size is {params.batch_size}, but there are only {len(images)} training images")
        self.params = params
        self.runtime = runtime
        self.network = to_device(model, runtime.device).train()
        self.average = AveragedModel(self.network, multi_avg_fn=self._average) if params.ema_decay else None
        self.schedule = schedule.to(runtime.device)
        self.images = images.to(runtime.device)
        self.validation = validation.to(runtime.device)
        self.steps_per_epoch = len(images) // params.batch_size  # the short last batch is dropped
        self.total_steps = self.steps_per_epoch * params.epochs
        self.step = 0  # gradient steps taken
        self.optimizers = self._optimizers()

    @property
    def model(self) -> UNet:
        """The network with the averaged weights, or as it is where nothing is averaged."""
        return self.average.module if self.average else self.network  # type: ignore[return-value]

    def run(self) -> Iterator[Logged | EpochEnd]:
        """Train to the end, with a `Logged` every log_every steps and an `EpochEnd` after every epoch.

        The losses are summed on the device and read only when one of them is due.
        """
        since_log = 0
        loss_sum = torch.zeros((), device=self.runtime.device)
        for epoch in range(1, self.params.epochs + 1):
            buckets = _Buckets(self.schedule.timesteps, self.runtime.device)
            for batch in self._batches(epoch):
                t, losses = self._step(self.images[batch])
                buckets.add(t, losses)
                loss_sum += losses.mean()
                since_log += 1
                if self.step % self.params.log_every == 0 or self.step == self.total_steps:
                    yield Logged(self.step, float(loss_sum) / since_log)
                    loss_sum.zero_()
                    since_log = 0
            yield EpochEnd(epoch, self.step, buckets.mean(), self.validate() if len(self.validation) else None)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over warmup_steps, then constant or half a cosine down to zero; `step` counts from 0."""
        warmup = min(1.0, (step + 1) / (self.params.warmup_steps + 1))
        decay = 1.0
        if self.params.lr_decay == "cosine":
            decay = 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return self.params.lr * warmup * decay

    @torch.no_grad()
    def validate(self) -> Tensor:
        """Loss per timestep bucket on the held-out images, with the same t and noise every time."""
        model = self.model.eval()
        buckets = _Buckets(self.schedule.timesteps, self.runtime.device)
        for index, x_start in enumerate(self.validation.split(500)):
            source = generator(self.params.seed, "validation", index, self.runtime.device)
            t = draw_timesteps(len(x_start), self.schedule.timesteps, "stratified", source)
            buckets.add(t, self._losses(model, x_start, t, source))
        self.network.train()
        return buckets.mean()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for everything, or Muon for the convolutions' weights between stem and head, and Adam for the rest."""
        fused = self.runtime.device.type != "mps"
        if self.params.optimizer == "adam":
            return [torch.optim.Adam(self.network.parameters(), lr=self.params.lr, fused=fused)]
        outer = {*self.network.stem.parameters(), *self.network.head.parameters()}
        hidden = [weight for weight in self.network.parameters() if weight.ndim == 4 and weight not in outer]
        others = [weight for weight in self.network.parameters() if weight.ndim != 4 or weight in outer]
        return [Muon(hidden, self.params.lr), torch.optim.Adam(others, lr=self.params.lr, fused=fused)]

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The indices of every full batch of the epoch, shuffled."""
        order = torch.randperm(len(self.images), generator=generator(self.params.seed, "shuffle", epoch))
        used = order[: self.steps_per_epoch * self.params.batch_size].to(self.runtime.device)
        return torch.split(used, self.params.batch_size)

    def _step(self, x_start: Tensor) -> tuple[Tensor, Tensor]:
        """One gradient step; t and the detached loss of every image.

        The error of v is that of the noise over alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512, section 4): as
        a loss it gives more weight to the noisy images, where the shape of a digit is decided. What is returned is
        always the error of the noise, so that curves compare.
        """
        source = generator(self.params.seed, "train", self.step, self.runtime.device)
        t = draw_timesteps(len(x_start), self.schedule.timesteps, self.params.timestep_sampling, source)
        losses = self._losses(self.network, x_start, t, source)
        self.network.zero_grad(set_to_none=True)
        weighted = losses / self.schedule.alphas_cumprod[t] if self.params.loss == "v" else losses
        weighted.mean().backward()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(self.step)
            optimizer.step()
        self.step += 1
        if self.average:
            self.average.update_parameters(self.network)
        return t, losses.detach()

    def _losses(self, model: torch.nn.Module, x_start: Tensor, t: Tensor, source: torch.Generator) -> Tensor:
        """The simple loss of every image, shape (B,): the squared error of the predicted noise (eq. 14)."""
        noise = torch.randn(x_start.shape, generator=source, device=x_start.device)
        x_t = self.schedule.q_sample(x_start, t, noise)
        with self.runtime.autocast():
            pred_noise = model(x_t, t)
        return F.mse_loss(pred_noise.float(), noise, reduction="none").mean(dim=(1, 2, 3))

    def _average(self, averaged: Tensors, current: Tensors, _updates: Tensor | int) -> None:
        """Move the average toward the current weights; young averages move faster, so that none remembers the start."""
        decay = min(self.params.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)


def draw_timesteps(count: int, timesteps: int, sampling: str, source: torch.Generator) -> Tensor:
    """`count` timesteps, each uniform on 0..timesteps-1, shape (count,).

    "stratified" draws one from each of `count` equal strata, as Kingma et al. 2021 (arXiv:2107.00630, section I.1) do:
    the same mean loss with less variance. The images come shuffled, so which of them gets which stratum is random.
    """
    u = torch.rand(count, generator=source, device=source.device)
    if sampling == "stratified":
        u = (torch.arange(count, device=source.device) + u) / count
    return (u * timesteps).long().clamp(max=timesteps - 1)


class _Buckets:
    """Running means of losses in TIMESTEP_BUCKETS equal ranges of t, kept on the device."""

    def __init__(self, timesteps: int, device: torch.device) -> None:
        self.timesteps = timesteps
        self.sums = torch.zeros(TIMESTEP_BUCKETS, device=device)
        self.counts = torch.zeros(TIMESTEP_BUCKETS, device=device)

    def add(self, t: Tensor, losses: Tensor) -> None:
        bucket = t * TIMESTEP_BUCKETS // self.timesteps
        self.sums.index_add_(0, bucket, losses)
        self.counts.index_add_(0, bucket, torch.ones_like(losses))

    def mean(self) -> Tensor:
        """Mean per bucket, NaN where no t fell."""
        return (self.sums / self.counts).cpu()
