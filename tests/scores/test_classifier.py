"""The classifier: what it learns, that its seed decides all of it, its features, and its file."""

from pathlib import Path

import pytest
import torch

from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile, to_float
from ddpm.processes.device import Runtime, to_device
from ddpm.scores.classifier import (
    Classifier,
    Recipe,
    accuracy,
    features_and_logits,
    held_out,
    load_classifier,
    save_classifier,
)
from ddpm.scores.fit import (
    background_of,
    fit_classifier,
    fit_classifiers,
    flipped,
    shifted,
    total_steps,
    train_classifier,
    training_images,
)
from exact_stages.console import UserError
from tests.small import DIGITS, FRUITS, images, randomised

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, torch.float32)
RECIPE = Recipe(channels=4, images_seen=10**6, epochs=6, batch_size=20, lr=0.02, shift=1, seed=3)
PEARS = FRUITS.model_copy(update={"classes": ("pear",)})


def separable(count: int) -> Split:
    """Rows for label 2, columns for label 5, all dark for label 9; a little noise makes the images differ."""
    pictures = torch.zeros(3, 1, 28, 28)
    pictures[0, :, ::4] = 255
    pictures[1, :, :, ::4] = 255
    kind = torch.arange(count) % 3
    noise = 6 * torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return Split((pictures[kind] + noise).clamp(0, 255).to(torch.uint8), torch.tensor([2, 5, 9])[kind])


@pytest.mark.parametrize(("dx", "dy"), [(0, -1), (-2, 2), (4, 3)])
def test_shift_moves_the_content_and_background_comes_in(dx: int, dy: int) -> None:
    channels, height, width = shape = (3, 5, 8)
    given = torch.arange(2 * channels * height * width, dtype=torch.float32).view(2, *shape)
    background = torch.tensor([-1, 0.5, 0.25]).view(1, 3, 1, 1)
    expected = background.expand(2, *shape).clone()
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                expected[..., y, x] = given[..., y + dy, x + dx]
    assert torch.equal(shifted(given, dx, dy, background), expected)


def test_the_background_is_the_median_along_the_edges_of_all_images_in_each_colour() -> None:
    given = images(4, FRUITS.shape)
    for channel, level in enumerate((0, 255, 51)):
        given[:3, channel, 0] = given[:3, channel, -1] = level
        given[:3, channel, :, 0] = given[:3, channel, :, -1] = level
    torch.testing.assert_close(background_of(given), torch.tensor([-1, 1, -0.6]).view(1, 3, 1, 1))


def test_training_separates_easy_images() -> None:
    torch.manual_seed(RECIPE.seed)
    model = Classifier(RECIPE, DIGITS)
    losses = list(train_classifier(model, separable(207), RUNTIME))
    assert len(losses) == total_steps(RECIPE, 207) == 6 * (207 // 20)
    assert losses[0] > 2
    assert losses[-1] < 0.1
    assert not model.training
    found, labels = separable(100)
    _, logits = features_and_logits(model, found, CPU)
    assert torch.equal(logits.argmax(1), labels)


@pytest.mark.parametrize(("count", "seen", "steps"), [(207, 311, 20), (39, 39, 3), (207, 61, 3), (19, 1, 1)])
def test_the_steps_are_those_of_whole_epochs_but_for_a_shorter_training(count: int, seen: int, steps: int) -> None:
    recipe = RECIPE.model_copy(update={"images_seen": seen, "channels": 1})
    losses = train_classifier(Classifier(recipe, DIGITS), separable(count), RUNTIME)
    assert len(list(losses)) == total_steps(recipe, count) == steps


def test_a_training_takes_images_that_are_not_held_out_and_of_many_a_random_subset() -> None:
    split_file = SplitFile(DIGITS, separable(207), torch.arange(207), (1,) * 10)
    rows = (~held_out(split_file)).nonzero().flatten().tolist()
    pictures = [split_file.split.images[row].numpy().tobytes() for row in rows]
    for most in (61, 1000):
        found = training_images(split_file, RECIPE.model_copy(update={"images_seen": most}))
        places = [pictures.index(image.tobytes()) for image in found.images.numpy()]
        assert len({*places}) == len(places) == min(most, len(rows))
        assert (places == [*range(len(rows))]) == (most == 1000)
        assert found.labels.tolist() == [int(split_file.split.labels[rows[place]]) for place in places]


def test_a_loss_that_is_not_finite_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^fit: the loss is (nan|inf)"):
        fit_classifiers("fit", [(separable(40), RECIPE.model_copy(update={"lr": 1e30}))], DIGITS, RUNTIME)


def test_of_one_class_it_learns_which_way_an_image_is_flipped() -> None:
    def corners(count: int, seed: int) -> torch.Tensor:
        """Noise, brighter at the top left."""
        levels = torch.randint(0, 100, (count, *FRUITS.shape), generator=torch.Generator().manual_seed(seed))
        levels[:, :, :6, :3] += 150
        return levels.to(torch.uint8)

    recipe = RECIPE.model_copy(update={"epochs": 20, "shift": 0})
    labels = torch.zeros(200, dtype=torch.long)
    model = fit_classifier("fit", Split(corners(200, 0), labels), recipe, PEARS, RUNTIME)
    flips = torch.arange(100) % 4
    others = flipped(corners(100, 1), flips)
    assert accuracy(model, others, flips, CPU) > 0.95


def test_features_and_logits_go_over_all_batches_in_evaluation_mode() -> None:
    model = Classifier(RECIPE.model_copy(update={"channels": 1}), DIGITS).train()
    given = images(1003)  # a batch and a rest
    features, logits = features_and_logits(model, given, CPU)
    assert not model.training
    assert features.shape == (1003, 4)
    assert logits.shape == (1003, 10)
    with torch.no_grad():
        some = [0, 999, 1000, 1002]
        torch.testing.assert_close(features[some], model.features(to_float(given[some])))
        torch.testing.assert_close(logits[-3:], model(to_float(given[-3:])))


@pytest.mark.parametrize("card", [DIGITS, PEARS], ids=lambda card: card.name)
def test_a_saved_classifier_comes_back_the_same(card: DataCard, tmp_path: Path) -> None:
    model = to_device(randomised(Classifier(RECIPE, card)), CPU)
    for name in "ab":
        save_classifier(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_classifier(tmp_path / "a")
    assert loaded.recipe == model.recipe
    assert loaded.data == card
    assert not loaded.training
    assert loaded.head.out_features == {DIGITS: 10, PEARS: 4}[card]  # of one class, the ways to flip an image
    given = images(8, card.shape)
    for ours, theirs in zip(*(features_and_logits(each, given, CPU) for each in (model, loaded)), strict=True):
        assert torch.equal(ours, theirs)
