"""Training the denoiser: the loop (Ho et al. 2020, algorithm 1)."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.device import Runtime, to_device
from ddpm.compute.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.timesteps import Buckets
from ddpm.images.splits import Split, Subset
from ddpm.networks.unet import UNet
from ddpm.parallel.group import ALONE, Group
from ddpm.training.class_balance import balanced_order
from ddpm.training.losses import Denoising
from ddpm.training.optim import Optimization, below
from ddpm.training.recipe import TrainParams
from ddpm.training.step import GradientStep
from ddpm.training.validation import Validation

VALIDATION_STEPS = 50  # at least, from one validation to the next


class Logged(NamedTuple):
    """The training losses since the last `Logged`, up to and including step `step` (the first is 1).

    total: of the mean losses of `batches`, shape (), on the device.
    """

    step: int
    total: Tensor
    batches: int

    @property
    def loss(self) -> float:
        """Their mean; on a GPU, to ask for it is to wait until the step has been taken."""
        return float(self.total) / self.batches


class EpochEnd(NamedTuple):
    """Mean losses per timestep bucket, shape (TIMESTEP_BUCKETS,): training over the epoch, and validation.

    `validation` is the loss of the averaged weights on the held-out images, None without such images, or soon after the
    last.
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
        train: Split | Subset,
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
        if len(train.labels) < params.batch_size:
            raise ValueError(
                f"batch_size is {params.batch_size}, but there are only {len(train.labels)} training images"
            )
        self.params = params
        self.runtime = runtime
        self.group = group
        self.network = to_device(model, runtime.device).train()
        self.train = train.to(runtime.device)
        self.steps_per_epoch = len(train.labels) // params.batch_size  # the short last batch is dropped
        self.total_steps = max(1, round(self.steps_per_epoch * params.epochs))
        self.optimization = Optimization(self.network, params, self.total_steps)
        denoising = Denoising(schedule, model.data.shape, params.loss, runtime)
        self.gradient_step = GradientStep(self.optimization, denoising, params, group)
        self.validation = Validation(validation, denoising, params.log_snr_center, params.seed, group)
        self.epochs_done = 0
        self.early: dict[str, Tensor] | None = None  # the model's weights after params.early of all steps
        self.since_log = 0  # steps whose losses are in loss_sum
        self.loss_sum = torch.zeros((), device=runtime.device)
        self.buckets = Buckets(schedule.timesteps, runtime.device)

    @property
    def model(self) -> UNet:
        """The network with the averaged weights, or as it is where nothing is averaged."""
        return self.optimization.model

    def best(self) -> UNet:
        """The model as it was when its validation loss was lowest; without held-out images, as it is."""
        model = copy.deepcopy(self.model)
        if self.validation.kept:
            model.load_state_dict(self.validation.kept.weights)
        return model

    @property
    def step(self) -> int:
        """Gradient steps taken."""
        return self.optimization.steps

    @property
    def early_step(self) -> int:
        """The step after which the weights of the guide `early` are kept, where params ask for it."""
        return max(1, round(self.params.early * self.total_steps))

    def run(self) -> Iterator[Logged | EpochEnd | None]:
        """Train to the end: something after every step, a `Logged` every log_every steps, an `EpochEnd` an epoch.

        The losses are summed on the device, which no step waits for. Between two events the state is whole: a new
        Training that is given it goes on bit for bit.
        """
        while (begun := self.epochs_done * self.steps_per_epoch) < self.total_steps:
            for batch in self._batches(self.epochs_done + 1)[self.step - begun : self.total_steps - begun]:
                mine = batch[self.group.share(len(batch))]
                t, losses = self.gradient_step(self.train.batch(mine, self.runtime.device))
                self.buckets.add(t, losses)
                self.loss_sum += losses.mean()
                self.since_log += 1
                if self.params.early and self.step == self.early_step:
                    self.early = {name: weight.clone() for name, weight in self.model.state_dict().items()}
                due = self.step % self.params.log_every == 0 or self.step == self.total_steps
                yield self._log() if due else None
            means = self.buckets.mean()
            self.buckets.clear()
            self.epochs_done += 1
            due = self.step // VALIDATION_STEPS > begun // VALIDATION_STEPS or self.step == self.total_steps
            validation = self.validation.of(self.model.eval(), self.step) if due else None
            self.network.train()
            yield EpochEnd(self.epochs_done, self.step, means, validation)

    def state(self) -> dict[str, Tensor]:
        """All that changes while it trains; tensors of weights and losses are not copies."""
        counts = torch.tensor([self.epochs_done, self.since_log, self.gradient_step.parts])
        sums = {"counts": counts, "loss_sum": self.loss_sum, "sums": self.buckets.sums, "hits": self.buckets.counts}
        early = {f"early.{name}": weight for name, weight in (self.early or {}).items()}
        return self.optimization.state() | self.validation.state() | sums | early

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from where another Training with the same arguments was.

        Raises:
            RuntimeError: the state is of another network.
        """
        self.optimization.load_state(state)
        self.epochs_done, self.since_log, parts = state["counts"].tolist()
        self.gradient_step.in_parts(parts)
        for tensor, name in ((self.loss_sum, "loss_sum"), (self.buckets.sums, "sums"), (self.buckets.counts, "hits")):
            tensor.copy_(state[name])
        self.validation.load_state(state)
        self.early = below("early.", state) or None

    def _log(self) -> Logged:
        logged = Logged(self.step, self.loss_sum.clone(), self.since_log)
        self.loss_sum.zero_()
        self.since_log = 0
        return logged

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """The indices of every full batch of the epoch, shuffled."""
        source = generator(self.params.seed, "shuffle", epoch)
        order = torch.randperm(len(self.train.labels), generator=source)
        if self.params.class_balance:
            order = balanced_order(order, self.train.labels.cpu(), self.params.class_balance, source)
        used = order[: self.steps_per_epoch * self.params.batch_size].to(self.train.labels.device)
        return torch.split(used, self.params.batch_size)
