"""Moment matching: a Gaussian is found exactly, a single point is left alone, and it resumes bit for bit."""

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm.distill import Distillation, DistillParams
from ddpm.images.splits import Split, to_uint8
from ddpm.model import LoadedModel, ModelCard
from ddpm.schedule import NoiseSchedule, ScheduleParams, posterior, timestep_cdf
from tests.small import CPU, DIGITS, resaved, unet_params
from tests.trainings import network, split

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.02, beta_end=0.6))
RECIPE = {
    "steps": (2,),
    "images": 64,
    "batch_size": 8,
    "optimizer": "adam",
    "lr": 0.01,
    "auxiliary_lr": 0.02,
    "lr_decay": "none",
    "warmup_steps": 0,
    "ema_decay": 0.0,
    "log_snr_center": 0.0,
    "log_every": 1,
    "seed": 0,
}
CARD = ModelCard(
    data=DIGITS, model=unet_params().for_images(DIGITS.shape), schedule=SCHEDULE.params, class_counts=(9,) * 10
)


class Affine(nn.Module):
    """A denoiser whose estimate of the clean image is affine in x_t, for each t: exact for Gaussians."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        signal = SCHEDULE.alphas_cumprod
        gain = signal.sqrt() * deviation**2 / (signal * deviation**2 + 1 - signal)
        self.gain = nn.Parameter(gain.float())
        self.offset = nn.Parameter((mean - gain * signal.sqrt() * mean).float())
        self.register_buffer("time_table", torch.zeros(1))

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        estimate = self.gain[t].view(-1, 1, 1, 1) * x_t + self.offset[t].view(-1, 1, 1, 1)
        signal = SCHEDULE.alphas_cumprod[t].float().view(-1, 1, 1, 1)
        return (x_t - signal.sqrt() * estimate) / (1 - signal).sqrt()


def new_distillation(
    evaluations: int = 2, teacher: Any = None, images: int = 64, of: Split | None = None, **changes: object
) -> Distillation:
    """Of 8 steps, but for what is changed."""
    params = DistillParams.model_validate({**RECIPE, "images": images, **changes})
    of = of or split(30)
    data = DIGITS.model_copy(update={"shape": tuple(of.images.shape[1:])})
    card = CARD.model_copy(update={"data": data})
    loaded = LoadedModel(teacher or network(class_conditional=False), SCHEDULE, card)
    return Distillation(loaded, of, evaluations, params, CPU)


def gaussian(mean: float, deviation: float, evaluations: int, count: int = 4000, **changes: Any) -> Distillation:
    """Of images whose pixels are sampled from N(mean, deviation^2), with their exact denoiser as the teacher."""
    rng = torch.Generator().manual_seed(0)
    images = to_uint8(mean + deviation * torch.randn(count, 1, 4, 4, generator=rng))
    labels = torch.zeros(count).long()
    return new_distillation(evaluations, Affine(mean, deviation), of=Split(images, labels), **changes)


def sampled(found: Distillation, count: int = 4000) -> Tensor:
    """What the student samples, by the ancestral process over its timesteps."""
    rng = torch.Generator().manual_seed(1)
    x_t = torch.randn(count, 1, 4, 4, generator=rng)
    abar = SCHEDULE.alphas_cumprod.tolist()
    with torch.inference_mode():
        for t, s in zip(found.timesteps, [*found.timesteps[1:], None], strict=True):
            times = torch.full((count,), t)
            estimate = found.student(x_t, times, times).x_start
            if s is None:
                return estimate
            coef1, coef2, variance = posterior(abar[t], abar[s])
            x_t = coef1 * estimate + coef2 * x_t + variance**0.5 * torch.randn(x_t.shape, generator=rng)
    raise AssertionError


def test_a_gaussian_is_sampled_exactly_in_one_evaluation_where_the_teacher_would_need_many() -> None:
    found = gaussian(0.2, 0.3, 1, images=64 * 1500, batch_size=64, lr=0.003, lr_decay="cosine")
    assert sampled(found).std() < 0.01, "the teacher itself samples little but the mean"
    list(found.run())
    after = sampled(found)
    assert after.mean().item() == pytest.approx(0.2, abs=0.02)
    assert after.std().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("evaluations", [1, 3])
def test_a_single_point_is_a_fixed_point(evaluations: int) -> None:
    """A teacher that is right about every image is its own student: what it samples is denoised without an error."""
    point = 128 / 127.5 - 1  # a value of uint8
    found = gaussian(point, 0.0, evaluations, count=8, lr=1e-9, auxiliary_lr=1e-9)
    events = [event for event in found.run() if event]
    assert max(event.auxiliary for event in events) < 1e-9
    assert max(event.moments for event in events) < 1e-9
    assert (sampled(found, 9) - point).abs().max() < 1e-5
    spread = next(event for event in gaussian(point, 0.3, evaluations).run() if event)
    assert spread.auxiliary > 1e-4


def test_an_estimate_beyond_the_scale_counts_as_its_end_and_still_learns() -> None:
    """Sampling clips it too. A gradient that ended there would keep a pixel that should not be black."""
    found = gaussian(-1.0, 0.0, 1, count=8, lr=1e-9, auxiliary_lr=1e-9)
    with torch.no_grad():
        found.student.network.offset -= 0.2
    assert max(event.auxiliary for event in found.run() if event) < 1e-9
    wrong = gaussian(0.0, 0.0, 1, count=8, images=8)
    with torch.no_grad():
        wrong.student.network.offset -= 1.2
    before = wrong.student.network.offset.clone()
    list(wrong.run())
    assert (wrong.student.network.offset[19] - before[19]) > 0


def test_the_auxiliary_model_learns_by_the_error_of_v_and_is_held_near_the_teacher() -> None:
    found = gaussian(0.2, 0.3, 2)
    with torch.no_grad():
        found.auxiliary.network.offset += 0.3
    rng = found._rng("auxiliary")
    batch = found._batch(rng)
    with torch.no_grad():
        x_start, x_s = found._student_sample(batch, rng)
    estimate, teacher = (each(x_s, batch.s, batch.labels).x_start for each in (found.auxiliary, found.teacher))
    signal = SCHEDULE.alphas_cumprod[batch.s].float().view(-1, 1, 1, 1)
    v, pred_v, v_of_teacher = (
        (signal.sqrt() * x_s - each) / (1 - signal).sqrt() for each in (x_start, estimate, teacher)
    )
    error = (pred_v - v).square().mean()
    weight = found.auxiliary.network.offset
    expected = torch.autograd.grad(error + (pred_v - v_of_teacher).square().mean(), weight)[0]
    torch.testing.assert_close(found._step_of_auxiliary(), error.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_distillation_that_is_cut_off_after_every_step_goes_on_bit_for_bit(optimizer: str) -> None:
    changes = {"optimizer": optimizer, "lr": 0.001, "log_every": 3, "ema_decay": 0.9, "lr_decay": "cosine"}
    whole = new_distillation(**changes)
    state, logged = resaved(whole.state_dict()), []
    for expected in whole.run():
        again = new_distillation(**changes)
        again.load_state_dict(state)
        assert next(again.run()) == expected
        state = resaved(again.state_dict())
        torch.testing.assert_close(state, whole.state_dict(), rtol=0, atol=0)
        logged += [expected.step] if expected else []
    assert logged == [3, 6, 8]
    assert [row[0] for row in state["rows"]] == logged


@pytest.mark.parametrize("evaluations", [1, 2, 5])
def test_s_lies_between_t_and_the_next_timestep(evaluations: int) -> None:
    found = new_distillation(evaluations, batch_size=20)
    after = dict(zip(found.timesteps, [*found.timesteps[1:], 0], strict=True))
    assert found.timesteps[0] == 19
    seen = set()
    for seed in range(200):
        batch = found._batch(torch.Generator().manual_seed(seed))
        seen |= {*zip(batch.t.tolist(), batch.s.tolist(), strict=True)}
        counts = batch.t.bincount(minlength=20)[list(found.timesteps)]
        assert counts.max() - counts.min() <= 1, "every timestep is as frequent"
    assert seen == {(t, s) for t in after for s in range(after[t], t)}, "the next timestep itself among them"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_smaller_than_the_evaluations_still_reaches_every_timestep(batch_size: int) -> None:
    found = new_distillation(4, batch_size=batch_size)
    seen = torch.cat([found._batch(torch.Generator().manual_seed(seed)).t for seed in range(300)])
    counts = seen.bincount(minlength=20)[list(found.timesteps)]
    share = 300 * batch_size / 4
    assert (counts - share).abs().max() < 5 * share**0.5


def test_a_likely_s_is_sampled_as_often_as_the_density_has_it() -> None:
    found = new_distillation(1, batch_size=30)
    assert found.timesteps == (19,)
    seen = torch.cat([found._batch(torch.Generator().manual_seed(seed)).s for seed in range(400)])
    cdf = timestep_cdf(SCHEDULE, 0.0)
    expected = cdf.diff(prepend=cdf.new_zeros(1))[:19] / cdf[18] * len(seen)
    assert ((seen.bincount(minlength=19) - expected).square() / expected).sum() < 18 + 5 * 36**0.5


def test_an_auxiliary_model_that_diverges_does_not_look_like_success() -> None:
    """The difference that is told is not clipped: where both estimates are far away, they would seem to agree."""

    def told(**changes: Any) -> float:
        found = [event.moments for event in new_distillation(images=240, **changes).run() if event]
        return statistics.mean(found[len(found) // 2 :])

    assert told(auxiliary_lr=1.0) > max(4, 5 * told())


def test_a_student_that_diverges_does_not_look_like_success() -> None:
    """Its samples are clipped, so the errors are bounded; but they stay many times those of one that learns."""

    def told(**changes: Any) -> tuple[float, float]:
        found = [event for event in gaussian(0.2, 0.3, 2, images=240, **changes).run() if event]
        late = found[len(found) // 2 :]
        return statistics.mean(each.auxiliary for each in late), statistics.mean(each.moments for each in late)

    (auxiliary, moments), (usual_auxiliary, usual_moments) = told(lr=1.0), told()
    assert auxiliary > 5 * usual_auxiliary
    assert moments > 2 * usual_moments
