"""What is computed in shards has the same bytes in one, two and three processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.bits import bits_per_dimension
from ddpm.images.splits import Split
from ddpm.processes import workers
from ddpm.scores import c2st
from ddpm.scores.c2st import run_c2st
from ddpm.scores.classifier import Classifier, features_and_logits
from ddpm.scores.copying import nearest_neighbours, nearness
from ddpm.scores.fit import fit_classifiers
from tests.reverse import tiny_model
from tests.small import CPU, DIGITS, images, levels
from tests.stages.written import classifier_params
from tests.trainings import assert_equal


def small(count: int, seed: int) -> Tensor:
    return levels(count, (1, 8, 8), seed)


def of_features(_: Path) -> object:
    torch.manual_seed(0)
    return features_and_logits(Classifier(classifier_params(), DIGITS), levels(3000), CPU.device)


def of_neighbours(_: Path) -> object:
    return nearest_neighbours(small(4100, 0), small(900, 1))


def of_nearness(_: Path) -> object:
    return nearness([small(900, 0), small(900, 2)], torch.arange(900) % 3, small(700, 1), torch.arange(700) % 4)


def of_classifiers(_: Path) -> object:
    train = Split(levels(40), torch.arange(40) % 10)
    recipes = [classifier_params(images_seen=40 * (4 - seed), epochs=3, batch_size=20, seed=seed) for seed in range(3)]
    found = fit_classifiers("fit", [(train, recipe) for recipe in recipes], DIGITS, CPU)
    return [each.state_dict() for each in found]


def of_c2sts(_: Path) -> object:
    pairs = [(small(100, seed), small(100, seed + 9)) for seed in range(3)]
    return [*workers.map_shards(lambda index: run_c2st(*pairs[index], "a", 0, CPU), range(3))]


def of_likelihood(folder: Path) -> object:
    splits = {name: Split(images(count), torch.arange(count) % 10) for name, count in (("train", 250), ("test", 230))}
    return bits_per_dimension(tiny_model(folder), splits, 210, CPU.device)


@pytest.mark.parametrize("compute", [of_features, of_neighbours, of_nearness, of_classifiers, of_c2sts, of_likelihood])
def test_the_bytes_do_not_depend_on_the_workers(
    compute: Callable[[Path], Any], allowed: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c2st, "STEPS", 5)
    alone, forked, begun = compute(tmp_path), workers._forked, list[int]()
    monkeypatch.setattr(workers, "_forked", lambda size, work: begun.append(size) or forked(size, work))
    for size in (2, 3):
        allowed(size)
        assert_equal(compute(tmp_path), alone)
        assert max(begun) == size, "so many work"
