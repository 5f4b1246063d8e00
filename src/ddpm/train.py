"""Training: algorithm 1 of Ho et al. 2020 (arXiv:2006.11239).

1  repeat                           Training.run, for params.epochs
2    x_0 ~ q(x_0)                   Training._batches: shuffled training images
3    t ~ Uniform({1, ..., T})       Training.gradient_step; other densities of t are possible
4    eps ~ N(0, I)                  Training.gradient_step
5    gradient step on |eps - eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t)|^2
                                    Training.gradient_step; eq. 14 is noise_errors, where
                                    params.target_images can replace eps by its mean given x_t
6  until converged                  Training.ended; validation keeps the weights of the lowest loss

A batch is divided into shards. The sum of their gradients, in the order of the shards, is the gradient of the batch. On
CPUs its bytes do not depend on the number of processes, since the number of shards does not.

Environment:
    DDPM_ACCUMULATE  micro-batches of a GPU's part of a batch, for batches that do not fit into memory; by default 1.
                     Gradients accumulate; results may differ by rounding.
"""

import copy
import math
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional as F

from ddpm.compute.device import Runtime, number, to_device
from ddpm.compute.randomness import distinct, generator
from ddpm.compute.world import ALONE, World
from ddpm.denoiser import Denoiser
from ddpm.images.card import Classes, DataCard, Shape, listed
from ddpm.images.splits import Processed, Split, even_batch, held_out_mask, held_out_share, to_float
from ddpm.model import Guide, ModelCard, begin_from, differences, load_model, save_model
from ddpm.optim import Optimization, OptimizationParams, add_gradients, shards_on_cpu
from ddpm.schedule import NoiseSchedule, ScheduleParams, draw_timesteps, exact, relative_density, timestep_cdf
from ddpm.unet import NO_LABEL, UNet, UNetParams
from exact_stages.console import UserError

MOST_TARGET_VALUES = 2048 * 28 * 28  # 2,048 images of MNIST
NO_START = "data/processed/train.safetensors"  # train.start is a dependency for DVC, and cannot be null
BASE = "src/ddpm/pretrained/base.safetensors"  # taken only where it fits, for few images
MOST_FOR_BASE = 1000  # images; more were not measured (studies/small_sets)
LR = 0.003  # peak learning rate, with and without train.start (studies/small_sets)
PATIENCE = 0.2  # share of the training to wait for a lower validation loss
VALIDATION_STEPS = 50  # at least, from one validation to the next
VALIDATION_BATCH = 100_352  # pixels
TIMESTEP_BUCKETS = 10
CURVES = {
    "loss": ["step", "train_loss"],
    "validation": ["step", "validation_loss"],
    "loss_by_timestep": ["t", "train_loss"],
    "validation_by_timestep": ["t", "validation_loss"],
}


