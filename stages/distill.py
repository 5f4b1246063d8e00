"""Distil the trained model to one that draws in as few evaluations as the command line says."""

import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from ddpm.compute.device import start
from ddpm.distillation.moment_matching import Distillation, DistillParams
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import LoadedModel, load_model, save_model
from ddpm.parallel.resume import State, stopping
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.files import write_json, write_whole
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
TEACHER = Path("models/ddpm.safetensors")
MODELS = Path("models")
METRICS = Path("metrics/distill")


class Params(Sections):
    """What this stage reads."""

    distill: DistillParams


def main(stage: Stage) -> None:
    """Distil to the end, then write the model; go on where a run with the very same inputs was cut off."""
    params = stage.params(Params).distill
    if stage.item not in map(str, params.steps):
        raise UserError(f"distill.steps: {list(params.steps)} has no {stage.item}; set [{stage.item}]")
    runtime = start()
    environment = runtime.describe()
    teacher = load_model(stage.input(TEACHER), runtime.device)
    if teacher.card.timesteps:
        raise UserError(f"{TEACHER}: is distilled itself, to {len(teacher.card.timesteps)} evaluations; train one")
    images = load_split(stage.input(TRAIN)).of(teacher.card.classes)
    try:
        distillation = Distillation(teacher, images, int(stage.item), params, runtime)
    except ValueError:
        raise UserError(
            f"distill.steps: {stage.item} of the {teacher.schedule.timesteps} timesteps would not all be different "
            f"around distill.log_snr_center, {params.log_snr_center}; lower the first, or move the other toward 0"
        ) from None
    state = State(f"{stage.name}-{stage.item}", stage.fingerprint(environment, stage.item))  # all inputs are known
    rows: list[list[Any]] = []
    if saved := state.load():
        distillation.load_state(saved.arrays)
        rows = saved.facts["rows"]
        print(f"resuming after step {distillation.step} of {distillation.total_steps}", file=sys.stderr)
    distil(f"distill {stage.item}", distillation, rows, state)
    folder, path = METRICS / stage.item, MODELS / f"distilled-{stage.item}.safetensors"
    table = pd.DataFrame(rows, columns=["step", "auxiliary", "moments"])
    write_whole(stage.output(folder / "loss.csv"), table.to_csv(index=False, float_format="%.6f").encode())
    summary = {
        "timesteps": list(distillation.timesteps),
        "steps": distillation.step,
        "images_seen": distillation.step * params.batch_size,
        "auxiliary": round(rows[-1][1], 6),
        "moments": round(rows[-1][2], 6),
    }
    write_json(stage.output(folder / "summary.json"), summary)
    keep(stage.output(path), distillation, teacher, environment)
    state.finish(distillation.state(), {"rows": rows}, [path])


def distil(name: str, distillation: Distillation, rows: list[list[Any]], state: State) -> None:
    """Run the loop; the state is saved every so often, and when someone asks the process to end."""
    size, total = distillation.params.batch_size, distillation.total_steps
    bar = progress(desc=name, total=total * size, initial=distillation.step * size, unit="img", unit_scale=True)
    with stopping() as stop, bar:
        for event in distillation.run():
            bar.update(size)
            if event:
                if not math.isfinite(event.moments + event.auxiliary):
                    lr, auxiliary_lr = distillation.params.lr, distillation.params.auxiliary_lr
                    raise UserError(
                        f"distill.lr: the losses are {event.moments} and {event.auxiliary} at step {event.step}; "
                        f"try less than {lr}, and than {auxiliary_lr} for distill.auxiliary_lr"
                    )
                rows.append(list(event))
                bar.set_postfix(moments=f"{event.moments:.5f}", refresh=False)
            if stop.requested or state.due():
                state.save(distillation.state(), {"rows": rows})
            if stop.requested:
                raise UserError(f"interrupted after step {distillation.step}; the next `dvc repro` goes on from there")


def keep(path: Path, distillation: Distillation, teacher: LoadedModel, environment: dict[str, Any]) -> None:
    """Write the student, with the timesteps that it draws by."""
    save_model(
        path,
        distillation.model,
        teacher.schedule,
        teacher.card.class_counts,
        timesteps=distillation.timesteps,
        environment=environment,
    )


if __name__ == "__main__":
    run_stage("distill", main, argument="STEPS")
