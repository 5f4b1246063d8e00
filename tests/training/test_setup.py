"""From preprocessed images and params to a training that is about to begin."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.compute.device import Runtime
from ddpm.images.card import DataCard, Shape
from ddpm.images.splits import Processed, Split, Subset, held_out_mask
from ddpm.model import new_network, save_model
from ddpm.parallel.world import ALONE, World
from ddpm.train import Setup, check_world, new_training, prepare
from exact_stages.console import UserError
from tests.networks.random_weights import randomised
from tests.small import CPU, FRUITS, images, unet_params
from tests.training.trainings import SCHEDULE, assert_equal_weights, recipe

MODEL = unet_params(channels=(4, 6), class_conditional=True)
MORE = FRUITS.model_copy(update={"classes": ("apple", "fig", "pear", "leek", "plum")})
MPS = Runtime(torch.device("mps"), torch.float32)


def fruits(count: int = 90, card: DataCard = FRUITS) -> Processed:
    """As many apples, figs and pears, in turn, of which each is the near-duplicate of one beside it."""
    numbers = torch.arange(count)
    levels = images(count, card.shape)
    levels[:, 0, 8, 0] = numbers.to(torch.uint8)  # tells which it is
    return Processed(card, Split(levels, numbers % 3), numbers // 6 * 6 + numbers % 3, (6,) * len(card.classes))


def setup_of(**changes: Any) -> Setup:
    return prepare(fruits(), MODEL, recipe(**{"validation": 0.2, **changes}))


def numbers(images: Split | Subset) -> list[int]:
    rows = torch.arange(len(images.labels))
    return images.batch(rows, CPU.device).images[:, 0, 8, 0].tolist()


def test_all_images_are_trained_on_but_those_held_out() -> None:
    processed, setup = fruits(), setup_of(seed=3)
    mask = held_out_mask(processed.split, processed.groups, 0.2, 3)
    assert 5 < mask.sum() < 40
    assert torch.equal(mask, mask[processed.groups]), "near-duplicates together"
    assert numbers(setup.held_out) == mask.nonzero().flatten().tolist()
    assert numbers(setup.images) == (~mask).nonzero().flatten().tolist()
    assert torch.equal(setup.images.labels, processed.split.labels[~mask])
    assert setup.class_counts == (30, 30, 30), "held-out ones included"


def test_the_images_of_the_chosen_classes_are_trained_on_and_held_out_as_among_all() -> None:
    everything, some = setup_of(), setup_of(classes=["pear", "apple"])
    assert some.class_counts == (30, 0, 30)
    for found, among in ((some.held_out, everything.held_out), (some.images, everything.images)):
        assert numbers(found) == [each for each in numbers(among) if each % 3 != 1]
        assert found.labels.unique().tolist() == [0, 2]


def test_what_is_not_set_follows_from_the_images_and_what_is_set_is_kept() -> None:
    model, asked = unet_params(channels=None, patch_size=None), recipe(images=330, epochs=200, validation=None)
    setup = prepare(fruits(), model, asked)
    assert setup.follows(model, asked) == {
        "model.channels": [64, 128],
        "model.patch_size": 1,
        "train.epochs": 330 / 90,
        "train.validation": 0.1,
    }
    assert prepare(fruits(), MODEL, recipe()).follows(MODEL, recipe()) == {}
    assert setup_of(images=330, epochs=200, classes=["fig"]).train.epochs == 11


def test_the_length_is_in_images_up_to_a_number_of_epochs() -> None:
    for seen, epochs, count, expected in (
        (330_000, 200, 60_000, 5.5),
        (330_000, 200, 1650, 200),
        (330_000, 3, 60_000, 3),
        (None, 200, 12, 200),
    ):
        assert recipe(images=seen, epochs=epochs).for_images(count, (1, 28, 28)).epochs == expected


@pytest.mark.parametrize(
    ("given", "count", "share"),
    [(None, 60_000, 0.02), (None, 9_999, 200 / 9_999), (None, 1_999, 0.1), (0, 12, 0), (0.5, 60_000, 0.5)],
)
def test_the_share_held_out_is_some_200_images_within_bounds_or_what_is_set(
    given: float | None, count: int, share: float
) -> None:
    assert recipe(validation=given).for_images(count, (1, 28, 28)).validation == share


@pytest.mark.parametrize(
    ("given", "shape", "count"),
    [
        (None, (1, 28, 28), 2048),
        (None, (3, 64, 64), 130),
        (None, (3, 1024, 1024), 0),
        (0, (1, 28, 28), 0),
        (9, (3, 1024, 1024), 9),
    ],
)
def test_large_images_have_fewer_target_images(given: int | None, shape: Shape, count: int) -> None:
    assert recipe(target_images=given).for_images(60_000, shape).target_images == count


@pytest.mark.parametrize(("count", "most", "size"), [(90, 64, 45), (90, 44, 44), (9, 64, 9)])
def test_batches_leave_few_images_out(count: int, most: int, size: int) -> None:
    asked = recipe(batch_size=most)
    setup = prepare(fruits(count), MODEL, asked)
    assert setup.follows(MODEL, asked) == ({} if size == most else {"train.batch_size": size})
    assert new_training(setup, SCHEDULE.params, None, CPU).steps_per_epoch == count // size


@pytest.mark.parametrize(
    ("processed", "model", "changes", "key"),
    [
        (fruits(), MODEL, {"classes": ["fig", "melon"]}, "train.classes"),
        (fruits(card=MORE), MODEL, {}, "train.classes: .* leek, plum"),
        (fruits(), unet_params(channels=(4, 4, 4)), {}, "model.channels"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(
    processed: Processed, model: Any, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(UserError, match=f"^{key}"):
        prepare(processed, model, recipe(**changes))


def test_classes_with_too_few_test_images_are_refused_by_their_key() -> None:
    processed = fruits()._replace(test_counts=(3, 5, 6))
    names = processed.card.classes
    with pytest.raises(UserError, match=r"^sample\.population\.classes: .* 5 test images"):
        processed.check_tested([names[1]], "sample.population.classes")
    for enough in ([names[2]], names[:2], []):
        processed.check_tested(enough, "train.classes")


@pytest.mark.parametrize(
    ("block", "world", "runtime", "parts", "key"),
    [
        ("residual", World(0, 5), CPU, "1", "train.batch_size"),
        ("residual", World(0, 2), MPS, "1", "DDPM_LAUNCH"),
        ("double_conv", World(0, 2), CPU, "1", "model.block"),
        ("double_conv", ALONE, CPU, "2", "model.block"),
        ("double_conv", ALONE, CPU, "1", ""),
        ("residual", World(0, 4), CPU, "8", ""),
    ],
)
def test_processes_and_micro_batches_must_be_able_to_share_a_batch(
    block: str, world: World, runtime: Runtime, parts: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDPM_ACCUMULATE", parts)
    setup = setup_of()
    setup = setup._replace(model=setup.model.model_copy(update={"block": block}))
    if not key:
        check_world(setup, runtime, world)
        return
    with pytest.raises(UserError, match=f"^{key}: "):
        check_world(setup, runtime, world)


def test_first_weights_are_the_seed_s_or_those_of_a_model_file(tmp_path: Path) -> None:
    first, again, other = (new_training(setup_of(seed=seed), SCHEDULE.params, None, CPU) for seed in (0, 0, 1))
    assert_equal_weights(first.network, again.network)
    assert not torch.equal(first.network.time_mlp[0].weight, other.network.time_mlp[0].weight)  # type: ignore[index]
    start = randomised(new_network(MODEL, FRUITS, SCHEDULE.params))
    save_model(tmp_path / "start", start, FRUITS, SCHEDULE, (1, 1, 1))
    training = new_training(setup_of(), SCHEDULE.params, tmp_path / "start", CPU)
    assert_equal_weights(training.network, start)
    assert_equal_weights(training.model, start)
