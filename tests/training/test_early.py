"""The weights kept early in a training, for a guide: those of a run that is stopped there, however it went on."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.training.loop import EpochEnd, Training
from tests.training.trainings import assert_equal_weights, finished, new_training, weights

STEPS = 8  # of the small training: two epochs of four


def stopped(step: int, **changes: Any) -> Training:
    """A training that has taken so many steps, and no more."""
    training = new_training(**changes)
    for event in training.run():
        if not isinstance(event, EpochEnd) and training.step == step:
            return training
    raise AssertionError(f"there is no step {step}")


def assert_equal_tensors(found: dict[str, Tensor] | None, expected: dict[str, Tensor]) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("early", "step"), [(1e-9, 1), (0.06, 1), (0.25, 2), (0.3, 2), (0.45, 4), (0.5, 4), (0.9, 7), (0.99, 8)]
)
def test_the_average_of_that_step_is_kept(early: float, step: int) -> None:
    kept = finished(early=early)
    assert kept.total_steps == STEPS
    assert_equal_tensors(kept.early, weights(stopped(step).model))
    for other in {1, step - 1, step + 1, STEPS} - {0, step, STEPS + 1}:
        elsewhere = weights(stopped(other).model)
        assert any(not torch.equal(weight, elsewhere[name]) for name, weight in (kept.early or {}).items()), other


@pytest.mark.parametrize(
    ("block", "optimizer", "ema_decay"),
    [("residual", "muon", 0.9), ("residual", "adam", 0), ("double_conv", "adam", 0.9)],
)
def test_it_is_what_the_samplers_would_have_of_a_run_stopped_there(
    block: str, optimizer: str, ema_decay: float
) -> None:
    """Averaged or not, with the statistics of BatchNorm; the training that goes on does not move it."""
    recipe = {"block": block, "optimizer": optimizer, "ema_decay": ema_decay, "held_out": 5}
    kept, at_once = finished(**recipe, early=0.4), stopped(3, **recipe)
    assert_equal_tensors(kept.early, weights(at_once.best()))
    assert any(not torch.equal(weight, weights(kept.model)[name]) for name, weight in (kept.early or {}).items())


def test_nothing_is_kept_before_that_step_nor_changed_after_it() -> None:
    training, seen = new_training(early=0.5), []
    for _ in training.run():
        seen.append((training.step, training.early))
    assert [step for step, early in seen if early is None] == [1, 2, 3]
    assert len({id(early) for _, early in seen if early is not None}) == 1


def test_the_share_is_of_the_steps_and_not_of_the_epochs() -> None:
    assert_equal_tensors(finished(epochs=0.25, early=0.5).early, weights(stopped(1).model))  # of a single step
    assert_equal_tensors(finished(epochs=1.5, early=0.5).early, weights(stopped(3).model))  # of six


def test_0_keeps_none_and_no_share_changes_a_bit_of_the_training() -> None:
    recipe: dict[str, Any] = {"held_out": 5, "log_every": 3}
    plain, kept = new_training(**recipe), new_training(**recipe, early=0.3)
    events, others = list(plain.run()), list(kept.run())
    assert plain.early is None
    assert not any(name.startswith("early.") for name in plain.state())
    torch.testing.assert_close(events, others, rtol=0, atol=0, equal_nan=True)
    without = {name: value for name, value in kept.state().items() if not name.startswith("early.")}
    torch.testing.assert_close(without, plain.state(), rtol=0, atol=0)
    assert_equal_weights(plain.best(), kept.best())


@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_a_run_that_is_cut_off_before_or_after_has_them_bit_for_bit(ema_decay: float) -> None:
    recipe: dict[str, Any] = {"early": 0.6, "ema_decay": ema_decay, "optimizer": "muon", "held_out": 5}
    whole = new_training(**recipe)
    states = [copy.deepcopy(whole.state())]
    states += [copy.deepcopy(whole.state()) for _ in whole.run()]
    kept = [any(name.startswith("early.") for name in state) for state in states]
    assert kept == [False] * 6 + [True] * 5  # from step 5 of 8 on, with the ends of two epochs
    assert whole.early is not None
    for state in states:
        again = new_training(**recipe)
        again.load_state(state)
        torch.testing.assert_close(again.state(), state, rtol=0, atol=0)
        for _ in again.run():
            pass
        assert_equal_tensors(again.early, whole.early)
        torch.testing.assert_close(again.state(), whole.state(), rtol=0, atol=0)


def test_a_state_from_before_that_step_takes_away_what_was_kept() -> None:
    before, training = copy.deepcopy(stopped(2, early=0.5).state()), stopped(6, early=0.5)
    assert training.early is not None
    training.load_state(before)
    assert training.early is None
