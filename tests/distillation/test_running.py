"""Running a distillation to its end: what is told of it, the model file, and what is refused."""

from pathlib import Path

import pytest
import torch
from ddpm.distillation import running
from tests.training.test_running import Ticks

from ddpm.distill import DistillParams
from ddpm.model import LoadedModel, load_model
from exact_stages.console import UserError
from tests.distillation.test_moment_matching import CARD, RECIPE, SCHEDULE, new_distillation
from tests.small import CPU
from tests.trainings import network, split


def test_the_model_file_has_the_student_and_its_timesteps(tmp_path: Path) -> None:
    found, ticks = new_distillation(log_every=3), Ticks()
    running.run_distillation("distill 2", found, ticks)  # type: ignore[arg-type]
    assert ticks.count == 8
    _, auxiliary, moments = found.rows[-1]
    assert running.summary_of(found) == {
        "timesteps": [*found.timesteps],
        "steps": 8,
        "images_seen": 64,
        "auxiliary": pytest.approx(auxiliary, abs=1e-6),
        "moments": pytest.approx(moments, abs=1e-6),
    }
    header, *_, last = running.curve_of(found).decode().splitlines()
    assert header == "step,auxiliary,moments"
    assert [*map(float, last.split(","))] == pytest.approx([8, auxiliary, moments], abs=1e-6)
    teacher = LoadedModel(network(), SCHEDULE, CARD)
    running.save_distilled(tmp_path / "model", found, teacher, {})
    loaded = load_model(tmp_path / "model")
    assert loaded.card.timesteps == found.timesteps
    torch.testing.assert_close(loaded.network.state_dict(), found.model.state_dict(), rtol=0, atol=0)


def test_more_evaluations_than_timesteps_are_refused() -> None:
    with pytest.raises(UserError, match=r"^distill\.steps: "):
        running.new_distillation(
            LoadedModel(network(), SCHEDULE, CARD), split(30), 21, DistillParams.model_validate(RECIPE), CPU
        )


def test_a_loss_that_is_not_finite_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.full(*shape, torch.nan))
    with pytest.raises(UserError, match=r"^distill\.lr: "):
        running.run_distillation("distill 2", new_distillation(), Ticks())  # type: ignore[arg-type]
