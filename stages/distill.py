"""Distil the trained model to one that samples in STEPS evaluations, given on the command line."""

from pathlib import Path
from typing import Any

import pandas as pd

from ddpm.diffusion.denoiser import NotFiniteError
from ddpm.diffusion.distill import Distillation
from ddpm.diffusion.model import LoadedModel, load_model, save_model
from ddpm.diffusion.shards import shards_on_cpu
from ddpm.images.arrays import contents
from ddpm.images.splits import Split, load_split
from ddpm.params.distill import DistillParams
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import Runtime, start
from ddpm.processes.world import ALONE
from exact_stages.console import UserError
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
TEACHER = Path("models/ddpm.safetensors")
MODELS = Path("models")
METRICS = Path("metrics/distill")


class Params(Sections):
    """The params of this stage."""

    distill: DistillParams


def new_distillation(
    teacher: LoadedModel, images: Split, evaluations: int, params: DistillParams, runtime: Runtime
) -> Distillation:
    """Begin to distil a model.

    Raises:
        UserError: the teacher has too few timesteps for the number of evaluations.
    """
    denoiser, draw = teacher.denoiser(runtime), images.to(runtime.device).draw
    length = params.model_dump(exclude={"steps"})
    shards = shards_on_cpu(teacher.card.model.block, params.batch_size) if runtime.device.type == "cpu" else 1
    try:
        return Distillation(denoiser, teacher.schedule, draw, evaluations, shards=shards, **length)
    except ValueError as error:
        raise UserError(f"distill.steps: {error}") from None


def save(path: Path, distillation: Distillation, teacher: LoadedModel, **facts: Any) -> None:
    """Write the model file of the student, with its timesteps; see `save_model` for the facts."""
    kept = {"guides": (), "images_seen": None, "timesteps": distillation.timesteps}
    save_model(path, distillation.model, teacher.card.model_copy(update=kept), **facts)


def main(stage: Stage) -> None:
    """Distil, or continue an interrupted run; then write the model and its curves."""
    params = stage.params(Params).distill
    if stage.item not in map(str, params.steps):
        raise UserError(f"distill.steps: {stage.item} is not in {list(params.steps)}; set [{stage.item}]")
    runtime = start()
    teacher = load_model(stage.input(TEACHER), runtime.device)
    images = load_split(stage.input(TRAIN)).of(teacher.card.classes)
    distillation = new_distillation(teacher, images, int(stage.item), params, runtime)
    environment = runtime.describe()
    folder, path = METRICS / stage.item, MODELS / f"distilled-{stage.item}.safetensors"
    with Checkpoints(stage.name, stage.fingerprint(environment), ALONE, distillation=distillation) as checkpoints:
        try:
            checkpoints.run(f"distill {stage.item}", distillation)
        except NotFiniteError as error:
            raise UserError(f"distill: {error}; train the model again") from None
        table = pd.DataFrame(distillation.rows, columns=["step", "auxiliary", "moments"])
        stage.write(folder / "loss.csv", table.to_csv(index=False, float_format="%.6f").encode())
        stage.write_json(folder / "summary.json", distillation.summary() | {"made_in": runtime.name})
        save(stage.output(path), distillation, teacher, environment=environment)
        stage.record(
            path,
            origins=[TRAIN, TEACHER],
            environment=environment,
            resolved={"timesteps": distillation.timesteps},
            contents=contents(path),
        )
        checkpoints.save([path])


if __name__ == "__main__":
    run_stage("distill", main, argument="STEPS")
