"""Train the denoising diffusion model, in one process or in several that torchrun starts."""

from pathlib import Path
from typing import Any

import torch

from ddpm.diffusion.glimpses import png
from ddpm.diffusion.training import environment_of, new_training
from ddpm.images.arrays import contents
from ddpm.images.card import Classes
from ddpm.images.splits import load_split
from ddpm.params.model import ModelParams
from ddpm.params.schedule import ScheduleParams
from ddpm.params.train import TrainParams
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from ddpm.processes.world import join, role
from exact_stages.params import Sections, load_params
from exact_stages.stage import Role, Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/train")
FEW_STEPS = 300


class Params(Sections):
    """The params of this stage."""

    schedule: ScheduleParams
    model: ModelParams
    train: TrainParams


class Sampled(Sections):
    """The classes of the samples that will be scored."""

    classes: Classes


def main(stage: Stage) -> None:
    """Train, or continue an interrupted run; then write the model, its curves and a summary."""
    params = stage.params(Params)
    stage.input(Path(params.train.fine_tune_from))
    split_file = load_split(stage.input(TRAIN))
    split_file.check_tested(params.train.classes, "train.classes")
    # No dependency of this stage: it decides only whether to begin a training whose samples could not be scored.
    split_file.check_tested(load_params(Sampled, "sample").classes, "sample.classes")
    runtime = start()
    world = join(runtime.device)
    environment = environment_of(runtime, world.size)
    key = stage.fingerprint(environment)
    world.check_equal(key)
    training = new_training(split_file, params.schedule, params.model, params.train, runtime, world)
    chosen = training.chosen_params(params.model, params.train)
    if stage.writes:
        for name, value in chosen.items():
            print(f"{name}: {value}, chosen from the data")
        if training.total_steps < FEW_STEPS:
            few = f"{training.total_steps} steps are few, expect noise"
            print(f"note: {few}; train.images_seen and train.epochs set the length")

    def write_curves() -> None:
        for name, table in training.curves.csv().items():
            stage.write(METRICS / name, table)
        if training.glimpses:
            stage.write(METRICS / "samples.png", png(torch.stack(training.glimpses)))

    with Checkpoints(stage.name, key, world, training=training) as checkpoints:
        checkpoints.run("train", training, write_curves)
        if stage.writes and training.step < training.total_steps:
            print(
                f"train: ended after {training.step} of {training.total_steps} steps, since the validation loss had "
                f"its minimum at step {training.kept_step}"
            )
        write_curves()
        if stage.writes:
            training.save(stage.output(MODEL), environment=environment)
            made: dict[str, Any] = {"environment": environment, "resolved": chosen, "trail": training.trail}
            stage.record(MODEL, origins=[TRAIN], contents=contents(MODEL), **made)
        # As text: DVC's tables leave out lists.
        texts = {name: str(value) if isinstance(value, list) else value for name, value in chosen.items()}
        stage.write_json(METRICS / "summary.json", {**training.summary(), "chosen": texts})
        stage.write_json(METRICS / "environment.json", environment)
        checkpoints.save([MODEL])


if __name__ == "__main__":
    run_stage("train", main, role=Role(*role()))
