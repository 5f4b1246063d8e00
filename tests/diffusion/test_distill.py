"""Moment matching: a Gaussian is found exactly, and a distillation that is cut off resumes bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm.diffusion import distill
from ddpm.diffusion.denoiser import NotFiniteError
from ddpm.diffusion.distill import Distillation
from ddpm.diffusion.model import LoadedModel, load_model, new_network
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas, posterior
from ddpm.diffusion.timesteps import timestep_cdf
from ddpm.images.splits import Split, to_uint8
from ddpm.params.distill import DistillParams
from ddpm.params.schedule import ScheduleParams
from ddpm.processes.workers import run_in_processes
from ddpm.processes.world import ALONE, World
from exact_stages.console import UserError
from stages import distill as stage
from tests.reverse import model_card
from tests.small import CPU, DIGITS, images, randomised, resaved

LINEAR = ScheduleParams(timesteps=20, beta_start=0.02, beta_end=0.6)
SCHEDULE = NoiseSchedule(linear_betas(**dict(LINEAR)))
CARD = model_card(schedule=LINEAR)
ADAM = {"optimizer": "adam", "lr": 0.01, "lr_decay": "cosine", "warmup_steps": 0, "ema_decay": 0.0}


class Affine(nn.Module):
    """A denoiser whose estimate of the clean image is affine in x_t, for each t: exact for Gaussians."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        abar = SCHEDULE.alphas_cumprod
        gain = abar.sqrt() * deviation**2 / (abar * deviation**2 + 1 - abar)
        self.gain = nn.Parameter(gain.float())
        self.offset = nn.Parameter((mean - gain * abar.sqrt() * mean).float())
        self.register_buffer("time_table", torch.zeros(1))

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        estimate = self.gain[t].view(-1, 1, 1, 1) * x_t + self.offset[t].view(-1, 1, 1, 1)
        abar = SCHEDULE.alphas_cumprod[t].float().view(-1, 1, 1, 1)
        return (abar.sqrt() * x_t - estimate) / (1 - abar).sqrt()  # v


def new_distillation(evaluations: int = 2, **changes: Any) -> Distillation:
    """Of 8 steps with a tiny network and the settings of the stage, but for what is changed."""
    params = DistillParams.model_validate({"steps": (2,), "images_seen": 64, "batch_size": 8, "seed": 0} | changes)
    teacher = randomised(new_network(CARD.model, DIGITS.shape, 10, 20)).eval()
    return stage.new_distillation(
        LoadedModel(teacher, SCHEDULE, CARD), Split(images(30), torch.arange(30) % 10), evaluations, params, CPU
    )


def gaussian(
    mean: float, deviation: float, evaluations: int, lr: float = 0.01, auxiliary_lr: float = 0.02, **changes: Any
) -> Distillation:
    """Of images whose pixels are sampled from N(mean, deviation^2), with their exact denoiser as the teacher."""
    rng = torch.Generator().manual_seed(0)
    of = Split(to_uint8(mean + deviation * torch.randn(4000, 1, 4, 4, generator=rng)), torch.zeros(4000).long())
    params = DistillParams.model_validate({"steps": (2,), "images_seen": 64, "batch_size": 8, "seed": 0} | changes)
    card = CARD.model_copy(update={"data": DIGITS.model_copy(update={"shape": (1, 4, 4)})})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distill, "STUDENT", ADAM | {"lr": lr})
        patched.setattr(distill, "LOG_SNR_CENTER", 0.0)  # where such wide Gaussians are learnt fast
        patched.setattr(distill, "AUXILIARY", ADAM | {"lr": auxiliary_lr})
        return stage.new_distillation(
            LoadedModel(Affine(mean, deviation), SCHEDULE, card), of, evaluations, params, CPU
        )


def ended(found: Distillation) -> tuple[float, float]:
    """The errors of its last steps: of the auxiliary model's v, and of the moments."""
    assert [*found.run()][-1] == found.rows[-1][2]
    return found.rows[-1][1], found.rows[-1][2]


def sampled(found: Distillation, count: int = 4000) -> Tensor:
    """What the student samples, by the ancestral process over its timesteps."""
    rng = torch.Generator().manual_seed(1)
    x_t, abar = torch.randn(count, 1, 4, 4, generator=rng), [*SCHEDULE.alphas_cumprod.tolist(), 1.0]
    for t, s in zip(found.timesteps, [*found.timesteps[1:], -1], strict=True):
        with torch.inference_mode():
            estimate = found.student(x_t, torch.full((count,), t), torch.zeros(count).long()).x_start
        coef1, coef2, variance = posterior(abar[t], abar[s])
        x_t = coef1 * estimate + coef2 * x_t + variance**0.5 * torch.randn(x_t.shape, generator=rng)
    return x_t


def test_a_gaussian_is_sampled_in_one_evaluation_where_the_teacher_would_need_many() -> None:
    found = gaussian(0.2, 0.3, 1, images_seen=64 * 1500, batch_size=64, lr=0.003)
    assert sampled(found).std() < 0.01, "the teacher itself samples little but the mean"
    ended(found)
    assert sampled(found).mean().item() == pytest.approx(0.2, abs=0.02)
    assert sampled(found).std().item() == pytest.approx(0.3, abs=0.02)


