"""Train the denoising diffusion model; its curves are rewritten while it trains."""

import os
import sys
from pathlib import Path
from typing import Self

from pydantic import model_validator

from ddpm.compute.capture import wanted_capture
from ddpm.compute.device import Runtime, start
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import check_times
from ddpm.networks.unet import UNetParams
from ddpm.parallel.group import Group, join, launched, place
from ddpm.parallel.launch import launch, on_several_machines, wanted_processes
from ddpm.parallel.resume import State
from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_json, write_whole
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, check_command
from ddpm.training.curves import COLUMNS, Curves
from ddpm.training.recipe import TrainParams
from ddpm.training.running import run_training, save_trained
from ddpm.training.setup import Setup, new_training, prepare
from ddpm.training.step import wanted_parts, with_parts

LEAST_SHARE = 256  # images: with fewer, a step takes a GPU as long as with these (docs/processes.md)
TRAIN = Path("data/processed/train.safetensors")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/train")
OUTPUTS = [
    MODEL,
    *(METRICS / f"{name}.csv" for name in COLUMNS),
    METRICS / "summary.json",
    METRICS / "environment.json",
]


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
        wanted_parts(), wanted_capture()  # what is wrong with them is said once
        processes = wanted_processes(runtime.device)
        if not os.environ.get("DDPM_PROCESSES"):
            processes = min(processes, worthwhile_processes(params, params.train.batch_size))
        check_processes(params, processes, runtime, params.train.batch_size)
        if processes > 1 or on_several_machines():
            start_of(stage, params)
            setup_of(params)  # what is wrong with them is said once
            launch(processes, "stages.train", several_machines=on_several_machines())
            for path in OUTPUTS if (os.environ.get("PET_NODE_RANK") or "0") == "0" else ():  # the first machine's
                stage.output(path)
            stage.finish()  # it takes longer to end than the process that wrote them
            return
    with stage:
        work(stage, params, runtime, group)


def worthwhile_processes(params: Params, batch_size: int) -> int:
    """How many train together unless the environment says how many: each has LEAST_SHARE images of a batch."""
    return max(1, min(batch_size // LEAST_SHARE, most_processes(params, batch_size)))


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
    environment = with_parts({**runtime.describe(), "processes": group.size}, wanted_parts())
    start = start_of(stage, params)
    state = State("train", stage.fingerprint(environment)) if group.rank == 0 else None
    setup = setup_of(params)
    check_processes(params, group.size, runtime, setup.train.batch_size)
    join(group, runtime.device)
    same = {name: environment.get(name) for name in ("torch", "precision", "parts")}
    group.agree({**stage.facts(), **same})
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
    run_training("train", training, curves, state, lambda: write_curves(stage, curves))
    changed = [each for changes in group.gather(stage.changes()) for each in changes]
    environment = with_parts(environment, max(group.gather(training.gradient_step.parts)))
    if not state:
        return
    if changed:
        state.save(training.state(), {"curves": curves.facts})
        stage.give_up(changed)
    write_curves(stage, curves)
    model = save_trained(stage.output(MODEL), training, setup, params.schedule, environment)
    kept = training.validation.kept
    summary = {
        **curves.last,
        "images_seen": training.total_steps * setup.train.batch_size,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": training.step,
        "kept_step": kept.step if kept else training.step,
        "early_step": training.early_step if training.early else None,
        "follows": setup.follows(params.model, params.train),
    }
    write_json(stage.output(METRICS / "summary.json"), summary)
    write_json(stage.output(METRICS / "environment.json"), environment)
    state.finish(training.state(), {"curves": curves.facts}, [MODEL])


def write_curves(stage: Stage, curves: Curves) -> None:
    """Write every curve as it is now."""
    for name, table in curves.tables().items():
        write_whole(stage.output(METRICS / f"{name}.csv"), table.encode())


def start_of(stage: Stage, params: Params) -> Path | None:
    """The model file to begin from, if there is one; both inputs are remembered, as they are about to be read."""
    start = stage.input(Path(params.train.start))
    return None if start == stage.input(TRAIN) else start


def setup_of(params: Params) -> Setup:
    """See `prepare`."""
    return prepare(load_split(TRAIN), params.model, params.train)


if __name__ == "__main__":
    run(main)
