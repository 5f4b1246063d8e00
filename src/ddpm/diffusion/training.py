"""One training: the loop of algorithm 1 with its curves, its validation, and the weights that it keeps."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.batches import Batches
from ddpm.diffusion.curves import BUCKETS, Buckets, Curves
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.glimpses import COLUMNS, FIRST, MOST, ddim
from ddpm.diffusion.model import begin_from, chosen_start, new_network, save_model
from ddpm.diffusion.optim import Optimization
from ddpm.diffusion.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.diffusion.shards import shards_on_cpu, sums, total
from ddpm.diffusion.timesteps import draw_timesteps, relative_density, timestep_cdf
from ddpm.diffusion.trail import Trail, extend
from ddpm.diffusion.train import loss_weights, mean_squared_error, train_loop
from ddpm.diffusion.unet import NO_LABEL, UNet
from ddpm.images.card import DataCard, listed
from ddpm.images.splits import Split, SplitFile, even_batch, held_out_mask, to_float, to_uint8
from ddpm.images.starts import CHOSEN, CLIP_ART, SCRATCH
from ddpm.params.card import Guide, ModelCard
from ddpm.params.model import ModelParams
from ddpm.params.schedule import ScheduleParams
from ddpm.params.train import TrainParams
from ddpm.processes.device import Runtime, to_device
from ddpm.processes.world import ALONE, World
from exact_stages.console import UserError

OF_OPTIMIZATION = {"optimizer", "lr", "lr_decay", "warmup_steps", "ema_decay"}  # params of `Optimization`
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
        model: ModelParams,
        images: Split,
        rows: Tensor,
        held_out: Tensor,
        params: TrainParams,
        runtime: Runtime,
        shards: int = 1,
    ) -> None:
        """Move everything to the device.

        Args:
            model: the params of the network, chosen for the images.
            images: a split; a memory-mapped file stays on disk.
            rows: the indices of the images to train on, at least batch_size. held_out: those of the validation.
            shards: the number of shards of a batch, see `shards_of`.
        """
        device = runtime.device
        self.card = card
        self.schedule_params = schedule
        self.model_params = model
        self.params = params
        self.batch_size = params.batch_size
        self.shards = shards
        self.network = to_device(network, device).train()
        self.held_out = images.take(held_out).to(device)
        self.class_counts = images.labels[torch.cat([rows, held_out])].bincount(minlength=len(card.classes)).tolist()
        self.schedule = NoiseSchedule(linear_betas(**dict(schedule)))
        self.denoiser = Denoiser(self.network, self.schedule, model.prediction, device, runtime.precision)
        self.weights = loss_weights(params.loss, self.denoiser.schedule)
        self.cdf = timestep_cdf(self.schedule, params.log_snr_center).to(device)
        self.uniform = timestep_cdf(self.schedule, None).to(device)
        images = images.to(device)
        self.batches = Batches(images, rows.to(images.labels.device), params, model.class_conditional, device)
        self.total_steps = max(1, round(self.batches.steps_per_epoch * params.epochs))
        assert params.lr, "choose the rate first, see TrainParams.for_images"
        self.optimization = Optimization(self.network, self.total_steps, **params.model_dump(include=OF_OPTIMIZATION))
        self.length = self.batch_size + self.optimization.size
        self.loop = partial(
            train_loop,
            self.denoiser,
            self.optimization,
            cdf=self.cdf,
            weights=self.weights,
            timestep_sampling=params.timestep_sampling,
            seed=params.seed,
            shards=shards,
        )
        self.curves = Curves(self.schedule.timesteps, relative_density(self.cdf).float())
        self.best: Best | None = None
        self.guide: dict[str, Tensor] | None = None  # the weights at guide_step, for autoguidance
        self.trail: Trail = {}
        self.glimpses: list[Tensor] = []  # rows of samples, uint8 (columns, C, H, W), of the process that writes

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
            UserError: the loss is not finite; or the weights part from the expected trail.
        """
        if self.ended:
            return
        for t, losses in self.loop(self.batches.between(self.step, self.total_steps), world=world):
            self.curves.add(t, losses)
            extend(self.trail, self.step, self.total_steps, self.network)
            if self.params.guide_share and self.step == self.guide_step:
                self.guide = copy.deepcopy(self.model.state_dict())
            if self.step % self.batches.steps_per_epoch == 0 or self.step == self.total_steps:
                self._end_epoch(world)
            due = self.step * self.batch_size >= FIRST << len(self.glimpses) or (self.ended and not self.glimpses)
            if due and world.rank == 0:
                self._glimpse()
            yield self._log() if self.step % self.params.log_every == 0 or self.ended else None
            if self.ended:
                return

    @torch.no_grad()
    def validate(self, world: World = ALONE) -> None:
        """Add the loss of the EMA weights on the held-out images to the curves, with the same t and noise every time.

        Keep the weights with the lowest loss, at the weighting and the density of t of the training.
        """
        count, device, timesteps = len(self.held_out.images), self.uniform.device, self.schedule.timesteps
        if not count:
            return
        denoiser = copy.copy(self.denoiser)
        denoiser.network = self.model.eval()
        size = max(1, VALIDATION_BATCH // math.prod(self.card.shape[1:]))
        batches = -(-count // size)
        results = sums(world, batches, 1 + 2 * BUCKETS, device)
        for result, index in zip(results, world.own_shards(batches), strict=False):
            batch = self.held_out.batch(slice(index * size, (index + 1) * size), device)
            rng = generator(self.params.seed, "validation", index, device)
            t = draw_timesteps(len(batch.labels), self.uniform, "stratified", rng)
            noise = torch.randn(*batch.images.shape, generator=rng, device=device)
            x_t = denoiser.schedule.q_sample(to_float(batch.images), t, noise)
            errors = mean_squared_error(denoiser(x_t, t, batch.labels).noise, noise)
            buckets = Buckets(timesteps, device)
            buckets.add(t, errors)
            result[0] += (errors * self.weights[t] * self.curves.density[t]).sum()
            result[1:] += buckets.sums.flatten()
        found = total(world, results, batches)
        self.network.train()
        if (loss := float(found[0]) / count) < (self.best.loss if self.best else math.inf):
            self.best = Best(loss, self.step, copy.deepcopy(self.model.state_dict()))
        buckets = Buckets(timesteps, device)
        buckets.sums = found[1:].view_as(buckets.sums)
        self.curves.validate(self.step, buckets)

    def kept_model(self) -> UNet:
        """Return the model with the lowest validation loss, or the current one without held-out images."""
        model = copy.deepcopy(self.model)
        if self.best:
            model.load_state_dict(self.best.weights)
        return model

    def chosen_params(self, model: ModelParams, train: TrainParams) -> dict[str, Any]:
        """Return the params that were chosen from the data, by name; `model` and `train` are the given ones."""
        chosen: dict[str, Any] = {}
        for section, given, now in (("model", model, self.model_params), ("train", train, self.params)):
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
            "trail": [*map(" ".join, self.trail.items())],  # DVC's tables leave out lists
        }

    def save(self, path: Path, **facts: Any) -> None:
        """Write the model file; see `save_model` for the facts."""
        rows = self.batches.rows
        some = rows[torch.randperm(len(rows), generator=generator(self.params.seed, "faint"))[:COUNTED]]
        classifier_free = self.model_params.class_conditional and self.params.label_dropout > 0
        there: dict[Guide, bool] = {"autoguidance": self.guide is not None, "classifier_free": classifier_free}
        card = ModelCard(
            data=self.card,
            model=self.model_params,
            schedule=self.schedule_params,
            class_counts=tuple(self.class_counts),
            guides=tuple(guide for guide, known in there.items() if known),
            images_seen=self.kept_step * self.params.batch_size,
            faint=highest_black_level(self.batches.images.images[some]),
            from_clip_art=self.params.fine_tune_from == CLIP_ART,
        )
        save_model(path, self.kept_model(), card, self.guide, **facts)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the training."""
        return {
            "optimization": self.optimization.state_dict(),
            "curves": self.curves.state_dict(),
            "best": self.best._asdict() if self.best else None,
            "guide": self.guide,
            "trail": self.trail,
            "glimpses": self.glimpses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another Training with the same arguments."""
        self.optimization.load_state_dict(state["optimization"])
        self.curves.load_state_dict(state["curves"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.guide = state["guide"]
        self.trail = state["trail"]
        self.glimpses = state["glimpses"]

    def _end_epoch(self, world: World) -> None:
        """Close the curve of the epoch, and validate if enough steps have passed."""
        self.curves.end_epoch()
        begun = (self.step - 1) // self.batches.steps_per_epoch * self.batches.steps_per_epoch
        if self.step // VALIDATION_STEPS > begun // VALIDATION_STEPS or self.step == self.total_steps:
            self.validate(world)

    def _glimpse(self) -> None:
        """Sample a row by the EMA weights: the classes in turn, and always the same noise."""
        denoiser = copy.copy(self.denoiser)
        denoiser.network = self.model.eval()
        known = [label for label, count in enumerate(self.class_counts) if count]
        known = known[:MOST] if self.model_params.class_conditional else [NO_LABEL]
        columns = max(COLUMNS, len(known))
        labels = torch.tensor([known[column % len(known)] for column in range(columns)], device=self.uniform.device)
        noise = torch.randn(columns, *self.card.shape, generator=generator(self.params.seed, "glimpse"))
        self.glimpses.append(to_uint8(ddim(denoiser, noise.to(labels.device), labels)).cpu())
        self.network.train()

    def _log(self) -> float:
        loss = self.curves.log(self.step)
        if not math.isfinite(loss):
            raise UserError(f"train.lr: the loss is {loss} at step {self.step}; try less than {self.params.lr}")
        return loss


def new_training(
    split_file: SplitFile,
    schedule: ScheduleParams,
    model: ModelParams,
    train: TrainParams,
    runtime: Runtime,
    world: World = ALONE,
) -> Training:
    """Choose the images to train on, resolve the params that depend on them, and build the training.

    The network takes the weights of the model file train.fine_tune_from, but for SCRATCH; for CHOSEN see
    `chosen_start`.

    Raises:
        UserError: a class has no images; or the network cannot take the shape of the images; or the file does not fit,
            see `begin_from`; or the processes cannot share a batch, see `shards_of`.
    """
    card, split, groups, _ = split_file
    labels = card.labels(train.classes, "train.classes")
    counts = split.labels.bincount(minlength=len(card.classes))[list(labels)].tolist()
    if missing := [card.classes[label] for label, count in zip(labels, counts, strict=True) if not count]:
        raise UserError(f"train.classes: no training images of {listed(missing)}; leave it out")
    train = train.for_images(sum(counts), card.shape)
    chosen = torch.isin(split.labels, torch.tensor(labels))
    # In one process: hashing ten million images takes half a minute.
    mask = world.broadcast(lambda: held_out_mask(split, groups, train.validation or 0.0, train.seed))
    rows, held_out = (chosen & ~mask).nonzero().flatten(), (chosen & mask).nonzero().flatten()
    train = train.model_copy(update={"batch_size": even_batch(len(rows), train.batch_size)})
    shards = shards_of(model, train.batch_size, runtime, world)
    try:
        model = model.for_images(card.shape)
    except ValueError as error:
        raise UserError(str(error)) from None
    torch.manual_seed(train.seed)
    network = new_network(model, card.shape, len(card.classes), schedule.timesteps)
    begin = train.fine_tune_from
    if begin == CHOSEN:
        chosen_file, note = chosen_start(model, card, schedule)
        train = train.model_copy(update={"fine_tune_from": chosen_file})
        if note and world.rank == 0:
            print(note)
    if train.fine_tune_from != SCRATCH:
        begin_from(Path(begin), network, model, card, schedule)
    return Training(network, card, schedule, model, split, rows, held_out, train, runtime, shards)


def shards_of(model: ModelParams, batch_size: int, runtime: Runtime, world: World) -> int:
    """Return the number of shards of a batch: on CPUs it is fixed, on GPUs it follows the processes.

    Raises:
        UserError: there are more processes than shards, of which a network with BatchNorm has one.
    """
    gpu, on_cpu = runtime.device.type == "cuda", shards_on_cpu(model.block, batch_size)
    most = batch_size if gpu and model.block == "residual" else on_cpu
    if world.size > most:
        why = f"a batch has at most {most} shards" if model.block == "residual" else "BatchNorm needs whole batches"
        raise UserError(f"DDPM_LAUNCH: {world.size} processes, but {why}; start {most}")
    return world.size if gpu else on_cpu


def environment_of(runtime: Runtime, processes: int) -> dict[str, str | int]:
    """Return the facts of the machine that fix the bits of a training; on CPUs, the number of processes does not."""
    return runtime.describe() | ({"processes": processes} if runtime.device.type == "cuda" else {})


def highest_black_level(images: Tensor) -> int:
    """Return the highest level whose estimate is more probably a 0, for uint8 images (N, C, H, W).

    Where real images have a black background, levels just above 0 are rare. There an estimate of 1 or 2 is a 0: by
    Bayes' rule, if the error of an estimate is normal. For photographs the result is 0.
    """
    logs = images.flatten().cpu().bincount(minlength=256).clamp(min=1).double().log()
    level = torch.arange(256)
    return int(((logs[0] - logs) > (level / LEVEL_ERROR).square() / 2).int()[1:].cumprod(0).sum())
