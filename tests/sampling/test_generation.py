"""Sampling images: they depend neither on their batch nor on chance, and are of the classes that were asked for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddpm.compute.randomness import ImageNoise
from ddpm.images.card import DataCard
from ddpm.model import LoadedModel, ModelCard
from ddpm.sample import check_sampler, sample_batch, sample_labels, spaced_timesteps
from ddpm.schedule import posterior
from exact_stages.console import UserError
from tests.sampling.reverse import REFERENCE, sample, sampler, tiny_model
from tests.small import CPU, DIGITS, FRUITS, unet_params

COUNTS = (0, 600, 0, 300, 0, 0, 0, 99, 1, 0)  # of the images that models were trained on
TIMESTEPS = (9, 6, 2)
DISTILLED = {"timesteps": TIMESTEPS}
MNIST = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


@pytest.fixture(
    params=[
        {"block": "double_conv", "prediction": "noise"},
        {"class_conditional": False, "attention": True},
        {"data": FRUITS, "counts": (5, 0, 7)},
    ],
    ids=str,
)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return tiny_model(tmp_path, **request.param)


@pytest.mark.parametrize("params", [sampler(), sampler("ddim", eta=0.0, steps=4, clip=True)], ids=["ddpm", "ddim"])
def test_an_image_is_that_of_seed_and_index_alone(loaded: LoadedModel, params: Any) -> None:
    together = sample(loaded, [0, 1, 2, 3, 4], params)
    assert together.shape == (5, *loaded.card.data.shape)
    assert torch.equal(sample(loaded, [0, 1, 2, 3, 4], params), together)
    # Convolutions add in another order for another batch size.
    atol = 1e-5 * max(1.0, together.abs().max().item())
    torch.testing.assert_close(sample(loaded, [3], params)[0], together[3], rtol=0, atol=atol)
    torch.testing.assert_close(sample(loaded, [4, 3, 17], params)[:2], together[[4, 3]], rtol=0, atol=atol)
    assert (together[0] - together[1]).abs().max() > 0.1
    assert (sample(loaded, [0, 1], params, seed=1) - together[:2]).abs().max() > 0.1


def test_the_network_samples_in_evaluation_mode_and_leaves_no_mode_behind(loaded: LoadedModel) -> None:
    modes = []
    nn.Module.register_forward_pre_hook(loaded.network, lambda module, _: modes.append(module.training))
    before = {name: weight.clone() for name, weight in loaded.network.state_dict().items()}
    for step in sample_batch(loaded, sampler(), 0, [0, 1], CPU):
        assert not torch.is_inference_mode_enabled()
        assert not step.x_prev.requires_grad
    assert modes == [False] * 10
    torch.testing.assert_close(dict(loaded.network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "params", "key"),
    [
        ({}, {"steps": 11}, "steps"),
        ({"counts": COUNTS}, {"classes": [7, 9, 0]}, "classes: .* 0; .* 1, 3, 7, 8"),
        ({"data": FRUITS, "counts": (5, 0, 7)}, {"classes": ["fig"]}, "classes: .*fig; .* apple, pear"),
        ({"data": FRUITS}, {"classes": ["melon"]}, "classes: .*melon; .* apple, fig, pear"),
        ({"class_conditional": False}, {"classes": [7]}, "classes"),
        ({"classifier_free": True}, {"guidance": 0.0}, "guidance: .* train.guide_share"),
        ({"guide": True}, {"guidance": 2.0, "guide": "classifier_free"}, "guidance: .* train.label_dropout"),
        (DISTILLED, {"name": "dpmpp_2m"}, "sampler"),
        (DISTILLED, {"name": "ddim", "eta": 0.5}, "eta"),
        (DISTILLED, {"eta": 0.5}, "eta"),
        (DISTILLED, {"variance": "beta"}, "variance"),
        (DISTILLED, {"steps": 4}, "steps"),
        (DISTILLED, {"spacing": "trailing"}, "spacing"),
        (DISTILLED, {"guidance": 1.3}, "guidance"),
    ],
    ids=str,
)
def test_what_the_model_cannot_sample_is_refused_by_key(
    model: dict[str, Any], params: dict[str, Any], key: str, tmp_path: Path
) -> None:
    loaded = tiny_model(tmp_path, **model)
    for refuses in (check_sampler, lambda *given: next(sample_batch(*given, 0, [0], CPU))):
        with pytest.raises(UserError, match=f"^{key}"):
            refuses(loaded, sampler(**{"spacing": None, **params}))


@pytest.mark.parametrize(("data", "spacing"), [(DIGITS, "cubic"), (FRUITS, "log_snr")], ids=["grey", "colour"])
def test_a_spacing_that_is_not_set_follows_from_the_colours(data: DataCard, spacing: str, tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, data)
    steps = sample_batch(loaded, sampler(steps=4, spacing=None), 0, [0], CPU)
    assert [step.t for step in steps] == spaced_timesteps(loaded.schedule, 4, spacing)


def card(counts: tuple[int, ...] = COUNTS) -> ModelCard:
    params = unet_params(class_conditional=True, prediction="v")
    return ModelCard(data=DIGITS, model=params, schedule=REFERENCE.params, class_counts=counts)


def test_a_label_is_that_of_seed_and_index_alone() -> None:
    together = sample_labels(card(), sampler(), 3, range(200))
    assert together.tolist() == [sample_labels(card(), sampler(), 3, [index]).item() for index in range(200)]
    assert sample_labels(card(), sampler(), 3, [150, 4, 99]).tolist() == together[[150, 4, 99]].tolist()
    assert not torch.equal(sample_labels(card(), sampler(), 4, range(200)), together)
    assert torch.equal(sample_labels(card(), sampler("ddim", steps=3), 3, range(200)), together)
    in_order = sample_labels(card(), sampler(classes=[3, 7]), 3, range(200))
    assert torch.equal(sample_labels(card(), sampler(classes=[7, 3]), 3, range(200)), in_order)


@pytest.mark.parametrize(
    ("counts", "classes"),
    [(COUNTS, "all"), (COUNTS, [3, 7]), (MNIST, "all"), (MNIST, [7, 7, 3]), ((1, *[0] * 8, 10**12), "all")],
)
def test_classes_are_as_frequent_as_in_training(counts: tuple[int, ...], classes: object) -> None:
    draws = 20_000
    sampled = sample_labels(card(counts), sampler(classes=classes), 0, range(draws)).bincount(minlength=10)
    wanted = range(10) if classes == "all" else classes
    shares = torch.tensor([count if label in wanted else 0 for label, count in enumerate(counts)]).double()
    shares /= shares.sum()
    assert sampled[shares == 0].sum() == 0
    deviation = (draws * shares * (1 - shares)).sqrt()
    assert ((sampled - draws * shares).abs() <= 5 * deviation + 1).all()


@pytest.mark.parametrize(("place", "label"), [(0.0, 1), (0.5, 1), (1 - 2**-24, 8)])
def test_no_draw_gives_a_class_that_the_model_has_not_seen(
    place: float, label: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), place))
    assert sample_labels(card(), sampler(), 0, [0]).item() == label
    for only in range(10):
        counts = tuple(60_001 * (each == only) for each in range(10))
        assert sample_labels(card(counts), sampler(), 0, [0]).item() == only


def test_the_network_is_told_the_labels_that_were_sampled_and_samples_by_them(tmp_path: Path) -> None:
    loaded, told = tiny_model(tmp_path, counts=COUNTS), []
    nn.Module.register_forward_pre_hook(loaded.network, lambda _, given: told.append(given[2]))
    mixed, labels = sample(loaded, [*range(8)]), sample_labels(loaded.card, sampler(), 0, range(8))
    assert len(told) == 10
    assert all(torch.equal(each, labels) for each in told)
    for label in labels.unique().tolist():
        # By itself each is what it is among others.
        alone = sample(loaded, [*range(8)], sampler(classes=[label]))
        torch.testing.assert_close(mixed[labels == label], alone[labels == label], rtol=0, atol=1e-4)
        assert (mixed[labels != label] - alone[labels != label]).abs().amax(dim=(1, 2, 3)).min() > 0.1


@pytest.mark.parametrize(
    "params", [sampler(spacing=None), sampler("ddim", spacing=None, steps=3)], ids=["ddpm", "ddim"]
)
def test_a_distilled_model_draws_by_the_timesteps_of_its_file(params: Any, tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, timesteps=TIMESTEPS)
    assert check_sampler(loaded, params) == 3
    steps = list(sample_batch(loaded, params, 0, [4, 7], CPU))
    assert [step.t for step in steps] == [*TIMESTEPS]
    noise, abar = ImageNoise(0, [4, 7], DIGITS.shape), loaded.schedule.alphas_cumprod.tolist()
    labels, x_t = sample_labels(loaded.card, params, 0, [4, 7]), noise()
    for t, s in zip(TIMESTEPS, [*TIMESTEPS[1:], None], strict=True):
        times = torch.tensor([t, t])
        with torch.inference_mode():
            estimate = loaded.denoiser(CPU)(x_t, times, labels).x_start
        if s is None:
            x_t = estimate
        else:
            coef1, coef2, variance = posterior(abar[t], abar[s])
            x_t = coef1 * estimate + coef2 * x_t + variance**0.5 * noise()
    torch.testing.assert_close(steps[-1].x_prev, x_t, rtol=0, atol=1e-4)
