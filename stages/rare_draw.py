"""Draw images of every class by the model of a cut train file, and let a classifier of the same images judge them."""

from pathlib import Path
from typing import Annotated

import torch
from ddpm.parallel.resume import stopping
from pydantic import Field

from ddpm.balancing.drawing import SPAN, Candidates, draw_class
from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import load_model
from ddpm.pictures.grids import rare_picture
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.files import write_json, write_whole
from ddpm.pipeline.params import Section, Sections, parse
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.sampling.drawing import check_sampler
from ddpm.sampling.samplers import SamplerParams
from ddpm.study.arms import Arm, Drawn
from ddpm.study.cutting import CutParams
from ddpm.study.learning import LearnParams, learn
from ddpm.study.study import RealArmName, Seed, named, save_drawn

CUTS = Path("data/cut")
MODELS = Path("models/rare")
DRAWN = Path("data/rare")
METRICS = Path("metrics/rare_draw")


class RareDrawParams(Section):
    """How many images, and the arm by which the classifier that filters them has learned."""

    rare: Annotated[int, Field(ge=1, le=SPAN)]
    frequent: Annotated[int, Field(ge=1, le=SPAN)]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    guidance: Annotated[float, Field(ge=0, le=1000)]
    filter: RealArmName
    seed: Seed

    def sampler(self) -> SamplerParams:
        """The way to draw, which is that of `sample.population` by default in all else."""
        as_population = {
            "sampler": "dpmpp_2m",
            "spacing": None,
            "variance": "posterior",
            "eta": 1.0,
            "clip": True,
            "guide": "early",
            "guidance_interval": [-4.0, 2.0],
            "classes": "all",
        }
        return parse(SamplerParams, {**as_population, "steps": self.steps, "guidance": self.guidance}, "rare_draw")


class Params(Sections):
    """What this stage reads."""

    rare_learn: LearnParams
    rare_draw: RareDrawParams


def main(stage: Stage) -> None:
    """Learn to filter, draw, and write what was drawn, and what the filter takes."""
    params, cut, name = stage.params(Params), stage.params(CutParams, "cut"), stage.item
    runtime = start()
    processed = load_split(stage.input(CUTS / name / "train.safetensors"))
    loaded = load_model(stage.input(MODELS / f"{name}.safetensors"), runtime.device)
    card, draw, filtering = processed.card, params.rare_draw, Arm.parse(params.rare_draw.filter)
    rare, sampler = [*cut.counts(name, card)], draw.sampler()
    judge = learn("filter", processed.split, None, rare, filtering, card, params.rare_learn, draw.seed, runtime)
    counts = {label: draw.rare if label in rare else draw.frequent for label in range(len(card.classes))}
    try:
        steps = check_sampler(loaded, sampler)
    except UserError as error:
        raise UserError(f"rare_draw.{error}") from None
    with (
        stopping() as stop,
        progress(desc=stage.name, total=steps * sum(counts.values()), unit="eval", unit_scale=True) as bar,
    ):

        def after_step(images: int) -> None:
            bar.update(images)
            if stop.requested:
                raise UserError(f"{stage.name}: interrupted; the next `dvc repro` begins it anew")

        drawn = {
            label: draw_class(loaded, judge, sampler, label, draw.seed, 0, count, runtime, after_step)
            for label, count in counts.items()
        }
    taken = {label: each.taken(label) for label, each in drawn.items()}
    images = Drawn(
        torch.cat([each.images for each in drawn.values()]),
        torch.cat([torch.full_like(each.numbers, label) for label, each in drawn.items()]),
        torch.cat([*taken.values()]),
    )
    numbers = torch.cat([each.numbers for each in drawn.values()])
    save_drawn(stage.output(DRAWN / f"{name}.safetensors"), images, numbers, processed)
    shares = {label: round(float(each.double().mean()), 4) for label, each in taken.items()}
    write_json(stage.output(METRICS / f"{name}.json"), {"taken": named(shares, processed)})
    rows = [(processed.of([label]).images, _of(drawn[label], taken[label])) for label in rare]
    write_whole(stage.output(METRICS / f"{name}.png"), rare_picture(rows, [card.classes[label] for label in rare]))


def _of(drawn: Candidates, taken: torch.Tensor) -> torch.Tensor:
    """The images that are taken, or all where none is."""
    return drawn.images[taken] if taken.any() else drawn.images


if __name__ == "__main__":
    run_stage("rare_draw", main, argument="COUNT-SEED")
