"""One training: the loop of `ddpm.train` with its curves, its validation, and the weights that it keeps."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.compute.device import Runtime, to_device
from ddpm.compute.randomness import generator
from ddpm.compute.world import ALONE, World
from ddpm.denoiser import Denoiser
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, to_float
from ddpm.model import Guide, ModelCard, save_model
from ddpm.optim import Optimization
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.timesteps import draw_timesteps, relative_density, timestep_cdf
from ddpm.train import loss_weights, mean_squared_error, train_loop
from ddpm.training.curves import BUCKETS, Buckets, Curves
from ddpm.training.draws import Draws
from ddpm.training.params import TrainParams
from ddpm.unet import UNet, UNetParams
from exact_stages.console import UserError

PATIENCE = 0.2  # share of the training to wait for a lower validation loss
VALIDATION_STEPS = 50  # at least, from one validation to the next
VALIDATION_BATCH = 100_352  # pixels
COUNTED = 10_000  # images whose levels are counted, at most
LEVEL_ERROR = 1.5  # levels: how far an estimate is from the level of a pixel when sampling ends (studies/samplers)


class Best(NamedTuple):
    """The weights with the lowest validation loss so far, their loss as training minimises it, and their step."""

    loss: float
    step: int
    weights: dict[str, Tensor]


class Training:
    """One training. The generator `run` is its course; `model` has the weights to keep, at any time."""

    def __init__(
        self,
        network: UNet,
        card: DataCard,
        schedule: ScheduleParams,
        images: Split,
        rows: Tensor,
        held_out: Tensor,
        params: TrainParams,
        runtime: Runtime,
        shards: int = 1,
    ) -> None:
        """Move everything to the device.

        Args:
            images: a split; a memory-mapped file stays on disk.
            rows: the indices of the images to train on, at least batch_size. held_out: those of the validation.
            shards: the number of shards of a batch, see `begin.shards_of`.
        """
        device = runtime.device
        self.card = card
        self.params = params
        self.pieces = shards
        self.network = to_device(network, device).train()
        self.held_out = images.take(held_out).to(device)
        self.class_counts = images.labels[torch.cat([rows, held_out])].bincount(minlength=len(card.classes)).tolist()
        self.schedule = NoiseSchedule(schedule)
        self.denoiser = Denoiser(self.network, self.schedule, network.params.prediction, runtime)
        self.loss_weights = loss_weights(params.loss, self.denoiser)
        cdf = timestep_cdf(self.schedule, params.log_snr_center).to(device)
        self.uniform = timestep_cdf(self.schedule, None).to(device)
        images = images.to(device)
        rows = rows.to(images.labels.device)
        self.draws = Draws(images, rows, params, cdf, network.params.class_conditional, device)
        self.total_steps = max(1, round(self.draws.steps_per_epoch * params.epochs))
        self.optimization = Optimization(self.network, params, self.total_steps)
        self.curves = Curves(self.schedule.timesteps, relative_density(cdf).float())
        self.best: Best | None = None
        self.guide: dict[str, Tensor] | None = None  # the weights at guide_step, for autoguidance

    @property
    def model(self) -> UNet:
        """Return the network with EMA weights, or the trained network itself without EMA."""
        return self.optimization.model

    @property
    def step(self) -> int:
        """Return the number of gradient steps taken."""
        return self.optimization.steps

    @property
    def kept_step(self) -> int:
        """Return the step whose weights `kept_model` returns."""
        return self.best.step if self.best else self.step

    @property
    def guide_step(self) -> int:
        """Return the step after which the weights for autoguidance are kept; used if params.guide_share is set."""
        return max(1, round(self.params.guide_share * self.total_steps))

    @property
    def ended(self) -> bool:
        """Tell whether all steps are done, or the validation loss has not fallen for long."""
        waited = self.curves.rows["validation"][-1][0] - self.best.step if self.best else 0
        return self.step >= self.total_steps or waited > PATIENCE * self.total_steps

    def run(self, world: World = ALONE) -> Iterator[float | None]:
        """Train to the end, in all processes of a world at once.

        Yield after every step: the mean loss since the last one, every log_every steps and at the end, or None. At
        every yield the state is complete: a new Training that loads it continues bit for bit.

        Raises:
            UserError: the loss is not finite.
        """
        if self.ended:
            return
        self.optimization.world = world
        for t, losses in train_loop(self.denoiser, self.optimization, self.draws, self.loss_weights, self.pieces):
            self.curves.add(t, losses)
            if self.params.guide_share and self.step == self.guide_step:
                self.guide = copy.deepcopy(self.model.state_dict())
            if self.step % self.draws.steps_per_epoch == 0 or self.step == self.total_steps:
                self._end_epoch()
            yield self._log() if self.step % self.params.log_every == 0 or self.ended else None
            if self.ended:
                return

    @torch.no_grad()
    def validate(self) -> None:
        """Add the loss of the EMA weights on the held-out images to the curves, with the same t and noise every time.

        Keep the weights with the lowest loss, at the weighting and the density of t of the training.
        """
        count, world, device = len(self.held_out.images), self.optimization.world, self.uniform.device
        if not count:
            return
        model = self.model.eval()
        denoiser = Denoiser(model, self.schedule, model.params.prediction, self.denoiser.runtime)
        size = max(1, VALIDATION_BATCH // math.prod(self.card.shape[1:]))
        batches = -(-count // size)
        rows = torch.zeros(-(-batches // world.size), 1 + 2 * BUCKETS, device=device)
        for row, index in zip(rows, world.own(batches), strict=False):
            batch = self.held_out.batch(slice(index * size, (index + 1) * size), device)
            rng = generator(self.params.seed, "validation", index, device)
            t = draw_timesteps(len(batch.labels), self.uniform, "stratified", rng)
            noise = torch.randn(*batch.images.shape, generator=rng, device=device)
            x_t = denoiser.schedule.q_sample(to_float(batch.images), t, noise)
            errors = mean_squared_error(denoiser(x_t, t, batch.labels).noise, noise)
            buckets = Buckets(self.schedule.timesteps, device)
            buckets.add(t, errors)
            row[0], row[1:] = (errors * self.loss_weights[t] * self.curves.density[t]).sum(), buckets.sums.flatten()
        total = world.total(rows, batches)
        self.network.train()
        if (loss := float(total[0]) / count) < (self.best.loss if self.best else math.inf):
            self.best = Best(loss, self.step, copy.deepcopy(self.model.state_dict()))
        buckets = Buckets(self.schedule.timesteps, device)
        buckets.sums = total[1:].view_as(buckets.sums)
        self.curves.validate(self.step, buckets)

    def kept_model(self) -> UNet:
        """Return the model with the lowest validation loss, or the current one without held-out images."""
        model = copy.deepcopy(self.model)
        if self.best:
            model.load_state_dict(self.best.weights)
        return model

    def follows(self, model: UNetParams, train: TrainParams) -> dict[str, Any]:
        """Return the params that were chosen from the data, by name; `model` and `train` are the given ones."""
        chosen: dict[str, Any] = {}
        for section, given, now in (("model", model, self.network.params), ("train", train, self.params)):
            before, after = given.model_dump(mode="json"), now.model_dump(mode="json")
            chosen |= {f"{section}.{key}": value for key, value in after.items() if value != before[key]}
        return chosen

    def summary(self) -> dict[str, Any]:
        """Summarise the training for metrics/train/summary.json."""
        return {
            **self.curves.last,
            "images_seen": self.step * self.params.batch_size,
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
            "steps": self.step,
            "kept_step": self.kept_step,
            "guide_step": self.guide_step if self.guide else None,
        }

    def save(self, path: Path, **facts: Any) -> None:
        """Write the model file; see `save_model` for the facts."""
        model = self.kept_model()
        some = torch.randperm(len(self.draws.rows), generator=generator(self.params.seed, "faint"))[:COUNTED]
        classifier_free = model.params.class_conditional and self.params.label_dropout > 0
        there: dict[Guide, bool] = {"autoguidance": self.guide is not None, "classifier_free": classifier_free}
        card = ModelCard(
            data=self.card,
            model=model.params,
            schedule=self.schedule.params,
            class_counts=tuple(self.class_counts),
            guides=tuple(guide for guide, known in there.items() if known),
            images_seen=self.kept_step * self.params.batch_size,
            faint=faint_levels(self.draws.images.images[self.draws.rows[some]]),
        )
        save_model(path, model, card, self.guide, **facts)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the training."""
        return {
            "optimization": self.optimization.state_dict(),
            "curves": self.curves.state_dict(),
            "best": self.best._asdict() if self.best else None,
            "guide": self.guide,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another Training with the same arguments."""
        self.optimization.load_state_dict(state["optimization"])
        self.curves.load_state_dict(state["curves"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.guide = state["guide"]

    def _end_epoch(self) -> None:
        """Close the curve of the epoch, and validate if enough steps have passed."""
        self.curves.end_epoch()
        begun = (self.step - 1) // self.draws.steps_per_epoch * self.draws.steps_per_epoch
        if self.step // VALIDATION_STEPS > begun // VALIDATION_STEPS or self.step == self.total_steps:
            self.validate()

    def _log(self) -> float:
        loss = self.curves.log(self.step)
        if not math.isfinite(loss):
            raise UserError(f"train.lr: the loss is {loss} at step {self.step}; try less than {self.params.lr}")
        return loss


def faint_levels(images: Tensor) -> int:
    """Return the highest level whose estimate is more probably a 0, for uint8 images (N, C, H, W).

    Where real images have a black background, levels just above 0 are rare. There an estimate of 1 or 2 is a 0: by
    Bayes' rule, if the error of an estimate is normal. For photographs the result is 0.
    """
    logs = images.flatten().cpu().bincount(minlength=256).clamp(min=1).double().log()
    level = torch.arange(256)
    return int(((logs[0] - logs) > (level / LEVEL_ERROR).square() / 2).int()[1:].cumprod(0).sum())
