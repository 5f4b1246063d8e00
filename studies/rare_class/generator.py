"""Train a diffusion model on an imbalanced subset: as stage train does, but shorter, with rare classes more often."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.images.splits import Processed
from ddpm.networks.unet import UNetParams
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.parallel.world import ALONE
from ddpm.pipeline.params import Section
from ddpm.training.curves import Curves
from ddpm.training.recipe import TrainParams
from ddpm.training.running import run_training, save_trained
from ddpm.training.setup import new_training, prepare


class GeneratorParams(Section):
    """Params that differ from the pipeline's section `train`; its `start` is ignored, too."""

    images: Annotated[int, Field(ge=1, le=10**12)]
    class_balance: Annotated[float, Field(ge=0, le=1)]


def train(
    name: str,
    images: Processed,
    schedule: ScheduleParams,
    model: UNetParams,
    recipe: TrainParams,
    runtime: Runtime,
    key: str,
    path: Path,
) -> dict[str, Any]:
    """Train to the end and write the model file; resume an interrupted run with the same key.

    Args:
        name: of the progress bar.
        key: a hash of everything that determines the result, except the machine.

    Returns:
        The last losses, and the number of steps.
    """
    environment = runtime.describe()
    setup = prepare(images, model, recipe)
    training, curves = new_training(setup, schedule, None, runtime), Curves(schedule.timesteps)
    key = hashlib.sha256(f"{key} {environment}".encode()).hexdigest()
    with Checkpoints("rare_class", key, ALONE, training=training, curves=curves) as checkpoints:
        run_training(name, training, curves, checkpoints)
        save_trained(path, training, setup, schedule, environment)
    checkpoints.drop()
    best = training.validation.best
    return {**curves.last, "steps": training.step, "kept_step": best.step if best else training.step}
