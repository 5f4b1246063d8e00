"""Run a distillation to its end: progress bar, checkpoints, and the model file."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from ddpm.compute.device import Runtime
from ddpm.distillation.moment_matching import Distillation, DistillParams
from ddpm.images.splits import Split
from ddpm.networks.checkpoint import LoadedModel, save_model
from ddpm.parallel.checkpoints import Checkpoints
from exact_stages.console import UserError, progress

COLUMNS = ["step", "auxiliary", "moments"]


def new_distillation(
    teacher: LoadedModel, images: Split, evaluations: int, params: DistillParams, runtime: Runtime
) -> Distillation:
    """Set up a distillation to a number of evaluations.

    Raises:
        UserError: the teacher has too few timesteps.
    """
    try:
        return Distillation(teacher, images, evaluations, params, runtime)
    except ValueError:
        raise UserError(
            f"distill.steps: {evaluations} of the {teacher.schedule.timesteps} timesteps would repeat one, with "
            f"distill.log_snr_center {params.log_snr_center}; lower distill.steps, or move the center toward 0"
        ) from None


def run_distillation(name: str, distillation: Distillation, checkpoints: Checkpoints) -> None:
    """Distil to the end, with a progress bar called `name`, and save checkpoints when they are due.

    Raises:
        UserError: a loss is not finite; or the run was interrupted.
    """
    size, total, params = distillation.params.batch_size, distillation.total_steps, distillation.params
    with progress(desc=name, total=total * size, initial=distillation.step * size, unit="img", unit_scale=True) as bar:
        for event in distillation.run():
            bar.update(size)
            if event:
                if not math.isfinite(event.moments + event.auxiliary):
                    raise UserError(
                        f"distill.lr: the losses are {event.moments} and {event.auxiliary} at step {event.step}; "
                        f"try less than {params.lr}, and distill.auxiliary_lr less than {params.auxiliary_lr}"
                    )
                bar.set_postfix(moments=f"{event.moments:.5f}", refresh=False)
            checkpoints.tick()


def curve_of(distillation: Distillation) -> bytes:
    """Return the losses as csv."""
    table = pd.DataFrame(distillation.rows, columns=COLUMNS)
    return str(table.to_csv(index=False, float_format="%.6f")).encode()


def summary_of(distillation: Distillation) -> dict[str, Any]:
    """Summarise a finished distillation."""
    _, auxiliary, moments = distillation.rows[-1]
    return {
        "timesteps": list(distillation.timesteps),
        "steps": distillation.step,
        "images_seen": distillation.step * distillation.params.batch_size,
        "auxiliary": round(auxiliary, 6),
        "moments": round(moments, 6),
    }


def save_distilled(path: Path, distillation: Distillation, teacher: LoadedModel, environment: dict[str, Any]) -> None:
    """Write the model file of the student, with the timesteps that it samples at."""
    save_model(
        path,
        distillation.model,
        teacher.card.data,
        teacher.schedule,
        teacher.card.class_counts,
        timesteps=distillation.timesteps,
        environment=environment,
    )
