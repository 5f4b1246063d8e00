"""Drawing images with guidance: by the written-out combination of what two networks, or one asked twice, predict."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm.compute.device import Runtime
from ddpm.compute.randomness import ImageNoise
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.networks.checkpoint import LoadedModel, load_model, save_model
from ddpm.networks.unet import NO_LABEL, UNet
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import check_sampler, draw_batch, draw_labels
from ddpm.sampling.guidance import PredictNoise
from ddpm.sampling.samplers import SamplerParams, sample_loop
from tests.networks.random_weights import randomised
from tests.sampling.walks import sampler
from tests.small import DIGITS, FRUITS, unet_params

CPU = Runtime(torch.device("cpu"), torch.float32)
SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=1e-2, beta_end=0.5))
INTERVAL = (-2.0, 1.5)
INSIDE = [t for t in range(10) if INTERVAL[0] <= SCHEDULE.alphas_cumprod[t].logit() <= INTERVAL[1]]


def tiny_model(
    folder: Path,
    block: str = "residual",
    prediction: str = "v",
    class_conditional: bool = True,
    early: bool = True,
    unlabelled: bool = True,
    data: DataCard = DIGITS,
) -> LoadedModel:
    """A tiny model through its file, and another that stands for what it was early; none of their weights zero."""
    params = unet_params(
        channels=(4, 8), block=block, patch_size=2, class_conditional=class_conditional, prediction=prediction
    )
    now, before = (randomised(UNet(params, SCHEDULE, data), seed) for seed in (0, 1))
    for network in (now, before):
        if network.label:
            network.label.weight.data *= 10  # loud beside the time
    save_model(
        folder / "model.safetensors",
        now,
        SCHEDULE,
        tuple(range(1, len(data.classes) + 1)),
        early=before.state_dict() if early else None,
        unlabelled=unlabelled and class_conditional,
    )
    return load_model(folder / "model.safetensors")


def guidance(guide: str, strength: float = 2.5, **changes: Any) -> SamplerParams:
    given: dict[str, Any] = {"guidance": strength, "guide": guide, "guidance_interval": INTERVAL}
    return sampler(**given | changes)


def draw(loaded: LoadedModel, params: SamplerParams, indices: list[int], seed: int = 0) -> Tensor:
    *_, last = draw_batch(loaded, params, seed, indices, CPU)
    return last.x_prev.clone()


def by_hand(loaded: LoadedModel, params: SamplerParams, labels: Tensor) -> PredictNoise:
    """The combination, of one network's answer at a time."""

    def predict_noise(x_t: Tensor, t: int) -> Tensor:
        times = torch.full((len(x_t),), t)
        pred_noise: Tensor = loaded.model(x_t, times, labels)
        if t not in INSIDE:
            return pred_noise
        if params.guide == "early":
            assert loaded.early
            of_guide = loaded.early(x_t, times, labels)
        else:
            of_guide = loaded.model(x_t, times, torch.full_like(labels, NO_LABEL))
        return params.guidance * pred_noise + (1 - params.guidance) * of_guide

    return predict_noise


def calls_of(network: nn.Module | None) -> list[tuple[int, list[int]]]:
    """A list that grows by (t, labels) with every call of the network."""
    assert network
    calls: list[tuple[int, list[int]]] = []
    network.register_forward_pre_hook(lambda _, given: calls.append((int(given[1][0]), given[2].tolist())))
    return calls


def test_the_interval_of_these_tests_has_steps_before_it_and_behind() -> None:
    assert 2 < len(INSIDE) < 8
    assert 0 not in INSIDE
    assert 9 not in INSIDE


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.5])
@pytest.mark.parametrize("walk", [{"name": "ddpm"}, {"name": "dpmpp_2m", "steps": 6, "clip": True}], ids=str)
@pytest.mark.parametrize(
    ("guide", "model"),
    [
        ("early", {}),
        ("early", {"class_conditional": False}),
        ("early", {"block": "double_conv", "prediction": "noise"}),
        ("early", {"data": FRUITS}),
        ("unlabelled", {}),
        ("unlabelled", {"block": "double_conv", "prediction": "noise"}),
        ("unlabelled", {"data": FRUITS, "early": False}),
    ],
    ids=str,
)
def test_drawing_is_by_the_written_out_combination(
    guide: str, model: dict[str, Any], walk: dict[str, Any], strength: float, tmp_path: Path
) -> None:
    loaded, indices = tiny_model(tmp_path, **model), [7, 2, 30]
    params = guidance(guide, strength, **walk)
    shape = loaded.card.data.shape
    noise = ImageNoise(4, indices, shape, CPU.device)
    with torch.inference_mode():
        predict_noise = by_hand(loaded, params, draw_labels(loaded.card, params, 4, indices))
        *_, expected = sample_loop(predict_noise, loaded.schedule, params.for_images(shape[0]), noise)
    drawn = draw(loaded, params, indices, seed=4)
    scale = expected.x_prev.abs().max().item()
    torch.testing.assert_close(drawn, expected.x_prev, rtol=0, atol=1e-4 * scale)
    assert (drawn - draw(loaded, sampler(**walk), indices, seed=4)).abs().max() > 1e-2 * scale, "it is guided"


