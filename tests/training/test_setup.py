"""From preprocessed images and params to a training that is about to begin."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.splits import Processed, Split, Subset, held_out_mask
from ddpm.networks.checkpoint import save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.console import UserError
from ddpm.training.loop import Logged
from ddpm.training.recipe import TrainParams
from ddpm.training.setup import Setup, new_training, prepare
from tests.networks.random_weights import randomised
from tests.small import FRUITS, images, unet_params
from tests.training.trainings import CPU, RECIPE, SCHEDULE, assert_equal_weights

MODEL = unet_params(channels=(4, 6), class_conditional=True)


def fruits(count: int = 90, card: DataCard = FRUITS, groups: Tensor | None = None) -> Processed:
    """As many of each class, in turn."""
    levels = images(count, card.shape)
    levels[:, 0, 8, 0] = torch.arange(count, dtype=torch.uint8)  # tells which it is
    labels = torch.arange(count) % len(card.classes)
    groups = torch.arange(count) if groups is None else groups
    return Processed(card, Split(levels, labels), groups, (6,) * len(card.classes))


def train(**changes: object) -> TrainParams:
    return TrainParams.model_validate({**RECIPE, **changes})


def numbers(images: Split | Subset) -> list[int]:
    split = images if isinstance(images, Split) else images.split.take(images.rows)
    return split.images[:, 0, 8, 0].tolist()


def refusal(processed: Processed, **changes: object) -> str:
    with pytest.raises(UserError) as caught:
        prepare(processed, MODEL, train(**changes))
    return str(caught.value)


def test_all_images_are_trained_on_but_those_held_out() -> None:
    processed = fruits()
    setup = prepare(processed, MODEL, train(validation=0.2, seed=3))
    mask = held_out_mask(processed.split.images, processed.groups, 0.2, 3)
    assert 5 < mask.sum() < 40
    assert numbers(setup.held_out) == mask.nonzero().flatten().tolist()
    assert numbers(setup.images) == (~mask).nonzero().flatten().tolist()
    assert torch.equal(setup.images.labels, processed.split.labels[~mask])
    assert setup.card == FRUITS
    assert setup.class_counts == (30, 30, 30), "held-out ones included"


def test_the_images_of_the_chosen_classes_are_trained_on_and_held_out_as_among_all() -> None:
    processed = fruits()
    everything = prepare(processed, MODEL, train(validation=0.2))
    some = prepare(processed, MODEL, train(validation=0.2, classes=["pear", "apple"]))
    assert some.class_counts == (30, 0, 30)
    assert numbers(some.held_out) == [each for each in numbers(everything.held_out) if each % 3 != 1]
    assert numbers(some.images) == [each for each in numbers(everything.images) if each % 3 != 1]
    assert some.images.labels.unique().tolist() == [0, 2]


def test_twins_are_held_out_together() -> None:
    groups = torch.arange(90) // 6 * 6  # six after one another
    setup = prepare(fruits(groups=groups), MODEL, train(validation=0.3))
    held_out = torch.isin(torch.arange(90), torch.tensor(numbers(setup.held_out)))
    assert held_out.view(15, 6).sum(1).unique().tolist() == [0, 6]


def test_what_is_not_set_follows_from_the_images() -> None:
    model, recipe = unet_params(channels=None, patch_size=None), train(images=330, epochs=200, validation=None)
    setup = prepare(fruits(), model, recipe)
    assert setup.model == model.for_images(FRUITS.shape)
    assert setup.train == recipe.for_images(90)
    assert setup.follows(model, recipe) == {
        "model.channels": [64, 128],
        "model.patch_size": 1,
        "train.epochs": 330 / 90,
        "train.validation": 0.1,
    }


def test_the_length_follows_from_the_images_of_the_chosen_classes() -> None:
    setup = prepare(fruits(), MODEL, train(images=330, epochs=200, classes=["fig"], validation=0.1))
    assert setup.train.epochs == 11


def test_what_is_set_is_not_said_to_follow() -> None:
    recipe = train(validation=0.1, batch_size=4)
    setup = prepare(fruits(), MODEL, recipe)
    assert setup.follows(MODEL, recipe) == {}
    assert (setup.model, setup.train) == (MODEL, recipe)


def test_a_batch_has_no_more_images_than_there_are() -> None:
    recipe = train(batch_size=64, validation=0.2)
    setup = prepare(fruits(24), MODEL, recipe)
    assert setup.train.batch_size == len(setup.images.labels) < 24
    assert setup.follows(MODEL, recipe) == {"train.batch_size": setup.train.batch_size}
    training = new_training(setup, SCHEDULE.params, None, CPU)
    assert training.steps_per_epoch == 1


@pytest.mark.parametrize(("count", "most", "size"), [(90, 64, 45), (90, 44, 44), (90, 50, 45), (90, 40, 30), (9, 6, 3)])
def test_batches_that_would_leave_many_images_out_are_smaller(count: int, most: int, size: int) -> None:
    recipe = train(batch_size=most)
    setup = prepare(fruits(count), MODEL, recipe)
    assert setup.train.batch_size == size
    assert setup.follows(MODEL, recipe) == ({} if size == most else {"train.batch_size": size})
    assert new_training(setup, SCHEDULE.params, None, CPU).steps_per_epoch == count // size


def test_classes_with_too_few_test_images_to_score_are_refused() -> None:
    processed = fruits()._replace(test_counts=(3, 5, 0))
    assert prepare(processed, MODEL, train()).class_counts == (30, 30, 30)
    assert prepare(processed, MODEL, train(classes=["apple", "fig"])).class_counts == (30, 30, 0)
    says = "train.classes: there are {} test images of these, and the scores need 6"
    assert refusal(processed, classes=["fig"]) == says.format(5)
    assert refusal(processed, classes=["apple", "pear"]) == says.format(3)
    processed = processed._replace(test_counts=(3, 6, 0))
    assert prepare(processed, MODEL, train(classes=["fig"])).class_counts == (0, 30, 0)


def test_an_unknown_class_is_refused() -> None:
    says = "train.classes: no class is named plum; choose from apple, fig, pear"
    assert refusal(fruits(), classes=["fig", "plum"]) == says


def test_classes_without_images_are_named() -> None:
    card = FRUITS.model_copy(update={"classes": ("apple", "fig", "pear", "leek", "plum")})
    processed = fruits()._replace(card=card, test_counts=(6,) * 5)
    says = "train.classes: there are no training images of leek, plum; leave it out"
    assert refusal(processed, classes="all") == says
    assert refusal(processed, classes=["plum", "fig"]).startswith(
        "train.classes: there are no training images of plum;"
    )
    assert prepare(processed, MODEL, train(classes=["fig"])).class_counts == (0, 30, 0, 0, 0)


def test_classes_of_which_all_are_held_out_are_named() -> None:
    """Both pictures of figs are twins of one that is held out."""
    processed = fruits(6)
    seed = next(
        seed
        for seed in range(1000)
        if held_out_mask(processed.split.images, processed.groups, 0.5, seed).tolist()[:2] == [False, True]
    )
    groups = torch.tensor([0, 1, 0, 0, 1, 0])
    says = "train.validation: 0.5 holds out all images of fig; lower it"
    assert refusal(processed._replace(groups=groups), validation=0.5, seed=seed) == says


def test_a_network_that_cannot_take_the_images_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^model\.channels: 3 of them, with model\.patch_size 4, shrink images by 16, "
    ):
        prepare(fruits(), unet_params(channels=(4, 4, 4)), train())


def setup_of(**changes: Any) -> Setup:
    return prepare(fruits(), MODEL, train(validation=0.2, **changes))


def test_first_weights_are_the_seed_s() -> None:
    first, again, other = (new_training(setup_of(seed=seed), SCHEDULE.params, None, CPU) for seed in (0, 0, 1))
    assert_equal_weights(first.network, again.network)
    assert not torch.equal(first.network.time_mlp[0].weight, other.network.time_mlp[0].weight)  # type: ignore[index]
    torch.manual_seed(0)
    assert_equal_weights(first.network, UNet(MODEL, SCHEDULE, FRUITS))


def test_a_training_overfits_one_image_in_colour() -> None:
    processed = fruits(20)
    one = (processed.split.images[:1] // 128 * 255).expand(20, -1, -1, -1)
    processed = processed._replace(split=Split(one, processed.split.labels))
    recipe = {"epochs": 300, "batch_size": 20, "lr": 5e-3, "lr_decay": "cosine", "warmup_steps": 10}
    setup = prepare(processed, unet_params(channels=(96,), time_embed_dim=8), train(**recipe))
    training = new_training(setup, SCHEDULE.params, None, CPU)
    losses = [event.loss for event in training.run() if isinstance(event, Logged)]
    assert len(losses) == 300
    # A fresh network predicts nothing, and noise has a mean square of 1.
    assert losses[0] == pytest.approx(1, rel=0.05)
    assert losses[-1] < 0.15
    assert training.best().data == FRUITS


def test_a_training_may_begin_from_a_model_file(tmp_path: Path) -> None:
    start = randomised(UNet(MODEL, SCHEDULE, FRUITS))
    save_model(tmp_path / "start", start, SCHEDULE, (1, 1, 1))
    training = new_training(setup_of(), SCHEDULE.params, tmp_path / "start", CPU)
    assert_equal_weights(training.network, start)
    assert_equal_weights(training.model, start)
    schedule = SCHEDULE.params.model_copy(update={"timesteps": 19})
    with pytest.raises(UserError, match=r"^train\.start: .*start is of other schedule\.timesteps, 20, where 19 is set"):
        new_training(setup_of(), schedule, tmp_path / "start", CPU)
