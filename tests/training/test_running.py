"""Running a training to its end: curves, what is told of it, and the model file."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ddpm.model import load_model
from ddpm.parallel.world import ALONE, World
from ddpm.train import Curves, Setup, Training, environment_of, new_training, run_training, save_trained, summary_of
from exact_stages.console import UserError
from tests.small import CPU, resaved
from tests.training.test_setup import setup_of
from tests.training.trainings import SCHEDULE, assert_equal


class Ticks:
    """Stands for the checkpoints, and counts when one may be saved."""

    count = 0

    def tick(self) -> None:
        self.count += 1


def curves_in(folder: Path) -> Curves:
    folder.mkdir(exist_ok=True)
    return Curves(20, lambda name, data: (folder / name).write_bytes(data))


def ran(folder: Path, **changes: Any) -> tuple[Training, Setup, Curves]:
    setup = setup_of(batch_size=10, log_every=3, **changes)
    training = new_training(setup, SCHEDULE.params, None, CPU)
    curves, ticks = curves_in(folder), Ticks()
    run_training("train", training, curves, ticks)  # type: ignore[arg-type]
    assert ticks.count == training.step + 3, (
        "after every step, at the ends of both epochs, and after the last mean loss"
    )
    return training, setup, curves


def test_curves_are_the_events_of_the_training_also_after_a_resumption(tmp_path: Path) -> None:
    training, _, curves = ran(tmp_path)
    curves.write()
    tables = {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert {name: list(table.columns) for name, table in tables.items()} == {
        "loss": ["step", "train_loss"],
        "validation": ["step", "validation_loss"],
        "loss_by_timestep": ["t", "train_loss"],
        "validation_by_timestep": ["t", "validation_loss"],
    }
    steps = training.total_steps
    assert tables["loss"]["step"].tolist() == [*range(3, steps, 3), steps]
    assert tables["validation"]["step"].tolist() == [steps]
    assert tables["loss_by_timestep"]["t"].tolist() == [1 + 2 * bucket for bucket in range(10)]
    again = curves_in(tmp_path / "again")
    again.load_state_dict(resaved(curves.state_dict()))
    again.write()
    for path in tmp_path.glob("*.csv"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_model_file_has_the_best_weights_and_the_guides(tmp_path: Path) -> None:
    training, setup, curves = ran(tmp_path, guide_share=0.5, label_dropout=0.1)
    environment = environment_of(CPU, ALONE)
    save_trained(tmp_path / "model", training, setup, SCHEDULE.params, environment)
    loaded = load_model(tmp_path / "model")
    assert_equal(loaded.network.state_dict(), training.best().state_dict())
    assert loaded.guide
    assert_equal(dict(loaded.guide.state_dict()), training.guide)
    assert (loaded.card.guides, loaded.card.class_counts) == (("autoguidance", "classifier_free"), (30, 30, 30))
    summary = summary_of(training, curves, setup, {"train.epochs": 2})
    assert summary == {
        "train_loss": pytest.approx(sum(loss for _, loss in curves.rows["loss_by_timestep"]) / 10, abs=1e-6),
        "validation_loss": pytest.approx(curves.rows["validation"][-1][1], abs=1e-6),
        "images_seen": training.total_steps * setup.train.batch_size,
        "parameters": sum(weight.numel() for weight in loaded.network.parameters()),
        "steps": training.total_steps,
        "kept_step": training.total_steps,
        "guide_step": round(training.total_steps / 2),
        "follows": {"train.epochs": 2},
    }


def test_the_environment_names_what_changes_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_of(CPU, World(1, 2)) == CPU.describe() | {"processes": 2}
    monkeypatch.setenv("DDPM_ACCUMULATE", "4")
    assert environment_of(CPU, ALONE) == CPU.describe() | {"processes": 1, "accumulation_steps": 4}


def test_a_loss_that_is_not_finite_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.full(shape, torch.nan))
    with pytest.raises(UserError, match=r"^train\.lr: "):
        ran(tmp_path)
