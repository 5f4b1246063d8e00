"""Train the denoising diffusion model, in one process or in several that torchrun starts."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from ddpm.compute.device import start
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.images.card import Classes
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import check_times
from ddpm.networks.unet import UNetParams
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.parallel.world import join, role
from ddpm.training.curves import Curves
from ddpm.training.recipe import TrainParams
from ddpm.training.running import environment_of, run_training, save_trained, summary_of
from ddpm.training.setup import new_training, prepare
from exact_stages.params import Sections, load_params
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/train")
FEW_STEPS = 300


class Params(Sections):
    """The params of this stage."""

    schedule: ScheduleParams
    model: UNetParams
    train: TrainParams

    @model_validator(mode="after")
    def _small(self) -> Self:
        check_times(self.model, self.schedule)
        return self


class Population(Sections):
    """The classes of the samples that will be scored."""

    classes: Classes


def main(stage: Stage) -> None:
    """Train, or continue an interrupted run; then write the model, its curves and a summary."""
    params = stage.params(Params)
    processed = load_split(stage.input(TRAIN))
    processed.check_tested(params.train.classes, "train.classes")
    # No dependency of this stage: it decides only whether to begin a training whose samples could not be scored.
    sampled = load_params(Population, "sample.population").classes
    processed.check_tested(sampled, "sample.population.classes")
    setup = prepare(processed, params.model, params.train)
    start_from = stage.input(Path(params.train.start))  # TRAIN means none: a DVC dependency cannot be null
    runtime = start()
    world = join(runtime.device)
    training = new_training(setup, params.schedule, None if start_from == TRAIN else start_from, runtime, world)
    curves = Curves(params.schedule.timesteps, lambda name, data: stage.write(METRICS / name, data))
    environment = environment_of(runtime, world)
    follows = setup.follows(params.model, params.train)
    for name, value in follows.items() if stage.writes else ():
        print(f"{name}: {value}, chosen from the data")
    if stage.writes and training.total_steps < FEW_STEPS:
        print(f"note: {training.total_steps} steps are few, expect noise; train.images and train.epochs set the length")
    key = stage.fingerprint(environment)
    with Checkpoints(stage.name, key, world, training=training, curves=curves) as checkpoints:
        run_training("train", training, curves, checkpoints)
        curves.write()
        if stage.writes:
            save_trained(stage.output(MODEL), training, setup, params.schedule, environment)
        stage.write_json(METRICS / "summary.json", summary_of(training, curves, setup, follows))
        stage.write_json(METRICS / "environment.json", environment)
        checkpoints.finish([MODEL])


if __name__ == "__main__":
    run_stage("train", main, role=role())
