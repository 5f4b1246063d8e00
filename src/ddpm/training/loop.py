"""The training loop: algorithm 1 of Ho et al. 2020 (arXiv:2006.11239).

1  repeat                           Training.run, for params.epochs
2    x_0 ~ q(x_0)                   Training._batches: shuffled training images
3    t ~ Uniform({1, ..., T})       GradientStep in step.py; other densities of t are possible
4    eps ~ N(0, I)                  GradientStep
5    gradient step on |eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)|^2
                                    GradientStep; eq. 14 is DenoisingLoss in losses.py, where
                                    params.target_images can replace eps by its mean given x_t
6  until converged                  Training.ended; Validation keeps the weights of the lowest loss
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.compute.device import Runtime, compiled, to_device
from ddpm.compute.randomness import generator
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.diffusion.timesteps import Buckets, relative_density
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, Subset
from ddpm.networks.unet import UNet
from ddpm.parallel.world import ALONE, World
from ddpm.training.losses import DenoisingLoss
from ddpm.training.optim import Optimization
from ddpm.training.recipe import TrainParams
from ddpm.training.step import GradientStep
from ddpm.training.validation import Validation

VALIDATION_STEPS = 50  # at least, from one validation to the next


class LossPoint(NamedTuple):
    """The mean training loss since the last `LossPoint`, up to and including step `step` (the first is 1).

    It is the mean over uniform t, like the losses of `EpochEnd`, whatever density of t is trained.
    """

    step: int
    loss: float


class EpochEnd(NamedTuple):
    """Mean losses per timestep bucket, each (TIMESTEP_BUCKETS,), of training over the epoch and of validation.

    `validation` is the loss of the EMA weights on the held-out images. It is None without such images, or if the last
    validation was too recent.
    """

    epoch: int
    step: int
    training: Tensor
    validation: Tensor | None


class Training:
    """One training run. The generator `run` is its loop; `model` has the weights to keep, at any time."""

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
        """Move everything to the device.

        Args:
            train: training images, at least batch_size.
            validation: held-out images, perhaps none.
            world: the processes that train together. One process gives the same result, up to rounding.
        """
        self.params = params
        self.runtime = runtime
        self.world = world
        self.network = to_device(network, runtime.device).train()
        self.train = train.to(runtime.device)
        self.steps_per_epoch = len(train.labels) // params.batch_size  # drops a short last batch
        self.total_steps = max(1, round(self.steps_per_epoch * params.epochs))
        self.optimization = Optimization(self.network, params, self.total_steps)
        loss = DenoisingLoss(schedule, card.shape, params.loss, runtime)
        prediction = network.params.prediction
        denoiser = Denoiser(compiled(self.network), schedule, prediction, runtime)
        self.ema_denoiser = Denoiser(self.model, schedule, prediction, runtime)
        cdf = loss.cdf(params.log_snr_center, params.log_snr_uniform)
        self.importance = 1 / relative_density(cdf).float()  # of the loss at t in a mean over uniform t, (T,)
        self.gradient_step = GradientStep(self.optimization, denoiser, loss, cdf, self.train, params, world)
        self.validation = Validation(validation, loss, cdf, params.seed, world)
        self.epochs_done = 0
        self.guide: dict[str, Tensor] | None = None  # the weights at guide_step, for autoguidance
        self.since_log = 0  # steps whose losses are in loss_sum
        self.loss_sum = torch.zeros((), device=runtime.device)
        self.buckets = Buckets(schedule.timesteps, runtime.device)

    @property
    def model(self) -> UNet:
        """Return the network with EMA weights, or the trained network itself without EMA."""
        return self.optimization.model

    def best(self) -> UNet:
        """Return the model with the lowest validation loss, or the current one without held-out images."""
        model = copy.deepcopy(self.model)
        if self.validation.best:
            model.load_state_dict(self.validation.best.weights)
        return model

    @property
    def step(self) -> int:
        """Return the number of gradient steps taken."""
        return self.optimization.steps

    @property
    def kept_step(self) -> int:
        """Return the step whose weights `best` returns."""
        return self.validation.best.step if self.validation.best else self.step

    @property
    def ended(self) -> bool:
        """Tell whether to begin no other epoch: all steps are done, or the validation loss has not fallen for long."""
        done = self.epochs_done * self.steps_per_epoch
        epochs = -(-(done // VALIDATION_STEPS * VALIDATION_STEPS) // self.steps_per_epoch)  # at the last validation
        waited = epochs * self.steps_per_epoch - self.kept_step
        return done >= self.total_steps or waited > self.params.patience * self.total_steps

    @property
    def guide_step(self) -> int:
        """Return the step after which the weights for autoguidance are kept; used if params.guide_share is set."""
        return max(1, round(self.params.guide_share * self.total_steps))

    def run(self) -> Iterator[LossPoint | EpochEnd | None]:
        """Train to the end (algorithm 1).

        Yield None after every step, or a `LossPoint` every log_every steps; an `EpochEnd` after every epoch; and a
        `LossPoint` of the steps since the last one, at the end.
        At every yield the state is complete: a new Training that loads it continues bit for bit.
        """
        while not self.ended:
            begun = self.epochs_done * self.steps_per_epoch
            for batch in self._batches(self.epochs_done + 1)[self.step - begun : self.total_steps - begun]:
                mine = batch[self.world.shard(len(batch))]
                shard = self.train.batch(mine, self.runtime.device)  # line 2: x_0 ~ q(x_0)
                t, losses = self.gradient_step(shard, mine)  # lines 3 to 5
                self.buckets.add(t, losses, self.importance[t])
                self.loss_sum += (losses * self.importance[t]).mean()
                self.since_log += 1
                if self.params.guide_share and self.step == self.guide_step:
                    self.guide = {name: weight.clone() for name, weight in self.model.state_dict().items()}
                yield self._log() if self.step % self.params.log_every == 0 else None
            means = self.buckets.mean()
            self.buckets.clear()
            self.epochs_done += 1
            due = self.step // VALIDATION_STEPS > begun // VALIDATION_STEPS or self.step == self.total_steps
            validation = self.validation.of(self.ema_denoiser, self.model.eval(), self.step) if due else None
            self.network.train()
            yield EpochEnd(self.epochs_done, self.step, means, validation)
        if self.since_log:
            yield self._log()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the training."""
        return {
            "optimization": self.optimization.state_dict(),
            "validation": self.validation.state_dict(),
            "epochs_done": self.epochs_done,
            "since_log": self.since_log,
            "loss_sum": self.loss_sum,
            "buckets": [self.buckets.sums, self.buckets.weights],
            "guide": self.guide,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another Training with the same arguments."""
        self.optimization.load_state_dict(state["optimization"])
        self.validation.load_state_dict(state["validation"])
        self.epochs_done, self.since_log, self.guide = state["epochs_done"], state["since_log"], state["guide"]
        self.loss_sum.copy_(state["loss_sum"])
        self.buckets.sums.copy_(state["buckets"][0])
        self.buckets.weights.copy_(state["buckets"][1])

    def _log(self) -> LossPoint:
        logged = LossPoint(self.step, float(self.loss_sum) / self.since_log)  # synchronises with the GPU
        self.loss_sum.zero_()
        self.since_log = 0
        return logged

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Return the indices of every full batch of the epoch, shuffled."""
        order = torch.randperm(len(self.train.labels), generator=generator(self.params.seed, "shuffle", epoch))
        used = order[: self.steps_per_epoch * self.params.batch_size].to(self.train.labels.device)
        return torch.split(used, self.params.batch_size)
