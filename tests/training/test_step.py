"""A batch that goes through the network in parts, where the memory does not take it whole."""

import pytest
import torch
from torch import Tensor

from ddpm.pipeline.console import UserError
from ddpm.training.loop import Training
from tests.training.trainings import finished, new_training, split

OutOfMemory = torch.OutOfMemoryError


@pytest.mark.parametrize("parts", ["2", "3", "4", "1000"])
def test_parts_of_a_batch_are_the_same_batch(monkeypatch: pytest.MonkeyPatch, parts: str) -> None:
    whole, share = new_training(), split(4, seed=2)
    monkeypatch.setenv("DDPM_ACCUMULATE", parts)
    parted = new_training()
    seen = counted(parted, monkeypatch)
    for training in (whole, parted):
        _, losses = training.gradient_step(share)
    assert seen == {"2": [2, 2], "3": [2, 2]}.get(parts, [1] * 4)
    for one, other in zip(whole.network.parameters(), parted.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
    assert losses.shape == (4,)


def counted(training: Training, monkeypatch: pytest.MonkeyPatch, most: int = 1000) -> list[int]:
    """How many images the network is shown at a time; more than `most` do not fit."""
    seen: list[int] = []
    errors = training.gradient_step.denoising.errors

    def limited(model: torch.nn.Module, batch: object, t: Tensor, noise: Tensor) -> Tensor:
        if len(t) > most:
            raise OutOfMemory("CUDA out of memory")
        seen.append(len(t))
        return errors(model, batch, t, noise)  # type: ignore[arg-type]

    monkeypatch.setattr(training.gradient_step.denoising, "errors", limited)
    return seen


def test_a_batch_that_does_not_fit_goes_in_parts_from_then_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = new_training(count=16, epochs=1)
    seen = counted(training, monkeypatch, most=1)
    for _ in training.run():
        pass
    assert seen == [1] * 16
    assert training.gradient_step.parts == 4
    assert capsys.readouterr().err.splitlines() == [
        "train: the GPU's memory takes a batch in 2 parts",
        "train: the GPU's memory takes a batch in 4 parts",
    ]
    whole = finished(count=16, epochs=1)
    for one, other in zip(whole.network.parameters(), training.network.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_a_run_that_goes_on_keeps_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_training()
    counted(first, monkeypatch, most=2)
    next(first.run())
    again = new_training()
    again.load_state(first.state())
    assert first.gradient_step.parts == again.gradient_step.parts == 2


def test_one_image_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training()
    counted(training, monkeypatch, most=0)
    with pytest.raises(
        UserError, match=r"^train\.batch_size: 4 images a GPU do not fit its memory; set less than that$"
    ):
        training.gradient_step(split(4))


def test_batch_norm_sees_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(block="double_conv")
    counted(training, monkeypatch, most=2)
    with pytest.raises(UserError, match=r"^train\.batch_size: 4 images"):
        training.gradient_step(split(4))
    monkeypatch.setenv("DDPM_ACCUMULATE", "2")
    with pytest.raises(UserError, match=r"^DDPM_ACCUMULATE=2: model\.block double_conv has BatchNorm"):
        new_training(block="double_conv")


def test_no_number_of_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_ACCUMULATE", "0")
    with pytest.raises(UserError, match=r"^DDPM_ACCUMULATE=0: give a number of parts of a batch, 1 to"):
        new_training()