def test_an_estimate_beyond_the_scale_counts_as_its_end_and_still_learns() -> None:
    """Sampling clips it too. A gradient that ended there would keep a pixel that should not be black."""
    found, wrong = gaussian(-1.0, 0.0, 1, lr=1e-9, auxiliary_lr=1e-9), gaussian(0.0, 0.0, 1, images_seen=8)
    for each, shift in ((found, 0.2), (wrong, 1.2)):
        with torch.no_grad():
            each.student.network.offset -= shift
    assert ended(found)[0] < 1e-9
    before = wrong.student.network.offset[19].item()
    ended(wrong)
    assert wrong.student.network.offset[19].item() > before


def test_the_auxiliary_model_learns_by_the_error_of_v_and_is_held_near_the_teacher() -> None:
    found = gaussian(0.2, 0.3, 2)
    with torch.no_grad():
        found.auxiliary.network.offset += 0.3
        rng = distill.generator(0, "auxiliary", 0)
        batch = found._batch(rng)
        x_start, x_s = found._student_sample(batch, distill.normal_like(batch.x_t, rng))
    estimate, teacher = (each(x_s, batch.s, batch.labels).x_start for each in (found.auxiliary, found.teacher))
    abar = SCHEDULE.alphas_cumprod[batch.s].float().view(-1, 1, 1, 1)
    v, pred_v, v_of_teacher = ((abar.sqrt() * x_s - each) / (1 - abar).sqrt() for each in (x_start, estimate, teacher))
    error = (pred_v - v).square().mean()
    weight = found.auxiliary.network.offset
    expected = torch.autograd.grad(error + (pred_v - v_of_teacher).square().mean(), weight)[0]
    told = found._descend("auxiliary", found.of_auxiliary, found._auxiliary_losses, ALONE)
    torch.testing.assert_close(told, error.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-6)


def test_the_student_is_pulled_no_harder_by_an_auxiliary_model_that_is_beyond_the_scale() -> None:
    gradients = []
    for offset in (30, 60):
        found = gaussian(0.2, 0.3, 2)
        found.auxiliary.network.offset.data += offset
        found._descend("student", found.of_student, found._student_losses, ALONE)
        gradients.append(found.student.network.offset.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("evaluations", "batch_size"), [(1, 20), (5, 20), (4, 1), (4, 3)])
def test_timesteps_are_equally_frequent_and_s_lies_before_the_next(evaluations: int, batch_size: int) -> None:
    found, seen, counts = new_distillation(evaluations, batch_size=batch_size), set(), torch.zeros(20).long()
    after = dict(zip(found.timesteps, [*found.timesteps[1:], 0], strict=True))
    for seed in range(300):
        batch = found._batch(torch.Generator().manual_seed(seed))
        seen |= {*zip(batch.t.tolist(), batch.s.tolist(), strict=True)}
        of_batch = batch.t.bincount(minlength=20)[[*after]]
        assert of_batch.max() - of_batch.min() <= 1
        counts += batch.t.bincount(minlength=20)
    share = 300 * batch_size / evaluations
    assert (counts[[*after]] - share).abs().max() < 5 * share**0.5
    assert seen <= {(t, s) for t in after for s in range(after[t], t)}
    assert {t for t, s in seen if s == after[t]} == {*after}, "the next timestep itself is among them"


def test_a_likely_s_is_sampled_as_often_as_the_density_has_it() -> None:
    found = new_distillation(1, batch_size=30)
    assert found.timesteps == (19,)
    seen = torch.cat([found._batch(torch.Generator().manual_seed(seed)).s for seed in range(400)])
    cdf = timestep_cdf(SCHEDULE, distill.LOG_SNR_CENTER)
    expected = cdf.diff(prepend=cdf.new_zeros(1))[:19] / cdf[18] * len(seen)
    assert ((seen.bincount(minlength=19) - expected).square() / expected).sum() < 18 + 5 * 36**0.5


def test_a_distillation_that_is_cut_off_after_every_step_goes_on_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "LOG_EVERY", 3)
    whole = new_distillation()
    state = resaved(whole.state_dict())
    for expected in whole.run():
        again = new_distillation()
        again.load_state_dict(state)
        assert next(again.run()) == expected
        state = resaved(again.state_dict())
        torch.testing.assert_close(state, whole.state_dict(), rtol=0, atol=0)
    assert [row[0] for row in state["rows"]] == [3, 6, 8]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_workers_give_the_bytes_of_one(size: int, allowed: Callable[[int], None]) -> None:
    allowed(size)

    def state(world: World) -> dict[str, Any]:
        found = new_distillation(batch_size=10)  # of which a shard has two images or three
        list(found.run(world))
        return resaved(found.state_dict())

    alone = state(ALONE)
    assert alone["rows"]
    for found in run_in_processes(ALONE, size, lambda world: world.gather(state(world)), length=9000):
        torch.testing.assert_close(found, alone, rtol=0, atol=0)


def test_the_model_file_has_the_student_and_its_timesteps(tmp_path: Path) -> None:
    found = new_distillation()
    auxiliary, moments = ended(found)
    facts = {"timesteps": [*found.timesteps], "steps": 8, "images_seen": 64}
    assert found.summary() == {**facts, "auxiliary": round(auxiliary, 6), "moments": round(moments, 6)}
    stage.save(tmp_path / "model", found, LoadedModel(found.teacher.network, SCHEDULE, CARD))
    loaded = load_model(tmp_path / "model")
    assert loaded.card == CARD.model_copy(update={"images_seen": None, "timesteps": found.timesteps})
    torch.testing.assert_close(loaded.network.state_dict(), found.model.state_dict(), rtol=0, atol=0)


def test_what_cannot_be_distilled_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^distill\.steps: "):
        new_distillation(21)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.full(*shape, torch.nan))
    with pytest.raises(NotFiniteError, match="nan"):
        ended(new_distillation())
