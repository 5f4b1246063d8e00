"""Compare the chosen arms on the test images, and look for copies among what was drawn."""

from pathlib import Path

import torch

from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.scoring.copying import near_copies, nearness
from ddpm.study.arms import Arm
from ddpm.study.cutting import CutParams
from ddpm.study.learning import LearnParams
from ddpm.study.study import ArmsParams, compare_arms, load_drawn

CUTS = Path("data/cut")
DRAWN = Path("data/rare")
TEST = Path("data/processed/test.safetensors")
METRICS = Path("metrics/rare_confirm")


class Params(Sections):
    """What this stage reads."""

    rare_learn: LearnParams


def main(stage: Stage) -> None:
    """Let the classifiers of every arm learn from the cut, and count what they see in the test images."""
    name, recipe = stage.item, stage.params(Params).rare_learn
    cut, params = stage.params(CutParams, "cut"), stage.params(ArmsParams, "rare_confirm")
    runtime = start()
    train, test = load_split(stage.input(CUTS / name / "train.safetensors")), load_split(stage.input(TEST))
    drawn = load_drawn(stage.input(DRAWN / f"{name}.safetensors"))
    rare = [*cut.counts(name, train.card)]
    by_arm = compare_arms(params.arms, params.seeds, train, drawn, rare, test.split, recipe, runtime)
    few, fresh = train.of(rare), test.of(rare)
    usual = nearness(*fresh, *few)
    for arm, each in by_arm.items():
        if Arm.parse(arm).drawn:
            learned = drawn.chosen(Arm.parse(arm), rare)
            rows = torch.isin(learned.labels, torch.tensor(rare))
            some = bool(rows.any())  # a filter may take none
            each["near_copies"] = near_copies(nearness(*learned.take(rows), *few), usual)._asdict() if some else None
    facts = {"rare": {train.card.classes[label]: label for label in rare}, "arms": by_arm}
    write_json(stage.output(METRICS / f"{name}.json"), facts)


if __name__ == "__main__":
    run_stage("rare_confirm", main, argument="COUNT-SEED")