@pytest.mark.parametrize("guide", ["early", "unlabelled"])
@pytest.mark.parametrize("block", ["residual", "double_conv"])
def test_an_image_does_not_depend_on_its_batch(guide: str, block: str, tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path, block), guidance(guide)
    together = draw(loaded, params, [0, 1, 2, 3, 4])
    atol = 1e-5 * max(1.0, together.abs().max().item())  # convolutions add in another order for another batch size
    torch.testing.assert_close(draw(loaded, params, [3])[0], together[3], rtol=0, atol=atol)
    torch.testing.assert_close(draw(loaded, params, [4, 3, 17])[:2], together[[4, 3]], rtol=0, atol=atol)
    assert torch.equal(draw(loaded, params, [0, 1, 2, 3, 4]), together)


@pytest.mark.parametrize("guide", ["early", "unlabelled"])
def test_a_guidance_of_1_never_asks_the_guide(guide: str, tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path), guidance(guide, 1.0, guidance_interval=(-100.0, 100.0))
    asked, of_early = calls_of(loaded.model), calls_of(loaded.early)
    drawn = draw(loaded, params, [5, 6])
    labels = draw_labels(loaded.card, params, 0, [5, 6]).tolist()
    assert asked == [(t, labels) for t in range(9, -1, -1)]
    assert of_early == []
    alone = tiny_model(tmp_path, early=False, unlabelled=False)
    assert torch.equal(drawn, draw(alone, params, [5, 6])), "nor has it to have one"


def test_the_early_network_is_asked_within_the_interval_alone(tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path), guidance("early")
    asked, of_early = calls_of(loaded.model), calls_of(loaded.early)
    draw(loaded, params, [5, 6])
    labels = draw_labels(loaded.card, params, 0, [5, 6]).tolist()
    assert asked == [(t, labels) for t in range(9, -1, -1)]
    assert of_early == [(t, labels) for t in reversed(INSIDE)]


def test_the_network_is_asked_with_and_without_labels_at_once_within_the_interval_alone(tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path), guidance("unlabelled")
    asked, of_early = calls_of(loaded.model), calls_of(loaded.early)
    draw(loaded, params, [5, 6])
    labels = draw_labels(loaded.card, params, 0, [5, 6]).tolist()
    both = [*labels, NO_LABEL, NO_LABEL]
    assert asked == [(t, both if t in INSIDE else labels) for t in range(9, -1, -1)]
    assert of_early == []


@pytest.mark.parametrize(
    ("model", "guide", "says"),
    [
        ({"early": False, "unlabelled": False}, "early", "no guide early (it has none); .* with train.early"),
        ({"early": False}, "early", "no guide early (it has unlabelled); .* with train.early"),
        ({"unlabelled": False}, "unlabelled", "no guide unlabelled (it has early); .* with train.label_dropout"),
        ({"class_conditional": False}, "unlabelled", "no guide unlabelled (it has early); .*"),
        ({"class_conditional": False, "early": False}, "unlabelled", "no guide unlabelled (it has none); .*"),
    ],
    ids=str,
)
def test_a_guide_that_the_model_does_not_have_is_refused_by_name(
    model: dict[str, Any], guide: str, says: str, tmp_path: Path
) -> None:
    loaded = tiny_model(tmp_path, **model)
    says = says.replace("(", r"\(").replace(")", r"\)")
    for strength, given in ((1.5, "1.5"), (0.0, "0")):
        params = guidance(guide, strength)
        with pytest.raises(UserError, match=rf"^guidance: {given}, but this model has {says}$"):
            check_sampler(loaded, params)
        with pytest.raises(UserError, match=rf"^guidance: {given}, "):
            next(draw_batch(loaded, params, 0, [0], CPU))
    assert check_sampler(loaded, guidance(guide, 1.0)) == 10


@pytest.mark.parametrize("clip", [False, True])
def test_a_guide_that_predicts_no_number_is_noticed(clip: bool, tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    assert loaded.early
    forward = loaded.early.forward

    def spoilt(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        predicted = forward(x_t, t, labels)
        predicted[1] = torch.inf
        return predicted

    loaded.early.forward = spoilt  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"^image 8: the model's predictions are not finite"):
        draw(loaded, guidance("early", clip=clip), [7, 8, 9])
    assert draw(loaded, guidance("early", 1.0, clip=clip), [7, 8, 9]).isfinite().all()
