"""Training the denoiser: the loop (Ho et al. 2020, algorithm 1)."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.compute.device import Runtime, to_device
from ddpm.compute.randomness import generator
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.timesteps import Buckets
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, Subset
from ddpm.networks.unet import UNet
from ddpm.parallel.world import ALONE, World
from ddpm.training.class_balance import balanced_order
from ddpm.training.losses import DenoisingLoss
from ddpm.training.optim import Optimization
from ddpm.training.recipe import TrainParams
from ddpm.training.step import GradientStep
from ddpm.training.validation import Validation

VALIDATION_STEPS = 50  # at least, from one validation to the next


class Logged(NamedTuple):
    """The mean training loss since the last `Logged`, up to and including step `step` (the first is 1)."""

    step: int
    loss: float


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
        network: UNet,
        card: DataCard,
        schedule: NoiseSchedule,
        train: Split | Subset,
        validation: Split,
        params: TrainParams,
        runtime: Runtime,
        world: World = ALONE,
    ) -> None:
        """Put everything on the device.

        Args:
            train, validation: training and held-out images; the latter may be none.
            world: the processes that train together. What comes out is what one process gives, up to rounding.

        Raises:
            ValueError: there are fewer images than batch_size.
        """
        if len(train.labels) < params.batch_size:
            raise ValueError(
                f"batch_size is {params.batch_size}, but there are only {len(train.labels)} training images"
            )
        self.params = params
        self.runtime = runtime
        self.world = world
        self.network = to_device(network, runtime.device).train()
        self.train = train.to(runtime.device)
        self.steps_per_epoch = len(train.labels) // params.batch_size  # the short last batch is dropped
        self.total_steps = max(1, round(self.steps_per_epoch * params.epochs))
        self.optimization = Optimization(self.network, params, self.total_steps)
        loss = DenoisingLoss(schedule, card.shape, params.loss, runtime)
        prediction = network.params.prediction
        denoiser = Denoiser(self.network, schedule, prediction, runtime)
        self.gradient_step = GradientStep(self.optimization, denoiser, loss, params, world)
        self.ema_denoiser = Denoiser(self.model, schedule, prediction, runtime)
        self.validation = Validation(validation, loss, params.log_snr_center, params.seed, world)
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

        The losses are summed on the device. Between two events the state is whole: a new Training that loads it
        continues bit for bit.
        """
        while (begun := self.epochs_done * self.steps_per_epoch) < self.total_steps:
            for batch in self._batches(self.epochs_done + 1)[self.step - begun : self.total_steps - begun]:
                mine = batch[self.world.shard(len(batch))]
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
            validation = self.validation.of(self.ema_denoiser, self.model.eval(), self.step) if due else None
            self.network.train()
            yield EpochEnd(self.epochs_done, self.step, means, validation)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes while it trains."""
        return {
            "optimization": self.optimization.state_dict(),
            "validation": self.validation.state_dict(),
            "epochs_done": self.epochs_done,
            "since_log": self.since_log,
            "loss_sum": self.loss_sum,
            "buckets": [self.buckets.sums, self.buckets.counts],
            "early": self.early,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where another Training with the same arguments was."""
        self.optimization.load_state_dict(state["optimization"])
        self.validation.load_state_dict(state["validation"])
        self.epochs_done, self.since_log, self.early = state["epochs_done"], state["since_log"], state["early"]
        self.loss_sum.copy_(state["loss_sum"])
        self.buckets.sums.copy_(state["buckets"][0])
        self.buckets.counts.copy_(state["buckets"][1])

    def _log(self) -> Logged:
        logged = Logged(self.step, float(self.loss_sum) / self.since_log)  # waits for a GPU
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
