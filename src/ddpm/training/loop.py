"""Training the denoiser: the loss and the loop (Ho et al. 2020, algorithm 1)."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ddpm.data.images import IMAGE_SHAPE
from ddpm.data.labels import Classes
from ddpm.data.splits import Split
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.timesteps import Buckets, draw_timesteps, timestep_cdf
from ddpm.networks.unet import UNet
from ddpm.runtime.device import Runtime, to_device
from ddpm.runtime.group import ALONE, Group
from ddpm.runtime.randomness import generator
from ddpm.training.optim import Optimization, OptimizationParams

VALIDATION_BATCH = 500


class TrainParams(OptimizationParams):
    """The recipe; see params.yaml for what each choice means."""

    epochs: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    loss: Literal["noise", "v"]
    timestep_sampling: Literal["uniform", "stratified"]
    log_snr_center: Annotated[float, Field(ge=-20, le=20)] | None
    classes: Classes
    validation: Annotated[float, Field(ge=0, le=0.5)]
    log_every: Annotated[int, Field(ge=1, le=10**9)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


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
        train: Split,
        validation: Split,
        params: TrainParams,
        runtime: Runtime,
        group: Group = ALONE,
    ) -> None:
        """Put everything on the device.

        Args:
            train, validation: training and held-out images; the latter may be none.
            group: the processes that train together. What comes out is what one process gives, up to rounding.

        Raises:
            ValueError: there are fewer images than batch_size, or fewer images in a batch than processes.
        """
        if params.batch_size < group.size:
            raise ValueError(f"a batch of {params.batch_size} images cannot be shared among {group.size} processes")
        if len(train.images) < params.batch_size:
            raise ValueError(
                f"batch_size is {params.batch_size}, but there are only {len(train.images)} training images"
            )
        self.params = params
        self.runtime = runtime
        self.group = group
        self.network = to_device(model, runtime.device).train()
        self.compiled = runtime.compiled(self.network)
        self.schedule = schedule.to(runtime.device)
        self.cdf = self._cdf(schedule, params.log_snr_center)
        self.train = train.to(runtime.device)
        self.validation = validation.to(runtime.device)
        self.steps_per_epoch = len(train.images) // params.batch_size  # the short last batch is dropped
        self.total_steps = max(1, round(self.steps_per_epoch * params.epochs))
        self.optimization = Optimization(self.network, params, self.total_steps)
        self.epochs_done = 0
        self.since_log = 0  # steps whose losses are in loss_sum
        self.loss_sum = torch.zeros((), device=runtime.device)
        self.buckets = Buckets(self.schedule.timesteps, runtime.device)

    @property
    def model(self) -> UNet:
        """The network with the averaged weights, or as it is where nothing is averaged."""
        return self.optimization.model

    @property
    def step(self) -> int:
        """Gradient steps taken."""
        return self.optimization.steps

    def run(self) -> Iterator[Logged | EpochEnd | None]:
        """Train to the end: something after every step, a `Logged` every log_every steps, an `EpochEnd` an epoch.

        The losses are summed on the device and read only when one of them is due. Between two events the state is
        whole: a new Training that is given it goes on bit for bit.
        """
        while (begun := self.epochs_done * self.steps_per_epoch) < self.total_steps:
            for batch in self._batches(self.epochs_done + 1)[self.step - begun : self.total_steps - begun]:
                t, losses = self._step(self.train.take(batch[self.group.share(len(batch))]))
                self.buckets.add(t, losses)
                self.loss_sum += losses.mean()
                self.since_log += 1
                due = self.step % self.params.log_every == 0 or self.step == self.total_steps
                yield self._log() if due else None
            means, validation = self.buckets.mean(), self.validate() if len(self.validation.images) else None
            self.buckets.clear()
            self.epochs_done += 1
            yield EpochEnd(self.epochs_done, self.step, means, validation)

    def state(self) -> dict[str, Tensor]:
        """All that changes while it trains; tensors of weights and losses are not copies."""
        counts = torch.tensor([self.epochs_done, self.since_log])
        return self.optimization.state() | {
            "counts": counts,
            "loss_sum": self.loss_sum,
            "sums": self.buckets.sums,
            "hits": self.buckets.counts,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from where another Training with the same arguments was.

        Raises:
            RuntimeError: the state is of another network.
        """
        self.optimization.load_state(state)
        self.epochs_done, self.since_log = state["counts"].tolist()
        for tensor, name in ((self.loss_sum, "loss_sum"), (self.buckets.sums, "sums"), (self.buckets.counts, "hits")):
            tensor.copy_(state[name])

    @torch.no_grad()
    def validate(self) -> Tensor:
        """Loss per timestep bucket on the held-out images, with the same t and noise every time."""
        model = self.model.eval()
        buckets = Buckets(self.schedule.timesteps, self.runtime.device)
        uniform = self._cdf(self.schedule, None)
        for index in range(self.group.rank, -(-len(self.validation.images) // VALIDATION_BATCH), self.group.size):
            batch = self.validation.take(slice(index * VALIDATION_BATCH, (index + 1) * VALIDATION_BATCH))
            source = generator(self.params.seed, "validation", index, self.runtime.device)
            t = draw_timesteps(len(batch.images), uniform, "stratified", source)
            noise = self._noise(len(batch.images), source)
            buckets.add(t, self._losses(model, batch, t, noise))
        self.group.sum([buckets.sums, buckets.counts])
        self.network.train()
        return buckets.mean()

    def _log(self) -> Logged:
        logged = Logged(self.step, float(self.loss_sum) / self.since_log)
        self.loss_sum.zero_()
        self.since_log = 0
        return logged

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The indices of every full batch of the epoch, shuffled."""
        order = torch.randperm(len(self.train.images), generator=generator(self.params.seed, "shuffle", epoch))
        used = order[: self.steps_per_epoch * self.params.batch_size].to(self.runtime.device)
        return torch.split(used, self.params.batch_size)

    def _step(self, share: Split) -> tuple[Tensor, Tensor]:
        """One gradient step, by this process's share of the batch; t and the detached loss of every image of the batch.

        The error of v is that of the noise over alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512, section 4): as
        a loss it gives more weight to the noisy images, where the shape of a digit is decided. What is returned is
        always the error of the noise, so that curves compare.
        """
        source = generator(self.params.seed, "train", self.step, self.runtime.device)
        count = self.params.batch_size
        t = draw_timesteps(count, self.cdf, self.params.timestep_sampling, source)
        noise = self._noise(count, source)
        mine = self.group.share(count)
        self.network.zero_grad(set_to_none=True)
        losses = self._losses(self.compiled, share, t[mine], noise[mine])
        weighted = losses / self.schedule.alphas_cumprod[t[mine]] if self.params.loss == "v" else losses
        (weighted.sum() / count).backward()
        all_losses = torch.zeros(count, device=t.device)
        all_losses[mine] = losses.detach()
        self.group.sum([all_losses, *(weight.grad for weight in self.network.parameters() if weight.grad is not None)])
        self.optimization.step()
        return t, all_losses

    def _cdf(self, schedule: NoiseSchedule, log_snr_center: float | None) -> Tensor:
        """On the device; in float32 where it has no wider numbers."""
        device = self.runtime.device
        widest = torch.float32 if device.type == "mps" else torch.float64
        return timestep_cdf(schedule, log_snr_center).to(widest).to(device)

    def _noise(self, count: int, source: torch.Generator) -> Tensor:
        return torch.randn(count, *IMAGE_SHAPE, generator=source, device=self.runtime.device)

    def _losses(self, model: torch.nn.Module, split: Split, t: Tensor, noise: Tensor) -> Tensor:
        """The simple loss of every image, shape (B,): the squared error of the predicted noise (eq. 14)."""
        x_t = self.schedule.q_sample(split.images, t, noise)
        with self.runtime.autocast():
            pred_noise = model(x_t, t, split.labels)
        return F.mse_loss(pred_noise.float(), noise, reduction="none").mean(dim=(1, 2, 3))
