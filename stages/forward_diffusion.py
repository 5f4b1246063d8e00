"""Show the forward diffusion: a strip of images with growing noise, and curves of the schedule."""

from pathlib import Path

from ddpm.images.splits import load_split
from ddpm.pictures.forward import ForwardDiffusionParams, forward_strip, schedule_table
from ddpm.schedule import NoiseSchedule, ScheduleParams
from exact_stages.console import UserError
from exact_stages.files import write_whole
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
METRICS = Path("metrics/forward_diffusion")


class Params(Sections):
    """The params of this stage."""

    schedule: ScheduleParams
    forward_diffusion: ForwardDiffusionParams


def main(stage: Stage) -> None:
    """Write the strip and the table of the schedule."""
    params = stage.params(Params)
    late = [t for t in params.forward_diffusion.timesteps if t >= params.schedule.timesteps]
    if late:
        raise UserError(
            f"forward_diffusion.timesteps: {late} must be below schedule.timesteps, {params.schedule.timesteps}"
        )
    schedule = NoiseSchedule(params.schedule)
    split = load_split(stage.input(TRAIN)).split
    strip = forward_strip(split.images, schedule, params.forward_diffusion)
    write_whole(stage.output(METRICS / "strip.png"), strip)
    write_whole(stage.output(METRICS / "schedule.csv"), schedule_table(schedule).encode())


if __name__ == "__main__":
    run_stage("forward_diffusion", main)
