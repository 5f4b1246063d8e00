"""Set up a training from preprocessed images and params."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard, listed
from ddpm.images.splits import Processed, Split, Subset, even_batch, held_out_mask
from ddpm.networks.checkpoint import begin_from, new_network
from ddpm.networks.unet import UNetParams
from ddpm.parallel.world import ALONE, World
from ddpm.training.loop import Training
from ddpm.training.recipe import TrainParams
from ddpm.training.step import accumulation_steps
from exact_stages.console import UserError


class Setup(NamedTuple):
    """The images to train on, the held-out images, the class counts, and the params resolved for them."""

    card: DataCard
    images: Split | Subset
    held_out: Split
    class_counts: tuple[int, ...]
    model: UNetParams
    train: TrainParams

    def follows(self, model: UNetParams, train: TrainParams) -> dict[str, Any]:
        """Return the params that were chosen from the data, by name; `model` and `train` are the given ones."""
        chosen: dict[str, Any] = {}
        for section, given, now in (("model", model, self.model), ("train", train, self.train)):
            before, after = given.model_dump(mode="json"), now.model_dump(mode="json")
            chosen |= {f"{section}.{key}": value for key, value in after.items() if value != before[key]}
        return chosen


def prepare(processed: Processed, model: UNetParams, train: TrainParams) -> Setup:
    """Select the images to train on, and resolve the params that depend on them.

    Raises:
        UserError: a class has no images; or the network cannot take the shape of the images.
    """
    card, split, groups, _ = processed
    labels = card.labels(train.classes, "train.classes")
    found = split.labels.bincount(minlength=len(card.classes)).tolist()
    counts = tuple(count if label in labels else 0 for label, count in enumerate(found))
    if missing := [card.classes[label] for label in labels if not counts[label]]:
        raise UserError(f"train.classes: no training images of {listed(missing)}; leave it out")
    train = train.for_images(sum(counts), card.shape)
    chosen = torch.isin(split.labels, torch.tensor(labels))
    mask = held_out_mask(split, groups, train.validation or 0.0, train.seed)
    rows, held_out = (chosen & ~mask).nonzero().flatten(), split.take(chosen & mask)
    images = Subset(split, rows, split.labels[rows])
    train = train.model_copy(update={"batch_size": even_batch(len(rows), train.batch_size)})
    try:
        model = model.for_images(card.shape)
    except ValueError as error:
        raise UserError(str(error)) from None
    return Setup(card, images, held_out, counts, model, train)


def new_training(
    setup: Setup, schedule_params: ScheduleParams, start: Path | None, runtime: Runtime, world: World = ALONE
) -> Training:
    """Build a training, with fresh weights or weights from the model file `start`.

    Raises:
        UserError: the file does not fit, see `begin_from`; or the processes cannot share a batch.
    """
    check_world(setup, runtime, world)
    torch.manual_seed(setup.train.seed)
    schedule = NoiseSchedule(schedule_params)
    network = new_network(setup.model, setup.card, schedule_params)
    if start:
        begin_from(start, network, setup.card, schedule)
    return Training(network, setup.card, schedule, setup.images, setup.held_out, setup.train, runtime, world)


def check_world(setup: Setup, runtime: Runtime, world: World) -> None:
    """Refuse processes and micro-batches that cannot share a batch.

    Raises:
        UserError: processes outnumber the images of a batch; or BatchNorm would see parts of a batch; or the device
            is MPS.
    """
    if setup.model.block == "double_conv" and (world.size > 1 or accumulation_steps() > 1):
        raise UserError(
            "model.block: double_conv has BatchNorm, which needs whole batches; train in one process without "
            "DDPM_ACCUMULATE"
        )
    if world.size > setup.train.batch_size:
        raise UserError(
            f"train.batch_size: {setup.train.batch_size} images are too few for {world.size} processes; raise it"
        )
    if world.size > 1 and runtime.device.type == "mps":  # torch has no all_reduce there
        raise UserError("DDPM_LAUNCH: MPS trains in one process; set DDPM_DEVICE=cpu for several")
