"""Show the forward diffusion: a strip of images with growing noise, and curves of the schedule."""

from pathlib import Path

from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.images.splits import load_split
from ddpm.params.schedule import ScheduleParams
from ddpm.pictures.forward import forward_strip, schedule_table
from exact_stages.files import write_whole
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

TRAIN = Path("data/processed/train.safetensors")
METRICS = Path("metrics/forward_diffusion")


class Params(Sections):
    """The params of this stage."""

    schedule: ScheduleParams


def main(stage: Stage) -> None:
    """Write the strip and the table of the schedule."""
    schedule = NoiseSchedule(linear_betas(**dict(stage.params(Params).schedule)))
    images = load_split(stage.input(TRAIN)).split.images
    write_whole(stage.output(METRICS / "strip.png"), forward_strip(images, schedule))
    write_whole(stage.output(METRICS / "schedule.csv"), schedule_table(schedule).encode())


if __name__ == "__main__":
    run_stage("forward_diffusion", main)
