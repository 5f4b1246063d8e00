"""Compare arms on what a cut has left out of the training images: by this the best are chosen."""

from pathlib import Path

from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.study.cutting import CutParams
from ddpm.study.learning import LearnParams
from ddpm.study.study import ArmsParams, compare_arms, load_drawn

CUTS = Path("data/cut")
DRAWN = Path("data/rare")
METRICS = Path("metrics/rare_choose")


class Params(Sections):
    """What this stage reads."""

    rare_learn: LearnParams


def main(stage: Stage) -> None:
    """Let the classifiers of every arm learn from the cut, and count what they see in what was left out."""
    name, recipe = stage.item, stage.params(Params).rare_learn
    cut, params = stage.params(CutParams, "cut"), stage.params(ArmsParams, "rare_choose")
    runtime = start()
    train, left_out = (load_split(stage.input(CUTS / name / f"{part}.safetensors")) for part in ("train", "left_out"))
    drawn = load_drawn(stage.input(DRAWN / f"{name}.safetensors"))
    rare = [*cut.counts(name, train.card)]
    by_arm = compare_arms(params.arms, params.seeds, train, drawn, rare, left_out.split, recipe, runtime)
    facts = {"rare": {train.card.classes[label]: label for label in rare}, "arms": by_arm}
    write_json(stage.output(METRICS / f"{name}.json"), facts)


if __name__ == "__main__":
    run_stage("rare_choose", main, argument="COUNT-SEED")
