"""Running a training to its end: the bar, the curves, the states that it can go on from, and the model file."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import save_model
from ddpm.networks.unet import UNet
from ddpm.parallel.resume import State, stopping
from ddpm.pipeline.console import UserError, progress
from ddpm.training.curves import Curves
from ddpm.training.loop import EpochEnd, Logged, Training
from ddpm.training.setup import Setup

SECONDS_BETWEEN_WRITES = 5
STEPS_BETWEEN_AGREEMENTS = 20
STEPS_BETWEEN_READINGS = 20  # of losses, for which a GPU is waited for
WARMUP_STEPS, TIMED_STEPS = 10, 40  # for saying how long it will take


def run_training(
    name: str, training: Training, curves: Curves, state: State | None, write_curves: Callable[[], None]
) -> None:
    """Run the loop; the state is saved every so often, and when someone asks the process to end.

    Several processes agree on both, and do so only every few steps, for it makes them wait for one another.

    Args:
        state: of the first process; the others have none, and write nothing.
        write_curves: called every so often.

    Raises:
        UserError: the loss is not finite; or it was interrupted. In another process: SystemExit.
    """
    size, group = training.params.batch_size, training.group
    bar = progress(
        desc=name,
        total=training.total_steps * size,
        initial=training.step * size,
        unit="img",
        unit_scale=True,
        disable=not state,
    )
    losses = Losses(training, curves, state, bar)
    written = time.monotonic()
    first, warm = training.step, written
    with stopping() as stop, bar:
        for event in training.run():
            step = 0 if isinstance(event, EpochEnd) else training.step - first  # that ended just now
            if step == WARMUP_STEPS:
                warm = time.monotonic()
            if state and step == WARMUP_STEPS + TIMED_STEPS:
                steps = training.total_steps - training.step
                seconds = steps * (time.monotonic() - warm) / TIMED_STEPS
                bar.write(f"{name}: {steps * size:,} images, which takes about {minutes(seconds)}", file=sys.stderr)
            losses.add(event)
            if state and time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                losses.read()
                write_curves()
                written = time.monotonic()
            if group.size > 1 and training.step % STEPS_BETWEEN_AGREEMENTS:
                continue
            stopped = group.any(stop.requested)
            if stopped or (state and state.due()):
                losses.read()
                if state:
                    state.save(training.state(), {"curves": curves.facts})
            if stopped:
                raise ending(state, f"interrupted after step {training.step}; the next `dvc repro` goes on from there")
        losses.read()


class Losses:
    """Losses on their way to curves and bar: read some steps late, for to read one on a GPU is to wait for it."""

    def __init__(self, training: Training, curves: Curves, state: State | None, bar: Any) -> None:
        self.training = training
        self.curves = curves
        self.state = state
        self.bar = bar
        self._unread: list[Logged | EpochEnd] = []
        self._read_at = training.step

    def add(self, event: Logged | EpochEnd | None) -> None:
        """Take an event of the loop; see `read` for what it may raise."""
        if event:
            self._unread.append(event)
        if self.training.step - self._read_at >= STEPS_BETWEEN_READINGS:  # in all processes after the same step
            self.read()
            self._read_at = self.training.step

    def read(self) -> None:
        """Hand on all that there are.

        Raises:
            UserError: one is not finite. In another process than the first: SystemExit.
        """
        params = self.training.params
        for event in self._unread:
            if isinstance(event, Logged):
                if not math.isfinite(event.loss):
                    message = f"train.lr: the loss is {event.loss} at step {event.step}; try less than {params.lr}"
                    raise ending(self.state, message)
                self.bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                self.bar.update(event.step * params.batch_size - self.bar.n)
            if self.state:
                self.curves.add(event)
        self._unread.clear()


def minutes(seconds: float) -> str:
    """In words."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def ending(state: State | None, message: str) -> UserError | SystemExit:
    """The end of all processes; the first says why."""
    return UserError(message) if state else SystemExit(1)


def save_trained(
    path: Path, training: Training, setup: Setup, schedule: ScheduleParams, environment: dict[str, Any]
) -> UNet:
    """Write the model file; the model that is in it."""
    model = training.best()
    save_model(
        path,
        model,
        NoiseSchedule(schedule),
        setup.class_counts,
        early=training.early,
        unlabelled=model.params.class_conditional and setup.train.label_dropout > 0,
        environment=environment,
    )
    return model
