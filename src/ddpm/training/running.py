"""Run a training to its end: progress bar, curves, checkpoints, and the model file."""

import math
from pathlib import Path
from typing import Any

from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import save_model
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.parallel.world import World
from ddpm.training.curves import Curves
from ddpm.training.loop import LossPoint, Training
from ddpm.training.setup import Setup
from ddpm.training.step import accumulation_steps
from exact_stages.console import UserError, progress


def run_training(name: str, training: Training, curves: Curves, checkpoints: Checkpoints) -> None:
    """Train to the end, with a progress bar called `name`, and save checkpoints when they are due.

    Raises:
        UserError: the loss is not finite; or the run was interrupted.
    """
    size = training.params.batch_size
    bar = progress(
        desc=name,
        total=training.total_steps * size,
        initial=training.step * size,
        unit="img",
        unit_scale=True,
        disable=training.world.rank > 0,
    )
    with bar:
        for event in training.run():
            if event:
                curves.add(event)
            if isinstance(event, LossPoint):
                if not math.isfinite(event.loss):
                    lr = training.params.lr
                    raise UserError(f"train.lr: the loss is {event.loss} at step {event.step}; try less than {lr}")
                bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                bar.update(event.step * size - bar.n)
            checkpoints.tick()
    if training.step < training.total_steps and training.world.rank == 0:
        print(
            f"{name}: ended after {training.step} of {training.total_steps} steps, since the validation loss had its "
            f"minimum at step {training.kept_step}"
        )


def environment_of(runtime: Runtime, world: World) -> dict[str, Any]:
    """Describe what, besides code, params and data, the exact result of a training depends on."""
    steps = accumulation_steps()
    return {**runtime.describe(), "processes": world.size} | ({"accumulation_steps": steps} if steps > 1 else {})


def summary_of(training: Training, curves: Curves, setup: Setup, follows: dict[str, Any]) -> dict[str, Any]:
    """Summarise a finished training for metrics/train/summary.json."""
    return {
        **curves.last,
        "images_seen": training.step * setup.train.batch_size,
        "parameters": sum(weight.numel() for weight in training.network.parameters()),
        "steps": training.step,
        "kept_step": training.kept_step,
        "guide_step": training.guide_step if training.guide else None,
        "follows": follows,
    }


def save_trained(
    path: Path, training: Training, setup: Setup, schedule: ScheduleParams, environment: dict[str, Any]
) -> None:
    """Write the model file."""
    model = training.best()
    save_model(
        path,
        model,
        setup.card,
        NoiseSchedule(schedule),
        setup.class_counts,
        guide=training.guide,
        images_seen=training.kept_step * setup.train.batch_size,
        classifier_free=model.params.class_conditional and setup.train.label_dropout > 0,
        environment=environment,
    )
