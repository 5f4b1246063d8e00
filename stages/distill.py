"""Distil the trained model to one that samples in STEPS evaluations, given on the command line."""

from pathlib import Path

from ddpm.compute.device import start
from ddpm.compute.world import ALONE
from ddpm.distill import Distillation, DistillParams
from ddpm.images.arrays import contents
from ddpm.images.splits import load_split
from ddpm.model import load_model
from ddpm.parallel.checkpoints import Checkpoints
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


def main(stage: Stage) -> None:
    """Distil, or continue an interrupted run; then write the model and its curves."""
    params = stage.params(Params).distill
    if stage.item not in map(str, params.steps):
        raise UserError(f"distill.steps: {stage.item} is not in {list(params.steps)}; set [{stage.item}]")
    runtime = start()
    teacher = load_model(stage.input(TEACHER), runtime.device)
    images = load_split(stage.input(TRAIN)).of(teacher.card.classes)
    distillation = Distillation(teacher, images, int(stage.item), params, runtime)
    environment = runtime.describe()
    folder, path = METRICS / stage.item, MODELS / f"distilled-{stage.item}.safetensors"
    with Checkpoints(stage.name, stage.fingerprint(environment), ALONE, distillation=distillation) as checkpoints:
        checkpoints.run(f"distill {stage.item}", distillation)
        stage.write(folder / "loss.csv", distillation.csv())
        stage.write_json(folder / "summary.json", distillation.summary())
        distillation.save(stage.output(path), environment=environment)
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
