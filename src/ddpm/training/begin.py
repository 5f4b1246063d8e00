"""Begin a training: choose its images, resolve what params leave open, and build the network."""

from pathlib import Path

import torch

from ddpm.compute.device import Runtime
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
        UserError: there are more processes than shards, of which a network with BatchNorm has one.
    """
    gpu, on_cpu = runtime.device.type == "cuda", shards_on_cpu(model, batch_size)
    most = batch_size if gpu and model.block == "residual" else on_cpu
    if world.size > most:
        why = f"a batch has at most {most} shards" if model.block == "residual" else "BatchNorm needs whole batches"
        raise UserError(f"DDPM_LAUNCH: {world.size} processes, but {why}; start {most}")
    return world.size if gpu else on_cpu


def environment_of(runtime: Runtime, processes: int) -> dict[str, str | int]:
    """Return the facts of the machine that fix the bits of a training; on CPUs, the number of processes does not."""
    return runtime.describe() | ({"processes": processes} if runtime.device.type == "cuda" else {})