class TrainParams(OptimizationParams):
    """The training recipe; params.yaml explains each choice."""

    images: Annotated[int, Field(ge=1, le=10**12)] | None
    epochs: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    loss: Literal["noise", "v"]
    timestep_sampling: Literal["uniform", "stratified"]
    log_snr_center: Annotated[float, Field(ge=-20, le=20)] | None
    target_images: Annotated[int, Field(ge=0, le=1_000_000)] | None
    classes: Classes
    label_dropout: Annotated[float, Field(ge=0, lt=1)]
    guide_share: Annotated[float, Field(ge=0, lt=1)]
    flip: bool
    start: Annotated[str, Field(min_length=1), AfterValidator(posixpath.normpath)]
    validation: Annotated[float, Field(ge=0, le=0.5)] | None
    log_every: Annotated[int, Field(ge=1, le=10**9)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    def for_images(self, count: int, shape: Shape) -> "TrainParams":
        """Return these params with epochs, learning rate, validation share and target images for `count` images.

        Their shape is (C, H, W), and the count includes held-out images. The target images have at most
        MOST_TARGET_VALUES levels, so that large ones cost no more than small ones.
        """
        epochs = self.epochs if self.images is None else min(self.epochs, self.images / count)
        validation = held_out_share(count) if self.validation is None else self.validation
        target_images = self.target_images
        if target_images is None:
            target_images = MOST_TARGET_VALUES // math.prod(shape)
        chosen = {"epochs": epochs, "lr": self.lr or LR, "validation": validation, "target_images": target_images}
        return self.model_copy(update=chosen)


class Best(NamedTuple):
    """The weights with the lowest validation loss so far, their loss as training minimises it, and their step."""

    loss: float
    step: int
    weights: dict[str, Tensor]


class Training:
    """One training run. The generator `run` is its loop; `model` has the weights to keep, at any time.

    curves: the rows of each of CURVES: losses over the steps, and over t in the last epoch. All are means over uniform
    t, whatever density of t is trained. Validation is of the EMA weights, on held-out images, if there are any.
    """

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
            shards: the number of shards of a batch, see `shards_of`.
        """
        device = runtime.device
        self.card = card
        self.params = params
        self.runtime = runtime
        self.world = ALONE
        self.pieces = shards
        self.network = to_device(network, device).train()
        self.images = images.to(device)
        self.rows = rows.to(self.images.labels.device)
        self.held_out = images.take(held_out).to(device)
        self.class_counts = images.labels[torch.cat([rows, held_out])].bincount(minlength=len(card.classes)).tolist()
        self.steps_per_epoch = len(self.rows) // params.batch_size  # drops a short last batch
        self.total_steps = max(1, round(self.steps_per_epoch * params.epochs))
        self.optimization = Optimization(self.network, params, self.total_steps)
        self.schedule = NoiseSchedule(schedule)
        self.uniform = exact(timestep_cdf(self.schedule, None), device)
        self.cdf = exact(timestep_cdf(self.schedule, params.log_snr_center), device)
        self.density = relative_density(self.cdf).float()  # of t, relative to uniform t, (T,)
        self.denoiser = Denoiser(self.network, self.schedule, network.params.prediction, runtime)
        self.epochs_done = 0
        self.best: Best | None = None
        self.guide: dict[str, Tensor] | None = None  # the weights at guide_step, for autoguidance
        self.since_log = 0  # steps whose losses are in loss_sum
        self.loss_sum = torch.zeros((), device=device)
        self.buckets = torch.zeros(2, TIMESTEP_BUCKETS, device=device)  # of the epoch, see `_add`
        self.curves: dict[str, list[list[Any]]] = {name: [] for name in CURVES}
        self.last: dict[str, float] = {}  # mean losses of the last epoch and of the last validation

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
        """Tell whether to begin no other epoch: all steps are done, or the validation loss has not fallen for long."""
        waited = self.curves["validation"][-1][0] - self.best.step if self.best else 0
        return self.epochs_done * self.steps_per_epoch >= self.total_steps or waited > PATIENCE * self.total_steps

    def run(self, world: World = ALONE) -> Iterator[float | None]:
        """Train to the end (algorithm 1), in all processes of a world at once.

        Yield after every step and every epoch: the mean loss since the last one, every log_every steps and at the end,
        or None. At every yield the state is complete: a new Training that loads it continues bit for bit.

        Raises:
            UserError: the loss is not finite.
        """
        self.world = world
        while not self.ended:
            begun = self.epochs_done * self.steps_per_epoch
            for rows in self._batches(self.epochs_done + 1)[self.step - begun : self.total_steps - begun]:
                t, losses = self.gradient_step(rows)  # lines 2 to 5
                importance = 1 / self.density[t]  # of the losses in a mean over uniform t
                self._add(self.buckets, t, losses, importance)
                self.loss_sum += (losses * importance).mean()
                self.since_log += 1
                if self.params.guide_share and self.step == self.guide_step:
                    self.guide = copy.deepcopy(self.model.state_dict())
                yield self._log() if self.step % self.params.log_every == 0 else None
            self.epochs_done += 1
            self._replace("train_loss", "loss_by_timestep", self.buckets)
            self.buckets.zero_()
            if self.step // VALIDATION_STEPS > begun // VALIDATION_STEPS or self.step == self.total_steps:
                self.validate()
            yield None
        if self.since_log:
            yield self._log()

    def gradient_step(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on the batch of these rows, (batch_size,); it never waits for a GPU.

        Return t and the detached loss of every image, each (batch_size,). The returned loss is always the error of the
        noise (eq. 14), whatever is minimised, so that curves compare.
        """
        batch = self.images.batch(rows, self.runtime.device)  # line 2: x_0 ~ q(x_0)
        t, noise = self._draw(len(rows), self.cdf, self.params.timestep_sampling, self._generator("train"))  # 3 and 4
        mirrored = self._uniform("flip") < 0.5 if self.params.flip else None
        batch = self._with_visible_labels(in_orientation(batch, mirrored))
        others = self._others(self._names(rows, mirrored)) if self.params.target_images else None

        def backward(shard: slice) -> Tensor:
            """Accumulate the gradient of the shard's part of the mean loss; return the loss of every image, (B,)."""
            targets = others._replace(itself=others.itself[shard]) if others else None
            errors = noise_errors(self.denoiser, batch.take(shard), t[shard], noise[shard], targets)
            (self._weighted(errors, t[shard]).sum() / self.params.batch_size).backward()
            return errors.detach()

        losses = add_gradients(self.world, self.network, len(rows), self.pieces, backward)  # line 5: the gradient
        self.optimization.step(self.world)  # line 5: the step
        return t, losses

    @torch.no_grad()
    def validate(self) -> None:
        """Add the loss on the held-out images to the curves, with the same t and noise every time.

        Keep the weights with the lowest loss, at the weighting and the density of t of the training.
        """
        count, device = len(self.held_out.images), self.runtime.device
        if not count:
            return
        denoiser = Denoiser(self.model.eval(), self.schedule, self.network.params.prediction, self.runtime)
        size = max(1, VALIDATION_BATCH // math.prod(self.card.shape[1:]))
        batches = -(-count // size)
        rows = torch.zeros(-(-batches // self.world.size), 1 + self.buckets.numel(), device=device)
        for row, index in zip(rows, self.world.own(batches), strict=False):
            batch = self.held_out.batch(slice(index * size, (index + 1) * size), device)
            rng = generator(self.params.seed, "validation", index, device)
            t, noise = self._draw(len(batch.images), self.uniform, "stratified", rng)
            errors = noise_errors(denoiser, batch, t, noise)
            self._add(row[1:].view_as(self.buckets), t, errors, torch.ones_like(errors))
            row[0] = (self._weighted(errors, t) * self.density[t]).sum()
        total = self.world.total(rows, batches)
        buckets = total[1:].view_as(self.buckets)
        self.network.train()
        if (loss := float(total[0]) / count) < (self.best.loss if self.best else math.inf):
            self.best = Best(loss, self.step, copy.deepcopy(self.model.state_dict()))
        mean = self._replace("validation_loss", "validation_by_timestep", buckets)
        self.curves["validation"].append([self.step, mean])

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
        if train.start == BASE:
            chosen["train.start"] = BASE if self.params.start == BASE else "none"
        return chosen

    def summary(self) -> dict[str, Any]:
        """Summarise the training for metrics/train/summary.json."""
        return {
            **self.last,
            "images_seen": self.step * self.params.batch_size,
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
            "steps": self.step,
            "kept_step": self.kept_step,
            "guide_step": self.guide_step if self.guide else None,
        }

    def csv(self) -> dict[str, bytes]:
        """Return the curves as csv, by the name of the file."""
        tables = {name: pd.DataFrame(self.curves[name], columns=columns) for name, columns in CURVES.items()}
        return {
            f"{name}.csv": table.to_csv(index=False, float_format="%.6f").encode() for name, table in tables.items()
        }

    def save(self, path: Path, **facts: Any) -> None:
        """Write the model file; see `save_model` for the facts."""
        model = self.kept_model()
        classifier_free = model.params.class_conditional and self.params.label_dropout > 0
        there: dict[Guide, bool] = {"autoguidance": self.guide is not None, "classifier_free": classifier_free}
        card = ModelCard(
            data=self.card,
            model=model.params,
            schedule=self.schedule.params,
            class_counts=tuple(self.class_counts),
            guides=tuple(guide for guide, known in there.items() if known),
            images_seen=self.kept_step * self.params.batch_size,
            started=self.params.start != NO_START,
        )
        save_model(path, model, card, self.guide, **facts)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the training."""
        return {
            "optimization": self.optimization.state_dict(),
            "best": self.best._asdict() if self.best else None,
            "epochs_done": self.epochs_done,
            "since_log": self.since_log,
            "loss_sum": self.loss_sum,
            "buckets": self.buckets,
            "guide": self.guide,
            "curves": self.curves,
            "last": self.last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another Training with the same arguments."""
        self.optimization.load_state_dict(state["optimization"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.epochs_done, self.since_log, self.guide = state["epochs_done"], state["since_log"], state["guide"]
        self.loss_sum.copy_(state["loss_sum"])
        self.buckets.copy_(state["buckets"])
        self.curves, self.last = state["curves"], state["last"]

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Return the rows of every full batch of the epoch, shuffled."""
        order = torch.randperm(len(self.rows), generator=generator(self.params.seed, "shuffle", epoch))
        used = order[: self.steps_per_epoch * self.params.batch_size].to(self.rows.device)
        return torch.split(self.rows[used], self.params.batch_size)

    def _draw(self, count: int, cdf: Tensor, sampling: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample timesteps (count,) and noise (count, C, H, W): lines 3 and 4 of algorithm 1."""
        t = draw_timesteps(count, cdf, sampling, rng)
        return t, torch.randn(count, *self.card.shape, generator=rng, device=self.runtime.device)

    def _weighted(self, errors: Tensor, t: Tensor) -> Tensor:
        """Return the loss to minimise, (B,), from the mean squared errors of the noise, (B,), at t (B,).

        The error of v is the error of the noise divided by alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512,
        section 4). It gives more weight to noisy images, which decide the shapes.
        """
        return errors / self.denoiser.schedule.alphas_cumprod[t] if self.params.loss == "v" else errors

    def _with_visible_labels(self, batch: Split) -> Split:
        """Hide the labels that the network does not see.

        These are all labels, or those of a random share of the images, params.label_dropout (arXiv:2207.12598).
        """
        if not self.network.params.class_conditional:
            return Split(batch.images, torch.full_like(batch.labels, NO_LABEL))
        if not self.params.label_dropout:
            return batch
        dropped = self._uniform("label dropout") < self.params.label_dropout
        return Split(batch.images, batch.labels.masked_fill(dropped, NO_LABEL))

    def _others(self, batch: Tensor) -> "Others":
        """Draw K target images, the same in every process; half are mirrored if images are.

        Args:
            batch: the names of the images of the batch, (B,).
        """
        params, count = self.params, len(self.rows)
        drawn = distinct(params.target_images or 0, count, params.seed, "target images", self.step)
        rows = self.rows[drawn.to(self.rows.device)]
        mirrored = torch.arange(len(rows), device=self.runtime.device) % 2 == 1 if params.flip else None
        split = in_orientation(self.images.batch(rows, self.runtime.device), mirrored)
        images = split.images.flatten(1).float().div_(127.5).sub_(1)  # to_float in place, several times faster
        itself = batch[:, None] == self._names(rows, mirrored)
        return Others(images, images.square().sum(1), split.labels, itself)

    def _names(self, rows: Tensor, mirrored: Tensor | None) -> Tensor:
        """Return a number for each training image and orientation, (B,): an image and its mirror image differ."""
        names = 2 * rows.to(self.runtime.device)
        return names if mirrored is None else names + mirrored

    def _uniform(self, purpose: str) -> Tensor:
        """Sample a number in [0, 1) for each image of the whole batch, (batch_size,)."""
        return torch.rand(self.params.batch_size, generator=self._generator(purpose), device=self.runtime.device)

    def _generator(self, purpose: str) -> torch.Generator:
        """Return a generator of this step."""
        return generator(self.params.seed, purpose, self.step, self.runtime.device)

    def _log(self) -> float:
        loss = float(self.loss_sum) / self.since_log  # synchronises with the GPU
        if not math.isfinite(loss):
            raise UserError(f"train.lr: the loss is {loss} at step {self.step}; try less than {self.params.lr}")
        self.curves["loss"].append([self.step, loss])
        self.loss_sum.zero_()
        self.since_log = 0
        return loss

    def _add(self, buckets: Tensor, t: Tensor, losses: Tensor, weights: Tensor) -> None:
        """Add losses (B,) at t (B,), times their weights (B,), and the weights to buckets, (2, TIMESTEP_BUCKETS)."""
        places = t * TIMESTEP_BUCKETS // self.schedule.timesteps
        buckets.index_add_(1, places, torch.stack([losses * weights, weights]))

    def _replace(self, name: str, curve: str, buckets: Tensor) -> float:
        """Replace a curve over t by the mean loss of each bucket that has any; return the mean of these."""
        losses = (buckets[0] / buckets[1]).cpu()
        mean = losses.nanmean().item()
        self.last[name] = round(mean, 6)
        width = self.schedule.timesteps / TIMESTEP_BUCKETS
        middles = [f"{(bucket + 0.5) * width:g}" for bucket in range(TIMESTEP_BUCKETS)]
        pairs = zip(middles, losses.tolist(), strict=True)
        self.curves[curve] = [[middle, loss] for middle, loss in pairs if not math.isnan(loss)]
        return mean


def new_training(
    processed: Processed,
    schedule: ScheduleParams,
    model: UNetParams,
    train: TrainParams,
    runtime: Runtime,
    world: World = ALONE,
) -> Training:
    """Choose the images to train on, resolve the params that depend on them, and build the training.

    The network takes the weights of the model file train.start, if any.

    Raises:
        UserError: a class has no images; or the network cannot take the shape of the images; or the file does not fit,
            see `begin_from`; or the processes cannot share a batch, see `shards_of`.
    """
    card, split, groups, _ = processed
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
    torch.manual_seed(train.seed)
    try:
        network = UNet(model, card.shape, len(card.classes), schedule.timesteps)
    except ValueError as error:
        raise UserError(str(error)) from None
    many = sum(counts) > MOST_FOR_BASE
    if train.start == BASE and (many or differences(load_model(BASE).card, network.params, card, schedule)):
        train = train.model_copy(update={"start": NO_START})
    if train.start != NO_START:
        begin_from(Path(train.start), network, card, schedule)
    return Training(network, card, schedule, split, rows, held_out, train, runtime, shards)


def shards_of(model: UNetParams, batch_size: int, runtime: Runtime, world: World) -> int:
    """Return the number of shards of a batch: on CPUs it is fixed, on GPUs it follows the processes.

    Raises:
        UserError: BatchNorm would see parts of a batch; or there are fewer images than shards; or the device cannot
            share a batch.
    """
    accumulated = accumulation_steps()
    if runtime.device.type == "cpu":
        if accumulated > 1:
            raise UserError("DDPM_ACCUMULATE: only for GPUs, since CPUs compute a batch in parts; unset it")
        shards = shards_on_cpu(model, batch_size)
        if world.size > shards:
            raise UserError(f"DDPM_LAUNCH: {world.size} processes, but a batch has {shards} shards; start {shards}")
        return shards
    shards = world.size * accumulated
    if model.block == "double_conv" and shards > 1:
        raise UserError(
            "model.block: double_conv has BatchNorm, which needs whole batches; train in one process without "
            "DDPM_ACCUMULATE"
        )
    if shards > batch_size:
        raise UserError(f"train.batch_size: {batch_size} images are too few for {shards} shards; raise it")
    if world.size > 1 and runtime.device.type == "mps":  # torch has no all_reduce there
        raise UserError("DDPM_LAUNCH: MPS trains in one process; set DDPM_DEVICE=cpu for several")
    return shards


def environment_of(runtime: Runtime, processes: int) -> dict[str, str | int]:
    """Return the facts of the machine that fix the bits of a training; on CPUs, the number of processes does not."""
    if runtime.device.type == "cpu":
        return runtime.describe()
    accumulated = {"accumulation_steps": steps} if (steps := accumulation_steps()) > 1 else {}
    return {**runtime.describe(), "processes": processes, **accumulated}


def accumulation_steps() -> int:
    """Return the number of micro-batches from DDPM_ACCUMULATE.

    Raises:
        UserError: the variable is not a number from 1 to a million.
    """
    return number("DDPM_ACCUMULATE", 1, 1, 1_000_000, "micro-batches")


class Others(NamedTuple):
    """Other training images, for stable targets.

    images: in [-1, 1], flat (K, C * H * W). squares: their squared norms, (K,). labels: (K,). itself: where an image of
    a batch is among them, (B, K), so that it does not count twice.
    """

    images: Tensor
    squares: Tensor
    labels: Tensor
    itself: Tensor


def noise_errors(denoiser: Denoiser, split: Split, t: Tensor, noise: Tensor, others: Others | None = None) -> Tensor:
    """Return L_simple of every image, (B,): the mean squared error of the predicted noise (eq. 14).

    With `others` the gradient is that of the error from a stable target: the noise if the image were `stable_start`,
    which takes these others. It has nearly the same mean, and varies less. The value stays the error of the noise.
    """
    x_start = to_float(split.images)
    x_t = denoiser.schedule.q_sample(x_start, t, noise)  # sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (eq. 4)
    predicted = denoiser(x_t, t, split.labels)
    pred_noise = predicted.noise  # eps_theta(x_t, t)
    errors = F.mse_loss(pred_noise, noise, reduction="none").mean(dim=(1, 2, 3))
    if others is None:
        return errors
    start = stable_start(x_t, x_start, split.labels, predicted.signal, predicted.spread, others)
    target = noise + predicted.signal / predicted.spread * (x_start - start)
    stable = F.mse_loss(pred_noise, target, reduction="none").mean(dim=(1, 2, 3))
    return stable + (errors - stable).detach()  # the value of errors, the gradient of stable


def stable_start(
    x_t: Tensor, x_start: Tensor, labels: Tensor, signal: Tensor, spread: Tensor, others: Others
) -> Tensor:
    """Return the mean of x_0 given x_t, (B, C, H, W), over x_start and the other images of its class.

    This is the stable target field of Xu et al. 2023 (arXiv:2302.00670). Where noise is strong, many images may have
    become x_t: their mean is what the network has to learn, and x_start is a noisy sample of it. Where noise is weak,
    the mean is x_start.

    Args:
        x_t: (B, C, H, W), noisy x_start.
        signal, spread: sqrt(abar) and sqrt(1 - abar) at each t, (B, 1, 1, 1).
        labels: (B,); NO_LABEL takes others of all classes.
    """
    x, own, signal, spread = (each.flatten(1) for each in (x_t, x_start, signal, spread))
    # The logarithm of N(x_t; signal x_0, spread^2 I) times spread^2, up to a constant of each x_t.
    of_own = signal * (x * own).sum(1, keepdim=True) - signal.square() * own.square().sum(1, keepdim=True) / 2
    of_others = signal * (x @ others.images.T) - signal.square() * others.squares / 2
    labels = labels.view(-1, 1)
    of_others.masked_fill_(others.itself | (labels != NO_LABEL) & (labels != others.labels), -torch.inf)
    weights = (torch.cat([of_own, of_others], dim=1) / spread.square()).softmax(dim=1)
    return (weights[:, :1] * own + weights[:, 1:] @ others.images).view_as(x_t)


def in_orientation(split: Split, mirrored: Tensor | None) -> Split:
    """Mirror images (B, C, H, W) left to right where `mirrored` (B,) is true."""
    if mirrored is None:
        return split
    return Split(torch.where(mirrored.view(-1, 1, 1, 1), split.images.flip(3), split.images), split.labels)
