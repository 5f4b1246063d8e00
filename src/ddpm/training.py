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
from ddpm.timesteps import Buckets, draw_timesteps
from ddpm.unet import UNet

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
        self.epochs_done = 0
        self.since_log = 0  # steps whose losses are in loss_sum
        self.loss_sum = torch.zeros((), device=runtime.device)
        self.buckets = Buckets(self.schedule.timesteps, runtime.device)
        self.optimizers = self._optimizers()

    @property
    def model(self) -> UNet:
        """The network with the averaged weights, or as it is where nothing is averaged."""
        return self.average.module if self.average else self.network  # type: ignore[return-value]

    def run(self) -> Iterator[Logged | EpochEnd | None]:
        """Train to the end: something after every step, a `Logged` every log_every steps, an `EpochEnd` an epoch.

        The losses are summed on the device and read only when one of them is due. Between two events the state is
        whole: a new Training that is given it goes on bit for bit.
        """
        while self.epochs_done < self.params.epochs:
            taken = self.step - self.epochs_done * self.steps_per_epoch
            for batch in self._batches(self.epochs_done + 1)[taken:]:
                t, losses = self._step(self.images[batch])
                self.buckets.add(t, losses)
                self.loss_sum += losses.mean()
                self.since_log += 1
                due = self.step % self.params.log_every == 0 or self.step == self.total_steps
                yield self._log() if due else None
            means, validation = self.buckets.mean(), self.validate() if len(self.validation) else None
            self.buckets.clear()
            self.epochs_done += 1
            yield EpochEnd(self.epochs_done, self.step, means, validation)

    def state(self) -> dict[str, Tensor]:
        """All that changes while it trains; the tensors are not copies."""
        counts = torch.tensor([self.step, self.epochs_done, self.since_log])
        state = {"counts": counts, "loss_sum": self.loss_sum, "sums": self.buckets.sums, "hits": self.buckets.counts}
        for number, module in enumerate(self._modules()):
            state |= {f"module.{number}.{name}": weight for name, weight in module.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                state |= {f"optimizer.{number}.{index}.{name}": value for name, value in values.items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from where another Training with the same arguments was.

        Raises:
            RuntimeError: the state is of another network.
        """
        self.step, self.epochs_done, self.since_log = state["counts"].tolist()
        for tensor, name in ((self.loss_sum, "loss_sum"), (self.buckets.sums, "sums"), (self.buckets.counts, "hits")):
            tensor.copy_(state[name])
        for number, module in enumerate(self._modules()):
            prefix = f"module.{number}."
            module.load_state_dict({n.removeprefix(prefix): w for n, w in state.items() if n.startswith(prefix)})
        for number, optimizer in enumerate(self.optimizers):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            for index, weight in enumerate(weights):
                prefix = f"optimizer.{number}.{index}."
                values = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
                optimizer.state[weight] = {name: _like(weight, value) for name, value in values.items()}

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
        buckets = Buckets(self.schedule.timesteps, self.runtime.device)
        for index, x_start in enumerate(self.validation.split(500)):
            source = generator(self.params.seed, "validation", index, self.runtime.device)
            t = draw_timesteps(len(x_start), self.schedule.timesteps, "stratified", source)
            buckets.add(t, self._losses(model, x_start, t, source))
        self.network.train()
        return buckets.mean()

    def _log(self) -> Logged:
        logged = Logged(self.step, float(self.loss_sum) / self.since_log)
        self.loss_sum.zero_()
        self.since_log = 0
        return logged

    def _modules(self) -> list[torch.nn.Module]:
        return [self.network, self.average] if self.average else [self.network]

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


def _like(weight: Tensor, value: Tensor) -> Tensor:
    """A copy of an optimizer's `value`, in the memory format and on the device of the weight that it belongs to."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value.clone().to(weight.device)
