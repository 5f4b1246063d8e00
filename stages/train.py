"""Train the denoising diffusion model; its curves are rewritten while it trains."""

import math
import os
import sys
import time
from pathlib import Path
from typing import Self

from pydantic import model_validator

from ddpm.data.splits import load_split
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import check_times, save_model
from ddpm.networks.unet import UNetParams
from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.device import Runtime, start
from ddpm.runtime.files import write_json, write_whole
from ddpm.runtime.group import Group, join, launched, place
from ddpm.runtime.launch import launch, on_several_machines, wanted_processes
from ddpm.runtime.params import Sections
from ddpm.runtime.resume import State, stopping
from ddpm.runtime.stage import Stage, check_command
from ddpm.training.curves import COLUMNS, Curves
from ddpm.training.loop import EpochEnd, Logged, Training
from ddpm.training.recipe import TrainParams
from ddpm.training.setup import Setup, new_training, prepare

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
WARMUP_STEPS, TIMED_STEPS = 10, 40  # for saying how long it will take


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
            processes = min(processes, most_processes(params, params.train.batch_size))
        check_processes(params, processes, runtime, params.train.batch_size)
        if processes > 1 or on_several_machines():
            start_of(stage, params)
            setup_of(params)  # what is wrong with them is said once
            launch(processes, "stages.train")
            for path in OUTPUTS if (os.environ.get("PET_NODE_RANK") or "0") == "0" else ():  # the first machine's
                stage.output(path)
            stage.finish()  # it takes longer to end than the process that wrote them
            return
    with stage:
        work(stage, params, runtime, group)


def most_processes(params: Params, batch_size: int) -> int:
    """How many can train together: images of a batch are shared among them, statistics of BatchNorm are not."""
    return 1 if params.model.block == "double_conv" else batch_size


def check_processes(params: Params, processes: int, runtime: Runtime, batch_size: int) -> None:
    """Refuse too many of them.

    Raises:
        UserError: there are more than most_processes, or several on a Mac's GPU.
    """
    if processes > 1 and runtime.device.type == "mps":  # torch has no way to sum over processes there
        raise UserError(f"DDPM_PROCESSES={processes}: MPS trains in one process; set DDPM_DEVICE=cpu for several")
    if processes > (most := most_processes(params, batch_size)):
        reason = f"train.batch_size: {most} images cannot be shared among {processes} processes"
        if params.model.block == "double_conv":
            reason = "model.block: double_conv has BatchNorm, whose statistics several processes would not share"
        raise UserError(f"{reason}; set DDPM_PROCESSES={most}")


def work(stage: Stage, params: Params, runtime: Runtime, group: Group) -> None:
    """Train to the end, then write model and summary; go on where a run with the very same inputs was cut off.

    Of the processes that train together only the first reads and writes states and results. What a user may have to
    mend is found before they join, so that none waits for another in vain.
    """
    environment = {**runtime.describe(), "processes": group.size}
    start = start_of(stage, params)
    state = State("train", stage.fingerprint(environment)) if group.rank == 0 else None
    setup = setup_of(params)
    check_processes(params, group.size, runtime, setup.train.batch_size)
    join(group, runtime.device)
    group.agree({**stage.facts(), **{name: environment[name] for name in ("torch", "precision")}})
    training = new_training(setup, params.schedule, start, runtime, group)
    saved = group.from_first(state.load() if state else None)
    curves = Curves(params.schedule.timesteps, saved.facts["curves"] if saved else None)
    if saved:
        training.load_state(saved.arrays)
    if state:
        for name, value in setup.follows(params.model, params.train).items():
            print(f"{name}: {value}, as the images ask for")
        if saved:
            print(f"resuming after step {training.step} of {training.total_steps}", file=sys.stderr)
    train(stage, training, curves, state)
    changed = [each for changes in group.gather(stage.changes()) for each in changes]
    if not state:
        return
    if changed:
        state.save(training.state(), {"curves": curves.facts})
        stage.give_up(changed)
    write_curves(stage, curves)
    model, schedule, kept = training.best(), NoiseSchedule(params.schedule), training.validation.kept
    save_model(
        stage.output(MODEL),
        model,
        schedule,
        setup.class_counts,
        early=training.early,
        unlabelled=model.params.class_conditional and params.train.label_dropout > 0,
        environment=environment,
    )
    summary = {
        **curves.last,
        "images_seen": training.total_steps * setup.train.batch_size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": training.step,
        "kept_step": kept.step if kept else training.step,
        "follows": setup.follows(params.model, params.train),
    }
    write_json(stage.output(METRICS / "summary.json"), summary)
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
    first, warm = training.step, written
    with stopping() as stop, bar:
        for event in training.run():
            step = 0 if isinstance(event, EpochEnd) else training.step - first  # that ended just now
            if step == WARMUP_STEPS:
                warm = time.monotonic()
            if state and step == WARMUP_STEPS + TIMED_STEPS:
                steps = training.total_steps - training.step
                seconds = steps * (time.monotonic() - warm) / TIMED_STEPS
                bar.write(f"train: {steps * size:,} images, which takes about {minutes(seconds)}", file=sys.stderr)
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


def minutes(seconds: float) -> str:
    """In words."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def write_curves(stage: Stage, curves: Curves) -> None:
    """Write every curve as it is now."""
    for name, table in curves.tables().items():
        write_whole(stage.output(METRICS / f"{name}.csv"), table.encode())


def ending(state: State | None, message: str) -> UserError | SystemExit:
    """The end of all processes; the first says why."""
    return UserError(message) if state else SystemExit(1)


def start_of(stage: Stage, params: Params) -> Path | None:
    """The model file to begin from, if there is one; both inputs are remembered, as they are about to be read."""
    start = stage.input(Path(params.train.start))
    return None if start == stage.input(TRAIN) else start


def setup_of(params: Params) -> Setup:
    """See `prepare`."""
    return prepare(load_split(TRAIN), params.model, params.train)


if __name__ == "__main__":
    run(main)
