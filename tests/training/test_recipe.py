"""What of a recipe follows from how many images there are."""

import pytest

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params, parse
from ddpm.pipeline.process import ROOT
from ddpm.training.recipe import TrainParams
from tests.training.trainings import RECIPE


def params(**changes: object) -> TrainParams:
    return parse(TrainParams, RECIPE | changes, "params.yaml", "train")


def test_of_60000_images_the_default_is_trained_on_each_5_and_a_half_times() -> None:
    found = load_params(TrainParams, "train", ROOT / "params.yaml").for_images(60_000)
    assert (found.epochs, found.validation) == (5.5, 0.02)


@pytest.mark.parametrize(
    ("images", "epochs", "count", "expected"),
    [
        (330_000, 200, 60_000, 5.5),
        (330_000, 200, 600_000, 0.55),
        (330_000, 200, 1650, 200),
        (330_000, 200, 1651, 330_000 / 1651),
        (330_000, 200, 30, 200),
        (330_000, 3, 60_000, 3),
        (None, 7.5, 60_000, 7.5),
        (None, 200, 12, 200),
        (1, 200, 1000, 0.001),
    ],
)
def test_the_length_is_in_images_up_to_a_number_of_epochs(
    images: int | None, epochs: float, count: int, expected: float
) -> None:
    assert params(images=images, epochs=epochs).for_images(count).epochs == expected


@pytest.mark.parametrize(
    ("count", "share"),
    [(12, 0.1), (2_000, 0.1), (5_000, 0.04), (10_000, 0.02), (60_000, 0.02), (120_000, 0.01), (10**6, 0.0012)],
)
def test_the_share_held_out_is_0_02_but_some_200_to_1200_images(count: int, share: float) -> None:
    assert params(validation=None).for_images(count).validation == share


@pytest.mark.parametrize("share", [0, 0.02, 0.5])
def test_a_share_that_is_set_is_kept(share: float) -> None:
    for count in (12, 60_000):
        assert params(validation=share).for_images(count).validation == share


def test_nothing_else_changes_and_doing_it_twice_changes_nothing() -> None:
    given = params(images=1000, validation=None, log_every=7, flip=True)
    found = given.for_images(300)
    changed = {"epochs": found.epochs, "validation": found.validation}
    assert found == given.model_copy(update=changed)
    assert given.validation is None
    assert found.for_images(300) == found


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"images": 1.5},
        {"flip": None},
        {"flip": 1},
        {"start": ""},
        {"start": None},
        {"validation": 0.51},
        {"validation": -0.1},
        {"epochs": None},
        {"classes": []},
    ],
)
def test_params_out_of_range_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"train\.{next(iter(change))}: "):
        params(**change)
