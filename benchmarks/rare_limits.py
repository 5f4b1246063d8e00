"""What a perfect generator would give a rare class: further real images in the place of drawn ones.

    python -m benchmarks.rare_limits --cut 50-5

It needs the processed images (`dvc repro preprocess`), and takes some two minutes. One line for each arm.
"""

import argparse
from pathlib import Path

import torch

from ddpm.compute.device import start
from ddpm.images.splits import Split, load_split
from ddpm.pipeline.console import run
from ddpm.pipeline.params import load_params
from ddpm.study.arms import Arm, Drawn
from ddpm.study.cutting import CutParams, cut, seed_of
from ddpm.study.learning import LearnParams, confusion, learn, measures

TRAIN = Path("data/processed/train.safetensors")
FURTHER, SEEDS = 1000, (0, 1, 2)
ARMS = ("oversample+augment", "oversample+augment+drawn+halved", "oversample+augment+drawn")


def main() -> None:
    """Learn from the few, and from the few beside further real images; test on images that neither has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cut", default="50-5", help="count of each rare class, and seed")
    name = parser.parse_args().cut
    params, recipe = load_params(CutParams, "cut"), load_params(LearnParams, "rare_learn")
    runtime, processed = start(), load_split(TRAIN)
    counts = params.counts(name, processed.card)
    few, more = (
        cut(processed, {label: count + added for label, count in counts.items()}, params.spare, seed_of(name))
        for added in (0, FURTHER)
    )
    own = {image.numpy().tobytes() for image in few.kept.of([*counts]).images}
    rare = more.kept.of([*counts])
    further: Split = rare.take(torch.tensor([image.numpy().tobytes() not in own for image in rare.images]))
    stand_ins = Drawn(*further, torch.ones(len(further.labels), dtype=torch.bool))
    for arm in ARMS:
        found = []
        for seed in SEEDS:
            train, card = few.kept.split, processed.card
            model = learn(
                f"{arm}, seed {seed}", train, stand_ins, [*counts], Arm.parse(arm), card, recipe, seed, runtime
            )
            found.append(measures(confusion(model, *more.left_out.split, runtime.device), [*counts]).rare_f1)
        print(f"{arm}: F1 {sum(found) / len(found):.4f} ({', '.join(f'{each:.4f}' for each in found)})", flush=True)


if __name__ == "__main__":
    run(main)
