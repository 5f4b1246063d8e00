"""Rows of samples while a model trains: their sampler, their picture, when they come, and that they change nothing."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.diffusion.glimpses import COLUMNS, SCALE, STEPS, ddim, png
from ddpm.diffusion.sample import denoise_by, p_sample_loop
from tests.small import DIGITS, levels, normal, resaved
from tests.trainings import SCHEDULE, assert_equal, denoiser, finished, small_training, state_of, weights


def test_a_row_is_sampled_by_ddim_without_new_noise() -> None:
    of, labels, x_t = denoiser(small_training().network.eval()), torch.tensor([3, 7]), normal(2, *DIGITS.shape)
    timesteps = [*reversed(range(SCHEDULE.timesteps))]
    assert len(timesteps) < STEPS, "so all of them are visited"
    with torch.no_grad():
        *_, last = p_sample_loop(denoise_by(of, labels), SCHEDULE, lambda: x_t, timesteps, "ddim", eta=0.0)
    torch.testing.assert_close(ddim(of, x_t, labels), last.x_prev)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_has_the_rows_below_one_another(channels: int) -> None:
    rows = levels(6, (channels, 5, 4)).view(2, 3, channels, 5, 4)
    found = np.asarray(Image.open(io.BytesIO(png(rows))))
    assert found.shape[:2] == (2 * 5 * SCALE, 3 * 4 * SCALE)
    corner = torch.from_numpy(found.copy()).view(*found.shape[:2], channels)[5 * SCALE :: SCALE, 4 * SCALE :: SCALE]
    assert torch.equal(corner[:, :4].permute(2, 0, 1), rows[1, 1])


def rows_and_weights(monkeypatch: pytest.MonkeyPatch, first: int, **changes: object) -> tuple[list[Tensor], object]:
    monkeypatch.setattr("ddpm.diffusion.training.FIRST", first)
    found = finished(**changes)
    return found.glimpses, [weights(found.network), weights(found.model)]


@pytest.mark.parametrize("block", ["residual", "double_conv"])
def test_rows_come_after_each_doubling_by_one_noise_and_change_no_weight(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {"block": block, "held_out": 4}
    global_state = torch.get_rng_state()
    rows, trained = rows_and_weights(monkeypatch, 8, **of)  # 8 steps of 4 images
    last, alone = rows_and_weights(monkeypatch, 1000, **of)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert_equal(trained, alone)
    assert [row.shape for row in rows] == [(COLUMNS, *DIGITS.shape)] * 3, "after 8, 16 and 32 images"
    assert not torch.equal(rows[0], rows[1])
    assert len(last) == 1
    assert torch.equal(last[0], rows[-1]), "a short training shows its end"


def test_a_resumed_training_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm.diffusion.training.FIRST", 8)
    before, after, whole = small_training(), small_training(), finished()
    next(None for _ in before.run() if before.step == 5)
    after.load_state_dict(resaved(before.state_dict()))
    assert len(after.glimpses) == 2
    assert len([*after.run()]) == 3
    assert_equal(state_of(after), state_of(whole))


@pytest.mark.parametrize(("most", "columns"), [(40, 8), (7, 7)])
def test_a_row_has_each_class_but_at_most_so_many(most: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm.diffusion.training.COLUMNS", 2)
    monkeypatch.setattr("ddpm.diffusion.training.MOST", most)
    [row] = finished().glimpses
    assert len(row) == columns, "of eight digits that have images"
