"""Train the denoising diffusion model; its curves are rewritten while it trains."""

import math
import os
import sys
import time
from pathlib import Path
from typing import Self

import torch
from pydantic import model_validator

from ddpm.data.labels import CLASSES
from ddpm.data.splits import Split, held_out_mask, load_split
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import check_times, save_model
from ddpm.networks.unet import UNet, UNetParams
from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.device import Runtime, start
from ddpm.runtime.files import write_json, write_whole
from ddpm.runtime.group import ALONE, Group, join, launched, place
from ddpm.runtime.launch import launch, on_several_machines, wanted_processes
from ddpm.runtime.params import Sections
from ddpm.runtime.resume import State, stopping
from ddpm.runtime.stage import Stage, check_command
from ddpm.training.curves import COLUMNS, Curves
from ddpm.training.loop import Logged, Training, TrainParams

TRAIN = Path("data/processed/train.safetensors")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/train")
OUTPUTS = [
    MODEL,
    *(METRICS / f"{name}.csv" for name in COLUMNS),
    METRICS / "summary.json",
    METRICS / "environment.json",
]
SECONDS_BETWEEN_WRITES = 5
STEPS_BETWEEN_AGREEMENTS = 20


class Params(Sections):
    """What this stage reads."""

    schedule: ScheduleParams
    model: UNetParams
    train: TrainParams

    @model_validator(mode="after")
    def _small(self) -> Self:
        check_times(self.model, self.schedule)
        return self


def main() -> None:
    """Train in this process, or in as many as the environment asks for."""
    check_command("train")
    group = place()
    stage = Stage("train", alone=group.rank == 0)
    params = stage.params(Params)
    runtime = start()
    if not launched():
        processes = wanted_processes(runtime.device)
        if not os.environ.get("DDPM_PROCESSES"):
            processes = min(processes, most_processes(params))
        check_processes(params, processes, runtime)
        if processes > 1 or on_several_machines():
            stage.input(TRAIN)
            split_images(params.train)  # what is wrong with them is said once
            launch(processes, "stages.train")
            for path in OUTPUTS:
                stage.output(path)
            stage.finish()  # it takes longer to end than the process that wrote them
            return
    with stage:
        work(stage, params, runtime, group)


def most_processes(params: Params) -> int:
    """How many can train together: images of a batch are shared among them, statistics of BatchNorm are not."""
    return 1 if params.model.block == "double_conv" else params.train.batch_size


def check_processes(params: Params, processes: int, runtime: Runtime) -> None:
    """Refuse too many of them.

    Raises:
        UserError: there are more than most_processes, or several on a Mac's GPU.
    """
    if processes > 1 and runtime.device.type == "mps":  # torch has no way to sum over processes there
        raise UserError(f"DDPM_PROCESSES={processes}: MPS trains in one process; set DDPM_DEVICE=cpu for several")
    if processes > (most := most_processes(params)):
        reason = f"train.batch_size: {most} images cannot be shared among {processes} processes"
        if params.model.block == "double_conv":
            reason = "model.block: double_conv has BatchNorm, whose statistics several processes would not share"
        raise UserError(f"{reason}; set DDPM_PROCESSES={most}")


def work(stage: Stage, params: Params, runtime: Runtime, group: Group) -> None:
    """Train to the end, then write model and summary; go on where a run with the very same inputs was cut off.

    Of the processes that train together only the first reads and writes states and results. What a user may have to
    mend is found before they join, so that none waits for another in vain.
    """
    check_processes(params, group.size, runtime)
    environment = {**runtime.describe(), "processes": group.size}
    stage.input(TRAIN)
    state = State("train", stage.fingerprint(environment)) if group.rank == 0 else None
    images, held_out, class_counts = split_images(params.train)
    join(group, runtime.device)
    group.agree({**stage.facts(), **{name: environment[name] for name in ("torch", "precision")}})
    training = new_training(params, images, held_out, runtime, group)
    saved = group.from_first(state.load() if state else None)
    curves = Curves(params.schedule.timesteps, saved.facts["curves"] if saved else None)
    if saved:
        training.load_state(saved.arrays)
        if state:
            print(f"resuming after step {training.step} of {training.total_steps}", file=sys.stderr)
    train(stage, training, curves, state)
    changed = [each for changes in group.gather(stage.changes()) for each in changes]
    if not state:
        return
    if changed:
        state.save(training.state(), {"curves": curves.facts})
        stage.give_up(changed)
    write_curves(stage, curves)
    save_model(
        stage.output(MODEL), training.model, NoiseSchedule(params.schedule), class_counts, environment=environment
    )
    parameters = sum(weight.numel() for weight in training.model.parameters())
    total = training.total_steps * params.train.batch_size
    write_json(stage.output(METRICS / "summary.json"), {**curves.last, "images_seen": total, "parameters": parameters})
    write_json(stage.output(METRICS / "environment.json"), environment)
    state.finish(training.state(), {"curves": curves.facts}, [MODEL])


