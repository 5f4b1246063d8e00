"""The oracle of the study of rare classes: the same classifier, learned from all training images."""

from pathlib import Path

from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.study.arms import Arm
from ddpm.study.learning import LearnParams, confusion, learn
from ddpm.study.study import RealArmName

PROCESSED = Path("data/processed")
METRICS = Path("metrics/rare_oracle")


class RareOracleParams(Sections):
    """The arm by which it learns; nothing is rare."""

    arm: RealArmName


class Params(Sections):
    """What this stage reads."""

    rare_learn: LearnParams


def main(stage: Stage) -> None:
    """Learn from all training images, and count what it sees in the test images."""
    recipe, params = stage.params(Params).rare_learn, stage.params(RareOracleParams, "rare_oracle")
    runtime = start()
    train, test = (load_split(stage.input(PROCESSED / f"{split}.safetensors")) for split in ("train", "test"))
    if not (stage.item.isascii() and stage.item.isdecimal() and int(stage.item[:20]) < 2**63):
        raise UserError(f"rare_oracle.seeds: {stage.item} is no seed; set [0]")
    arm, seed = Arm.parse(params.arm), int(stage.item)
    model = learn(f"oracle {seed}", train.split, None, [], arm, train.card, recipe, seed, runtime)
    found = confusion(model, *test.split, runtime.device)
    write_json(stage.output(METRICS / f"{seed}.json"), {"confusions": [found.tolist()]})


if __name__ == "__main__":
    run_stage("rare_oracle", main, argument="SEED")
