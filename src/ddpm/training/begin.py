"""Begin a training: choose its images, resolve what params leave open, and build the network.

Environment:
    DDPM_ACCUMULATE  micro-batches of a GPU's part of a batch, for batches that do not fit into memory; by default 1.
                     Gradients accumulate; results may differ by rounding.
"""

from pathlib import Path

import torch

from ddpm.compute.device import Runtime, number
from ddpm.compute.world import ALONE, World
from ddpm.images.card import listed
from ddpm.images.splits import Processed, even_batch, held_out_mask
from ddpm.model import begin_from
from ddpm.optim import shards_on_cpu
from ddpm.schedule import ScheduleParams
from ddpm.training.params import FROM_SCRATCH, TrainParams
from ddpm.training.run import Training
from ddpm.unet import UNet, UNetParams
from exact_stages.console import UserError


def new_training(
    processed: Processed,
    schedule: ScheduleParams,
    model: UNetParams,
    train: TrainParams,
    runtime: Runtime,
    world: World = ALONE,
) -> Training:
    """Choose the images to train on, resolve the params that depend on them, and build the training.

    The network takes the weights of the model file train.fine_tune_from, if any.

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
    if train.fine_tune_from != FROM_SCRATCH:
        begin_from(Path(train.fine_tune_from), network, card, schedule)
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