def train(stage: Stage, training: Training, curves: Curves, state: State | None) -> None:
    """Run the loop; the state is saved every so often, and when someone asks the process to end.

    Several processes agree on both, and do so only every few steps, for it makes them wait for one another.
    """
    size, group = training.params.batch_size, training.group
    bar = progress(
        desc="train",
        total=training.total_steps * size,
        initial=training.step * size,
        unit="img",
        unit_scale=True,
        disable=not state,
    )
    written = time.monotonic()
    with stopping() as stop, bar:
        for event in training.run():
            if event and state:
                curves.add(event)
                if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                    write_curves(stage, curves)
                    written = time.monotonic()
            if isinstance(event, Logged):
                if not math.isfinite(event.loss):
                    lr = training.params.lr
                    raise ending(state, f"train.lr: the loss is {event.loss} at step {event.step}; try less than {lr}")
                bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                bar.update(event.step * size - bar.n)
            if group.size > 1 and training.step % STEPS_BETWEEN_AGREEMENTS:
                continue
            stopped = group.any(stop.requested)
            if state and (stopped or state.due()):
                state.save(training.state(), {"curves": curves.facts})
            if stopped:
                raise ending(state, f"interrupted after step {training.step}; the next `dvc repro` goes on from there")


def write_curves(stage: Stage, curves: Curves) -> None:
    """Write every curve as it is now."""
    for name, table in curves.tables().items():
        write_whole(stage.output(METRICS / f"{name}.csv"), table.encode())


def ending(state: State | None, message: str) -> UserError | SystemExit:
    """The end of all processes; the first says why."""
    return UserError(message) if state else SystemExit(1)


def split_images(params: TrainParams) -> tuple[Split, Split, tuple[int, ...]]:
    """Training and held-out images of the classes to train on, and how many there are of each class.

    Raises:
        UserError: a class has no images, or none to train on, or too few images are left for a batch.
    """
    split = load_split(TRAIN, params.classes or range(CLASSES))
    counts = tuple(split.labels.bincount(minlength=CLASSES).tolist())
    for label in params.classes:
        if not counts[label]:
            raise UserError(f"train.classes: no image has the label {label}; leave it out")
    mask = held_out_mask(split.images, params.validation, params.seed)
    images, held_out = split.take(~mask), split.take(mask)
    if len(images.images) < params.batch_size:
        raise UserError(
            f"train.batch_size: {params.batch_size} exceeds the training images, {len(images.images)} of "
            f"{len(mask)} after train.validation takes {len(held_out.images)}"
        )
    for label, (count, left) in enumerate(zip(counts, images.labels.bincount(minlength=CLASSES), strict=True)):
        if count and not left:
            raise UserError(f"train.validation: {params.validation} holds out all images of class {label}; lower it")
    return images, held_out, counts


def new_training(params: Params, images: Split, held_out: Split, runtime: Runtime, group: Group = ALONE) -> Training:
    """The run, with freshly initialised weights."""
    torch.manual_seed(params.train.seed)
    schedule = NoiseSchedule(params.schedule)
    model = UNet(params.model, schedule)
    return Training(model, schedule, images, held_out, params.train, runtime, group)


if __name__ == "__main__":
    run(main)
