"""Sampling images with guidance: by the written-out combination of what two networks, or one asked twice, predict."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.compute.randomness import ImageNoise
from ddpm.model import LoadedModel
from ddpm.sample import Denoise, SamplerParams, p_sample_loop, sample_labels
from ddpm.unet import NO_LABEL
from exact_stages.console import UserError
from tests.sampling.reverse import TEN, sample, sampler, tiny_model
from tests.small import CPU, FRUITS

INTERVAL = (-2.0, 1.5)
INSIDE = [t for t in range(10) if INTERVAL[0] <= TEN.alphas_cumprod[t].logit() <= INTERVAL[1]]
BOTH = {"guide": True, "classifier_free": True}


def guidance(guide: str, strength: float = 2.5, **changes: Any) -> SamplerParams:
    given: dict[str, Any] = {"guidance": strength, "guide": guide, "guidance_interval": INTERVAL}
    return sampler(**given | changes)


def by_hand(loaded: LoadedModel, params: SamplerParams, labels: Tensor) -> Denoise:
    """The combination, of one network's answer at a time."""

    def denoise(x_t: Tensor, t: int) -> Tensor:
        times = torch.full((len(x_t),), t)
        pred_x_start = loaded.denoiser(CPU)(x_t, times, labels).x_start
        if t not in INSIDE:
            return pred_x_start
        if params.guide == "autoguidance":
            assert loaded.guide
            of_guide = loaded.denoiser(CPU, loaded.guide)(x_t, times, labels).x_start
        else:
            of_guide = loaded.denoiser(CPU)(x_t, times, torch.full_like(labels, NO_LABEL)).x_start
        return params.guidance * pred_x_start + (1 - params.guidance) * of_guide

    return denoise


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.5])
@pytest.mark.parametrize("sampling", [{"name": "ddpm"}, {"name": "dpmpp_2m", "steps": 6, "clip": True}], ids=str)
@pytest.mark.parametrize(
    ("guide", "model"),
    [
        ("autoguidance", {"guide": True, "class_conditional": False}),
        ("autoguidance", {"guide": True, "block": "double_conv", "prediction": "noise"}),
        ("autoguidance", {**BOTH, "data": FRUITS}),
        ("classifier_free", {"classifier_free": True, "block": "double_conv", "prediction": "noise"}),
        ("classifier_free", {**BOTH, "data": FRUITS}),
    ],
    ids=str,
)
def test_drawing_is_by_the_written_out_combination(
    guide: str, model: dict[str, Any], sampling: dict[str, Any], strength: float, tmp_path: Path
) -> None:
    assert 2 < len(INSIDE) < 8, "there are steps before and behind the interval"
    loaded, indices = tiny_model(tmp_path, **model), [7, 2, 30]
    params = guidance(guide, strength, **sampling)
    noise = ImageNoise(4, indices, loaded.card.data.shape)
    with torch.inference_mode():
        denoise = by_hand(loaded, params, sample_labels(loaded.card, params, 4, indices))
        *_, expected = p_sample_loop(denoise, loaded.schedule, params, noise)
    sampled = sample(loaded, indices, params, seed=4)
    scale = expected.x_prev.abs().max().item()
    torch.testing.assert_close(sampled, expected.x_prev, rtol=0, atol=1e-4 * scale)
    assert (sampled - sample(loaded, indices, sampler(**sampling), seed=4)).abs().max() > 1e-2 * scale, "it is guided"


@pytest.mark.parametrize(("spoilt", "strength"), [("network", 1.0), ("network", 2.0), ("guide", 2.0)])
@pytest.mark.parametrize("clip", [False, True])
def test_a_network_that_predicts_no_number_is_noticed(
    spoilt: str, strength: float, clip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny_model(tmp_path, guide=True)
    network = getattr(loaded, spoilt)
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda *given: forward(*given).index_fill(0, torch.tensor(1), torch.inf))
    with pytest.raises(UserError, match=r"^image 8: "):
        sample(loaded, [7, 8, 9], guidance("autoguidance", strength, clip=clip))
