"""Train a diffusion model on a cut train file: as the stage train, but shorter, and with rare classes more often."""

import sys
from pathlib import Path
from typing import Annotated, Self

from ddpm.parallel.resume import State
from pydantic import Field, model_validator

from ddpm.compute.device import start
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import check_times
from ddpm.networks.unet import UNetParams
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.training.curves import Curves
from ddpm.training.recipe import TrainParams
from ddpm.training.running import run_training, save_trained
from ddpm.training.setup import new_training, prepare
from ddpm.training.step import wanted_parts, with_parts

CUTS = Path("data/cut")
MODELS = Path("models/rare")
METRICS = Path("metrics/rare_train")


class RareTrainParams(Section):
    """What differs from `train`; `train.start` does not count, either."""

    images: Annotated[int, Field(ge=1, le=10**12)]
    class_balance: Annotated[float, Field(ge=0, le=1)]


class Params(Sections):
    """What this stage reads."""

    schedule: ScheduleParams
    model: UNetParams
    train: TrainParams
    rare_train: RareTrainParams

    @model_validator(mode="after")
    def _small(self) -> Self:
        check_times(self.model, self.schedule)
        return self


def main(stage: Stage) -> None:
    """Train to the end, then write the model; go on where a run with the very same inputs was cut off."""
    params, name = stage.params(Params), stage.item
    runtime = start()
    environment = with_parts(runtime.describe(), wanted_parts())
    processed = load_split(stage.input(CUTS / name / "train.safetensors"))
    state = State(stage.name, stage.fingerprint(environment))
    recipe = params.train.model_copy(update=dict(params.rare_train))
    setup = prepare(processed, params.model, recipe)
    training = new_training(setup, params.schedule, None, runtime)
    saved = state.load()
    curves = Curves(params.schedule.timesteps, saved.facts["curves"] if saved else None)
    if saved:
        training.load_state(saved.arrays)
        print(f"resuming after step {training.step} of {training.total_steps}", file=sys.stderr)
    run_training(f"train on {name}", training, curves, state, lambda: None)
    path = stage.output(MODELS / f"{name}.safetensors")
    save_trained(path, training, setup, params.schedule, with_parts(environment, training.gradient_step.parts))
    kept = training.validation.kept
    facts = {"steps": training.step, "kept_step": kept.step if kept else training.step}
    write_json(stage.output(METRICS / f"{name}.json"), {**curves.last, **facts})
    state.finish(training.state(), {"curves": curves.facts}, [path])


if __name__ == "__main__":
    run_stage("rare_train", main, argument="COUNT-SEED")
