"""Drawing images: they depend neither on their batch nor on chance, and are of the classes that were asked for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.networks.checkpoint import LoadedModel, ModelCard, load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import batches, check_sampler, draw_batch, draw_labels, sample_batch, wanted_classes
from tests.sampling.walks import REFERENCE, sampler
from tests.small import DIGITS, FRUITS, unet_params

COUNTS = (0, 600, 0, 300, 0, 0, 0, 99, 1, 0)  # of the images that models were trained on
CPU = Runtime(torch.device("cpu"), torch.float32)


def tiny_model(
    folder: Path,
    block: str = "residual",
    prediction: str = "v",
    class_conditional: bool = True,
    data: DataCard = DIGITS,
    counts: tuple[int, ...] = COUNTS,
) -> LoadedModel:
    """A tiny model through its file, saved while in training mode, none of its weights zero."""
    params = unet_params(
        channels=(4, 8),
        block=block,
        patch_size=2,
        attention=True,
        class_conditional=class_conditional,
        prediction=prediction,
    )
    schedule = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=1e-2, beta_end=0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(params, schedule, data).train()
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                weight.copy_(0.5 + torch.rand_like(weight) if "running_var" in name else 0.3 * torch.randn_like(weight))
    save_model(folder / "model.safetensors", model, schedule, counts)
    return load_model(folder / "model.safetensors")


@pytest.fixture(
    params=[("double_conv", "noise", True), ("residual", "noise", False), ("residual", "v", True)],
    ids=["double_conv", "unconditional", "residual"],
)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return tiny_model(tmp_path, *request.param)


def draw(loaded: LoadedModel, indices: list[int], seed: int = 0, **changes: object) -> Tensor:
    *_, last = draw_batch(loaded, sampler(**changes), seed, indices, CPU)
    return last.x_prev.clone()


@pytest.mark.parametrize("changes", [{}, {"name": "ddim", "eta": 0.0, "steps": 4, "clip": True}])
def test_an_image_does_not_depend_on_its_batch(loaded: LoadedModel, changes: dict[str, object]) -> None:
    together = draw(loaded, [0, 1, 2, 3, 4], **changes)
    assert together.shape == (5, 1, 28, 28)
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    # Convolutions add in another order for another batch size.
    torch.testing.assert_close(draw(loaded, [3], **changes)[0], together[3], rtol=0, atol=1e-5)
    torch.testing.assert_close(draw(loaded, [4, 3, 17], **changes)[:2], together[[4, 3]], rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_drawing_again_gives_equal_bits_and_another_seed_other_images(loaded: LoadedModel) -> None:
    assert torch.equal(draw(loaded, [0, 1]), draw(loaded, [0, 1]))
    assert (draw(loaded, [0, 1]) - draw(loaded, [0, 1], seed=1)).abs().max() > 0.1


def test_the_network_draws_in_evaluation_mode_and_leaves_no_mode_behind(loaded: LoadedModel) -> None:
    modes = []
    nn.Module.register_forward_pre_hook(loaded.model, lambda module, _: modes.append(module.training))
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    for step in draw_batch(loaded, sampler(), 0, [0, 1], CPU):
        assert not torch.is_inference_mode_enabled()
        assert not step.x_prev.requires_grad
    assert modes == [False] * 10
    assert not any(module.training for module in loaded.model.modules())
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize(
    ("first", "count", "size", "expected"),
    [
        (0, 10, 4, [range(0, 4), range(4, 8), range(8, 10)]),
        (7, 4, 2, [range(7, 9), range(9, 11)]),
        (5, 3, 128, [range(5, 8)]),
        (5, 0, 128, []),
    ],
)
def test_batches_cover_the_indices_once_and_in_order(first: int, count: int, size: int, expected: list[range]) -> None:
    assert list(batches(first, count, size)) == expected


def test_steps_are_checked_against_the_model(loaded: LoadedModel) -> None:
    assert check_sampler(loaded, sampler()) == 10
    assert check_sampler(loaded, sampler(steps=4)) == 4
    with pytest.raises(UserError, match="steps is 11, but the model has only 10 timesteps"):
        check_sampler(loaded, sampler(steps=11))
    with pytest.raises(UserError, match="steps is 11"):
        next(draw_batch(loaded, sampler(steps=11), 0, [0], CPU))


def test_classes_that_the_model_has_not_seen_are_refused(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    for classes in ([1], [8, 3], [1, 3, 7, 8]):
        assert check_sampler(loaded, sampler(classes=classes)) == 10
    for classes, unknown in (([2], 2), ([7, 9, 0], 0), ([0, 1], 0)):
        with pytest.raises(UserError) as caught:
            check_sampler(loaded, sampler(classes=classes))
        assert str(caught.value) == f"classes: the model has not seen {unknown}; choose from 1, 3, 7, 8"
        with pytest.raises(UserError, match=f"has not seen {unknown}"):
            next(draw_batch(loaded, sampler(classes=classes), 0, [0], CPU))


def test_classes_are_named(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, data=FRUITS, counts=(5, 0, 7))
    for names, labels in ((["pear"], [2]), (["pear", "apple", "pear"], [0, 2]), ("all", [0, 2])):
        assert wanted_classes(loaded.card, sampler(classes=names)) == labels
    for classes, says in (
        (["fig"], "the model has not seen fig; choose from apple, pear"),
        (["plum"], "no class is named plum; choose from apple, fig, pear"),
        ([2], "no class is named 2; choose from apple, fig, pear"),
    ):
        with pytest.raises(UserError) as caught:
            check_sampler(loaded, sampler(classes=classes))
        assert str(caught.value) == f"classes: {says}"


def test_images_of_the_model_s_shape_are_drawn(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, data=FRUITS, counts=(5, 0, 7))
    together = draw(loaded, [0, 1, 2], seed=3)
    assert together.shape == (3, 3, 16, 8)
    torch.testing.assert_close(draw(loaded, [2], seed=3)[0], together[2], rtol=0, atol=1e-5)
    assert draw_labels(loaded.card, sampler(), 0, range(50)).unique().tolist() == [0, 2]
    assert (draw(loaded, [0], classes=["apple"]) - draw(loaded, [0], classes=["pear"])).abs().max() > 1e-3


def test_batches_are_smaller_of_larger_images(tmp_path: Path) -> None:
    """On a CPU, as many pixels as 128 digits have, and at most so many images."""
    assert sample_batch(tiny_model(tmp_path), CPU) == 128
    for shape, size in (((3, 56, 56), 32), ((1, 16, 8), 128), ((1, 1024, 1024), 1)):
        data = FRUITS.model_copy(update={"shape": shape})
        assert sample_batch(tiny_model(tmp_path, data=data, counts=(5, 0, 7)), CPU) == size


def test_classes_of_a_model_that_is_told_none_are_refused(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, class_conditional=False)
    assert check_sampler(loaded, sampler()) == 10
    for classes in ([7], [2], [1, 3, 7, 8]):
        with pytest.raises(UserError, match=r"^classes: this model is not class-conditional; say all, or train one"):
            check_sampler(loaded, sampler(classes=classes))


def card(counts: tuple[int, ...] = COUNTS) -> ModelCard:
    params = unet_params(class_conditional=True, prediction="v")
    return ModelCard(data=DIGITS, model=params, schedule=REFERENCE.params, class_counts=counts)


def test_a_label_is_that_of_seed_and_index_alone() -> None:
    together = draw_labels(card(), sampler(), 3, range(200))
    assert together.dtype == torch.int64
    assert together.tolist() == [draw_labels(card(), sampler(), 3, [index]).item() for index in range(200)]
    parts = [draw_labels(card(), sampler(), 3, indices) for indices in batches(0, 200, 7)]
    assert torch.equal(torch.cat(parts), together)
    assert draw_labels(card(), sampler(), 3, [150, 4, 99]).tolist() == together[[150, 4, 99]].tolist()
    assert not torch.equal(draw_labels(card(), sampler(), 4, range(200)), together)
    assert torch.equal(draw_labels(card(), sampler("ddim", steps=3), 3, range(200)), together)
    in_order = draw_labels(card(), sampler(classes=[3, 7]), 3, range(200))
    assert torch.equal(draw_labels(card(), sampler(classes=[7, 3]), 3, range(200)), in_order)


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        (COUNTS, "all"),
        (COUNTS, [3, 7]),
        (COUNTS, [8, 1]),
        ((5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), "all"),
        ((5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), [9, 0, 4]),
        ((5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), [7, 7, 3]),
        ((1, 0, 0, 0, 0, 0, 0, 0, 0, 10**12), "all"),
    ],
)
def test_classes_are_as_frequent_as_in_training(counts: tuple[int, ...], classes: object) -> None:
    draws = 20_000
    drawn = draw_labels(card(counts), sampler(classes=classes), 0, range(draws)).bincount(minlength=10)
    wanted = range(10) if classes == "all" else classes
    shares = torch.tensor([count if label in wanted else 0 for label, count in enumerate(counts)]).double()
    shares /= shares.sum()
    assert drawn[shares == 0].sum() == 0
    deviation = (draws * shares * (1 - shares)).sqrt()
    assert ((drawn - draws * shares).abs() <= 5 * deviation + 1).all()


@pytest.mark.parametrize("place", [0.0, 0.5, 1 - 2**-24])
def test_no_draw_gives_a_class_that_the_model_has_not_seen(place: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), place))
    for label in range(10):
        only = tuple(60_001 * (each == label) for each in range(10))
        assert draw_labels(card(only), sampler(), 0, [0, 1]).tolist() == [label, label]
    assert draw_labels(card(), sampler(), 0, [0]).item() == {0.0: 1, 0.5: 1, 1 - 2**-24: 8}[place]


def test_the_network_is_told_the_labels_that_were_drawn(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    told = []
    nn.Module.register_forward_pre_hook(loaded.model, lambda _, given: told.append(given[2]))
    for changes in ({}, {"classes": [3, 8]}):
        told.clear()
        draw(loaded, [5, 0, 30], seed=2, **changes)
        expected = draw_labels(loaded.card, sampler(**changes), 2, [5, 0, 30])
        assert len(told) == 10
        assert all(torch.equal(labels, expected) for labels in told)


def test_each_class_has_pictures_of_its_own(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    with torch.no_grad():
        loaded.model.label.weight *= 30  # loud beside the time
    drawn = {label: draw(loaded, [0, 1], classes=[label]) for label in (1, 3, 7)}
    for label, others in ((1, (3, 7)), (3, (1, 7))):
        for other in others:
            assert (drawn[label] - drawn[other]).abs().amax(dim=(1, 2, 3)).min() > 0.1
    mixed, labels = draw(loaded, list(range(8))), draw_labels(loaded.card, sampler(), 0, range(8))
    assert len(labels.unique()) > 1
    for label in (1, 3, 7):
        # By itself each is what it is among others.
        alone = draw(loaded, list(range(8)), classes=[label])
        torch.testing.assert_close(mixed[labels == label], alone[labels == label], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("data", "spacing"), [(DIGITS, "trailing"), (FRUITS, "log_snr")])
def test_a_spacing_that_is_not_set_follows_from_the_colours(data: DataCard, spacing: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, data=data, counts=(1,) * len(data.classes))
    found = {
        each: [step.t for step in draw_batch(model, sampler(steps=3, spacing=each), 0, [0], CPU)]
        for each in (None, "trailing", "log_snr")
    }
    assert found[None] == found[spacing]
    assert found["trailing"] == [9, 6, 2]
    assert found["log_snr"][::2] == [9, 0]
