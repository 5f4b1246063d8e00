"""Training: its steps by hand, its order and its randomness; cut off anywhere, it goes on bit for bit."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from ddpm.diffusion.curves import COLUMNS
from ddpm.diffusion.model import load_model, new_network, save_model
from ddpm.diffusion.randomness import generator
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.diffusion.training import Best, Training, environment_of, highest_black_level, new_training, shards_of
from ddpm.diffusion.unet import NO_LABEL
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile, held_out_mask, save_split, to_float
from ddpm.images.starts import CHOSEN, CLIP_ART, NONE, SCRATCH
from ddpm.params.card import ModelCard
from ddpm.params.model import ModelParams
from ddpm.processes.device import Runtime
from ddpm.processes.workers import run_in_processes
from ddpm.processes.world import ALONE, World
from exact_stages.commands import write
from exact_stages.console import UserError
from exact_stages.stage import Stage
from stages import train as stage
from tests.small import CPU, DIGITS, FRUITS, images, randomised, resaved, unet_params
from tests.stages.written import link_code
from tests.trainings import (
    LINEAR,
    RECIPE,
    SCHEDULE,
    assert_equal,
    denoiser,
    finished,
    network,
    one_step,
    recipe,
    recorded,
    small_training,
    state_of,
    stopped,
    weights,
)

UNIFORM = timestep_cdf(SCHEDULE, None)
MODEL = unet_params(channels=(4, 6), class_conditional=True)
DOUBLE_CONV = MODEL.model_copy(update={"block": "double_conv"})
MORE = FRUITS.model_copy(update={"classes": ("apple", "fig", "pear", "leek", "plum")})
GPU = Runtime(torch.device("cuda"), torch.float32)


def by_bucket(t: Tensor, losses: Tensor) -> list[float]:
    """Mean loss in each tenth of the 20 timesteps."""
    return [losses[t // 2 == bucket].mean().item() for bucket in range(10)]


def told(training: Training, curve: str) -> list[float]:
    return [loss for _, loss in training.curves.rows[curve]]


@pytest.mark.parametrize(
    ("block", "prediction", "class_conditional", "changes", "parts"),
    [
        ("residual", "noise", False, {"timestep_sampling": "uniform"}, [4]),
        ("residual", "noise", True, {"loss": "v"}, [2, 2]),
        ("residual", "v", True, {"loss": "v", "log_snr_center": 0.0}, [1, 1, 2]),
        ("residual", "v", False, {"log_snr_center": 0.0}, [1, 1, 1, 1]),
        ("double_conv", "noise", False, {}, [4]),
    ],
)
def test_one_step_is_adam_on_the_mean_squared_error_also_by_shards(
    block: str, prediction: str, class_conditional: bool, changes: dict[str, Any], parts: list[int]
) -> None:
    kind = {"block": block, "prediction": prediction, "class_conditional": class_conditional}
    training = small_training(**kind, warmup_steps=9, shards=len(parts), **changes)
    params = training.params
    by_hand, rows = copy.deepcopy(training.network), torch.tensor([5, 0, 9, 2])
    images, labels = training.batches.images.take(rows)
    x_start = to_float(images)

    rng = generator(0, "train", 0)
    cdf = timestep_cdf(SCHEDULE, params.log_snr_center)
    expected_t = draw_timesteps(4, cdf, params.timestep_sampling, rng)
    noise = torch.randn(4, 1, 28, 28, generator=rng)
    alpha_bar = (1 - torch.linspace(0.01, 0.5, 20, dtype=torch.float64)).cumprod(0)[expected_t].view(4, 1, 1, 1)
    signal, spread = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    x_t = signal * x_start + spread * noise
    pred_noise = denoiser(by_hand.train(), prediction)(x_t, expected_t, labels).noise
    expected = (pred_noise - noise).square().flatten(1).mean(1)
    # The velocity that a predicted noise implies is the v for which noise = spread x_t + signal v.
    pred_velocity, velocity = (pred_noise - spread * x_t) / signal, signal * noise - spread * x_start
    (expected if params.loss == "noise" else (pred_velocity - velocity).square()).mean().backward()

    seen: list[int] = []
    training.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    t, found = one_step(training, rows)
    assert seen == parts
    assert torch.equal(t, expected_t)
    # What is told is the error of the noise, whichever loss is minimised.
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    assert training.step == 1
    for name, weight in training.network.named_parameters():
        before = by_hand.get_parameter(name)
        # Relative to the largest: a convolution before BatchNorm has gradients that cancel.
        scale = before.grad.abs().max().item()
        torch.testing.assert_close(weight.grad, before.grad, rtol=1e-4, atol=1e-4 * scale + 1e-7)
        # Adam's first step, at the first of ten rates up to 0.01.
        expected_weight = before - 0.001 * weight.grad / (weight.grad.abs() + 1e-8)
        torch.testing.assert_close(weight, expected_weight, rtol=1e-5, atol=1e-6)


def test_such_a_share_is_mirrored_or_not_told_by_seed_and_step_alone() -> None:
    rows = torch.arange(64)

    def seen(**changes: Any) -> Tensor:
        """Which images of 20 steps are mirrored or have lost their label, (20, 2, 64)."""
        batches, touched = small_training(count=64, batch_size=64, **changes).batches, []
        x_start, labels = to_float(batches.images.images), batches.images.labels
        for batch in (batches.batch(rows, step) for step in range(20)):
            mirrored, lost = (batch.x_start != x_start).flatten(1).any(1), batch.labels == NO_LABEL
            assert torch.equal(batch.x_start[mirrored], x_start[mirrored].flip(3))
            assert torch.equal(batch.labels[~lost], labels[~lost])
            touched.append(torch.stack([mirrored, lost]))
        return torch.stack(touched)

    both: dict[str, Any] = {"flip": True, "label_dropout": 0.1}
    found = seen(**both)
    assert not seen().any()
    assert found.float().mean(dim=(0, 2)).tolist() == [pytest.approx(0.5, abs=0.06), pytest.approx(0.1, abs=0.035)]
    assert len({tuple(each.flatten().tolist()) for each in found}) == 20, "each step touches others"
    assert torch.equal(seen(**both), found)
    assert not torch.equal(seen(seed=1, **both), found)
    assert seen(class_conditional=False)[:, 1].all(), "the network sees no label"


@pytest.mark.parametrize("changes", [{}, {"block": "double_conv", "ema_decay": 0}], ids=str)
def test_neither_logging_nor_validating_changes_the_training(changes: dict[str, Any]) -> None:
    plain, other = (finished(count=200, **changes, **each) for each in ({}, {"log_every": 3, "held_out": 5}))
    assert other.best
    assert other.network.training
    assert_equal(plain.model.state_dict(), other.model.state_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "guide_share": 0.4, "label_dropout": 0.5},
        {"optimizer": "adam", "ema_decay": 0, "epochs": 1.5, "flip": True, "target_images": 8},
        {"optimizer": "adam", "block": "double_conv"},
    ],
    ids=str,
)
def test_a_run_that_is_cut_off_after_every_step_goes_on_bit_for_bit(changes: dict[str, Any]) -> None:
    """It depends on its own seed, and not on torch's."""
    changes = {"held_out": 5, "log_every": 3, "lr_decay": "cosine", **changes}
    whole, count, generator_before = small_training(**changes), 0, torch.get_rng_state()
    saved = resaved(whole.state_dict())
    for loss in whole.run():
        assert torch.equal(torch.get_rng_state(), generator_before)
        generator_before = torch.manual_seed(count).get_state()
        again = small_training(**changes)
        again.load_state_dict(saved)
        assert next(again.run()) == loss
        assert_equal(state_of(again), state_of(whole))
        saved = resaved(again.state_dict())
        count += 1
    assert count == whole.step
    last = small_training(**changes)
    last.load_state_dict(saved)
    assert list(last.run()) == []
    assert_equal(last.kept_model().state_dict(), whole.kept_model().state_dict())
    assert (last.curves.csv(), last.summary()) == (whole.curves.csv(), whole.summary())
    assert (last.guide is None) == ("guide_share" not in changes)


def test_the_last_short_batch_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    training = small_training(count=10, epochs=5)
    levels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 28, 28)
    training.batches.images = Split(levels, torch.arange(10))
    given, steps = (recorded(*each, monkeypatch) for each in ((training.batches, "batch"), (training.curves, "add")))
    list(training.run())
    assert [step for (_, step), _ in given] == [*range(10)]
    assert len({tuple(t.tolist()) for (t, _), _ in steps}) == 10, "each step has its own timesteps"
    numbers = torch.stack([batch.labels for _, batch in given])
    shown = torch.stack([batch.x_start[:, 0, 0, 0] for _, batch in given])
    torch.testing.assert_close(shown, numbers / 127.5 - 1, msg="images keep their labels")
    epochs = numbers.view(5, 8).tolist()
    assert [len(set(epoch)) for epoch in epochs] == [8] * 5
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert {index for epoch in epochs for index in epoch} == set(range(10))


@pytest.mark.parametrize(
    ("share", "step", "changes"),
    [
        (1e-9, 1, {}),
        (0.3, 2, {"optimizer": "muon"}),
        (0.45, 4, {"block": "double_conv"}),
        (0.5, 3, {"epochs": 1.5, "ema_decay": 0}),
    ],
)
def test_early_weights_are_those_of_a_run_stopped_there(share: float, step: int, changes: dict[str, Any]) -> None:
    """Averaged or not, with the statistics of BatchNorm; the training that goes on does not move them."""
    kept, plain = finished(guide_share=share, **changes), finished(**changes)
    assert kept.guide_step == step
    assert_equal(kept.guide, stopped(step, **changes).kept_model().state_dict())
    assert plain.guide is None
    assert_equal(plain.optimization.state_dict(), kept.optimization.state_dict())


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # network, and changes of the recipe
    "muon": (
        {"channels": (4, 6), "patch_size": 2},  # of matrices of several sizes
        {"optimizer": "muon", "held_out": 600, "guide_share": 0.5},  # five chunks of 128
    ),
    "adam": ({}, {"ema_decay": 0, "flip": True, "label_dropout": 0.5, "held_out": 3, "target_images": 8}),
}


def every_case(world: World) -> dict[str, dict[str, Any]]:
    """States of trainings by batches of five, of which a shard has one image or two."""
    states = {}
    for name, (of_network, changes) in CASES.items():
        training = small_training(prediction="v", **of_network, batch_size=5, loss="v", **changes)
        list(training.run(world))
        states[name] = state_of(training)
    return states


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return every_case(ALONE)


@pytest.mark.parametrize(("size", "length"), [(2, 0), (2, 9000), (3, 9000), (4, 9000)])
def test_several_workers_give_the_bytes_of_one(
    size: int, length: int, alone: dict[str, dict[str, Any]], allowed: Callable[[int], None]
) -> None:
    """By messages, and by shared memory; only the process that writes draws rows of samples."""
    allowed(size)
    first, *others = run_in_processes(ALONE, size, lambda world: world.gather(every_case(world)), length)
    assert_equal(first, alone)
    for found in others:
        assert_equal(found, {name: state | {"glimpses": []} for name, state in alone.items()})


def test_a_validation_loss_that_does_not_fall_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    validate = Training.validate

    def validate_with_minimum(training: Training, world: World) -> None:
        before = training.best
        validate(training, world)
        training.best = before if training.step > 100 else Best(1 / training.step, training.step, {})

    monkeypatch.setattr(Training, "validate", validate_with_minimum)
    changes: dict[str, Any] = {"count": 20, "epochs": 60, "held_out": 5}  # 5 steps in each epoch, a validation every 50
    whole, again = finished(**changes), small_training(**changes)
    assert (whole.step, whole.total_steps, whole.kept_step) == (200, 300, 100), "50 steps are not more than 0.2"
    again.load_state_dict(resaved(stopped(163, **changes).state_dict()))
    list(again.run())
    assert_equal(state_of(again), state_of(whole))


def test_validation_is_the_averaged_models_loss_by_bucket() -> None:
    # More than one chunk of 128, and BatchNorm, whose mode shows in the values; t is uniform, whatever is trained.
    training = small_training(held_out=503, block="double_conv", log_snr_center=0.0)
    for _ in range(3):
        one_step(training)
    model = copy.deepcopy(training.model).eval()
    timesteps, losses = [], []
    for chunk, (levels, labels) in enumerate(zip(*(each.split(128) for each in training.held_out), strict=True)):
        x_start = to_float(levels)
        rng = generator(0, "validation", chunk)
        t = draw_timesteps(len(x_start), UNIFORM, "stratified", rng)
        noise = torch.randn(x_start.shape, generator=rng)
        with torch.no_grad():
            pred_noise = denoiser(model)(SCHEDULE.q_sample(x_start, t, noise), t, labels).noise
        timesteps.append(t)
        losses.append((pred_noise - noise).square().mean(dim=(1, 2, 3)))
    expected = by_bucket(torch.cat(timesteps), torch.cat(losses))
    training.validate()
    assert told(training, "validation_by_timestep") == pytest.approx(expected, rel=1e-5)
    assert training.curves.rows["validation"] == [[3, pytest.approx(sum(expected) / 10, rel=1e-5)]]


def test_validation_has_no_value_where_no_timestep_fell_and_none_without_images() -> None:
    # Three strata of 20 timesteps: at most three buckets of two.
    few, training = small_training(held_out=3), finished()
    few.validate()
    assert len(few.curves.rows["validation_by_timestep"]) == 3
    assert (training.curves.rows["validation"], training.best, training.kept_step) == ([], None, 8)
    assert_equal(training.kept_model().state_dict(), training.model.state_dict())


# Of 4 steps an epoch: the first ends after 50 and 100, and the last. An epoch that is cut off ends, too.
@pytest.mark.parametrize(("count", "epochs", "steps"), [(16, 30, [52, 100, 120]), (400, 1.5, [100, 150])])
def test_some_fifty_steps_lie_between_two_validations(
    count: int, epochs: float, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm.diffusion.training.PATIENCE", 1)
    assert [step for step, _ in finished(count=count, held_out=4, epochs=epochs).curves.rows["validation"]] == steps


def test_losses_are_means_since_the_last_and_over_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = small_training(count=200, epochs=2, batch_size=50, lr=0.05, log_every=3)
    steps = recorded(training.curves, "add", monkeypatch)
    yielded = [*training.run()]
    means = [losses.mean().item() for (_, losses), _ in steps]
    # Eight steps: logging runs on over the end of an epoch, and the end of training is always logged.
    assert [step for step, _ in training.curves.rows["loss"]] == [3, 6, 8]
    expected = [sum(means[0:3]) / 3, sum(means[3:6]) / 3, sum(means[6:8]) / 2]
    of_log = told(training, "loss")
    assert yielded == [None, None, of_log[0], None, None, of_log[1], None, of_log[2]]
    assert of_log == pytest.approx(expected, rel=1e-6)
    t, losses = (torch.cat(each) for each in zip(*(given for given, _ in steps[4:]), strict=True))
    assert told(training, "loss_by_timestep") == pytest.approx(by_bucket(t, losses), rel=1e-5)


def test_losses_are_over_uniform_t_whatever_density_is_trained() -> None:
    """The loss is a function of t alone here, so that its means over t, and over each tenth of t, are known."""
    training, of_t = small_training(log_snr_center=1.0), torch.linspace(1, 20, 20).sqrt()
    t = draw_timesteps(25_600, training.cdf, "uniform", generator(0, "test"))
    training.curves.add(t, of_t[t])
    training.curves.end_epoch()
    assert training.curves.log(1) == pytest.approx(of_t.mean().item(), rel=0.03)
    assert told(training, "loss_by_timestep") == pytest.approx(of_t.view(10, 2).mean(1).tolist(), rel=0.03)


@pytest.mark.parametrize("center", [None, -1.0, 1.0])
@pytest.mark.parametrize("loss", ["noise", "v"])
def test_the_loss_that_decides_is_the_one_that_is_trained(loss: str, center: float | None) -> None:
    """Without weights in its head, the network predicts 0, so the loss at t is that of the noise, about 1, or of v."""
    model = network(unet_params(class_conditional=True))
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.zero_()
    training = small_training(held_out=4000, model=model, loss=loss, log_snr_center=center)
    training.validate()
    trained = draw_timesteps(1_000_000, timestep_cdf(SCHEDULE, center), "uniform", generator(0, "test"))
    weights = 1 / SCHEDULE.alphas_cumprod[trained] if loss == "v" else torch.ones(len(trained))
    assert training.best.loss == pytest.approx(float(weights.mean()), rel=0.01)
    errors = told(training, "validation_by_timestep")  # of the noise
    assert errors == pytest.approx([1] * 10, rel=0.02)


@pytest.mark.parametrize(("block", "ema_decay"), [("residual", 0.9), ("residual", 0), ("double_conv", 0.9)])
def test_the_best_model_is_that_of_the_lowest_validation_loss(block: str, ema_decay: float) -> None:
    """The weights grow wild after step 50, the end of the first epoch."""
    training = small_training(count=200, held_out=8, epochs=3, block=block, ema_decay=ema_decay)
    then = {}
    for _ in training.run():
        if training.step == 50:
            then = weights(training.model)
        if training.step > 50:
            with torch.no_grad():
                for weight in training.network.parameters():
                    weight.add_(1)
    assert training.kept_step == 50
    assert_equal(weights(training.kept_model()), then)
    assert all((weight != then[name]).any() for name, weight in training.model.named_parameters())


def fruits(count: int = 90, card: DataCard = FRUITS) -> SplitFile:
    """As many apples, figs and pears, in turn, of which each is the near-duplicate of one beside it."""
    numbers = torch.arange(count)
    levels = images(count, card.shape)
    levels[:, 0, 8, 0] = numbers.to(torch.uint8)  # tells which it is
    return SplitFile(card, Split(levels, numbers % 3), numbers // 6 * 6 + numbers % 3, (6,) * len(card.classes))


def of_fruits(
    split_file: SplitFile | None = None,
    model: ModelParams = MODEL,
    runtime: Runtime = CPU,
    world: World = ALONE,
    **changes: Any,
) -> Training:
    params = recipe(**{"validation": 0.2, **changes})
    return new_training(split_file or fruits(), LINEAR, model, params, runtime, world)


def held_out(training: Training) -> list[int]:
    return training.held_out.images[:, 0, 8, 0].tolist()


def test_the_images_of_the_chosen_classes_are_trained_on_but_those_held_out_as_among_all() -> None:
    split_file, training, some = fruits(), of_fruits(seed=3), of_fruits(seed=3, classes=["pear", "apple"])
    mask = held_out_mask(split_file.split, split_file.groups, 0.2, 3)
    assert 5 < mask.sum() < 40
    assert torch.equal(mask, mask[split_file.groups]), "near-duplicates together"
    assert held_out(training) == mask.nonzero().flatten().tolist()
    assert training.batches.rows.tolist() == (~mask).nonzero().flatten().tolist()
    assert training.class_counts == [30, 30, 30], "held-out ones included"
    assert held_out(some) == [each for each in held_out(training) if each % 3 != 1]
    assert some.batches.rows.tolist() == [each for each in training.batches.rows.tolist() if each % 3 != 1]
    assert some.class_counts == [30, 0, 30]


def test_what_is_not_set_follows_from_the_images_and_what_is_set_is_kept() -> None:
    model = unet_params(channels=None, patch_size=None)
    changes = {"images_seen": 330, "epochs": 200, "validation": None}
    assert of_fruits(model=model, **changes).chosen_params(model, recipe(**changes)) == {
        "model.channels": [64, 128],
        "model.patch_size": 1,
        "train.epochs": 330 / 90,
        "train.validation": 0.1,
    }
    assert of_fruits(validation=0).chosen_params(MODEL, recipe()) == {}
    assert of_fruits(images_seen=330, epochs=200, classes=["fig"]).params.epochs == 11


def test_what_is_chosen_for_so_many_images_of_such_a_shape() -> None:
    given = recipe(validation=None, target_images=None, lr=None)
    found = given.for_images(60_000, DIGITS.shape)
    assert (found.validation, found.target_images, found.lr) == (0.02, 2048, 0.003)
    assert given.for_images(9_999, DIGITS.shape).validation == 200 / 9_999
    assert given.for_images(60_000, (3, 64, 64)).target_images == 130
    assert recipe(target_images=9).for_images(60_000, DIGITS.shape).target_images == 9


def test_batches_leave_few_images_out() -> None:
    training = of_fruits(batch_size=85, validation=0)  # 5 of 90 are 5.6 %, 4 are 4.4 %
    assert training.chosen_params(MODEL, recipe(batch_size=85)) == {"train.batch_size": 45}
    assert training.batches.steps_per_epoch == 2
    assert of_fruits(batch_size=43, validation=0).params.batch_size == 43


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"classes": ["fig", "melon"]}, "train.classes: "),
        ({"split_file": fruits(card=MORE)}, "train.classes: .* leek, plum"),
        ({"model": unet_params(channels=(4, 4, 4))}, "model.channels: "),
        ({"world": World(0, 5)}, "DDPM_LAUNCH: .* start 4$"),
        ({"world": World(0, 2), "model": DOUBLE_CONV}, "DDPM_LAUNCH: .* start 1$"),
        ({"world": World(0, 5), "runtime": GPU}, "DDPM_LAUNCH: .* start 4$"),
        ({"world": World(0, 2), "model": DOUBLE_CONV, "runtime": GPU}, "DDPM_LAUNCH: .* start 1$"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(
    changes: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "gather", lambda _, value: [value])  # there are no other processes
    with pytest.raises(UserError, match=f"^{key}"):
        of_fruits(**changes)


def test_the_shards_of_a_batch_follow_the_processes_on_gpus_alone() -> None:
    assert [shards_of(MODEL, 45, CPU, World(0, size)) for size in (1, 4)] == [4, 4]
    assert [shards_of(*each, ALONE) for each in ((MODEL, 3, CPU), (DOUBLE_CONV, 45, CPU))] == [3, 1]
    assert [shards_of(MODEL, 45, GPU, World(0, size)) for size in (1, 4)] == [1, 4]
    assert shards_of(DOUBLE_CONV, 45, GPU, ALONE) == 1


def test_what_changes_the_rounding_is_told_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A kind of GPU")
    assert environment_of(GPU, 2) == GPU.describe() | {"processes": 2}
    assert environment_of(CPU, 1) == environment_of(CPU, 4) == CPU.describe()


def test_first_weights_are_the_seed_s_or_those_of_a_model_file(tmp_path: Path) -> None:
    first, again, other = (of_fruits(seed=seed) for seed in (0, 0, 1))
    assert_equal(first.network.state_dict(), again.network.state_dict())
    assert not torch.equal(first.network.stem.weight, other.network.stem.weight)
    start = randomised(new_network(MODEL, FRUITS.shape, 3, SCHEDULE.timesteps))
    facts = {"class_counts": (1, 1, 1), "guides": (), "images_seen": 1, "faint": 0}
    card = ModelCard(data=FRUITS, model=MODEL, schedule=LINEAR, **facts)
    save_model(tmp_path / "start", start, card)
    params = {"fine_tune_from": str(tmp_path / "start"), "lr": None, "validation": 0.2}
    training = of_fruits(**params)
    assert training.chosen_params(MODEL, recipe(**params)) == {"train.lr": 0.003}
    for each in (training.network, training.model):
        assert_equal(each.state_dict(), start.state_dict())


@pytest.mark.parametrize(("fits", "unlike"), [(True, {}), (False, {"channels": (12,)}), (False, None)])
def test_the_chosen_start_is_taken_where_it_fits(
    fits: bool, unlike: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(CHOSEN).parent.mkdir(parents=True)
    kind = MODEL.model_copy(update=unlike or {})
    start = randomised(new_network(kind, FRUITS.shape, 3, SCHEDULE.timesteps))
    facts = {"class_counts": (1, 1, 1), "guides": (), "images_seen": 1, "faint": 0}
    if unlike is None:
        Path(CHOSEN).write_bytes(NONE)
    else:
        save_model(Path(CHOSEN), start, ModelCard(data=FRUITS, model=kind, schedule=LINEAR, **facts))
    found = of_fruits(fine_tune_from=CHOSEN)
    begun = start if fits else of_fruits().network
    assert_equal(weights(found.network), weights(begun))
    assert found.chosen_params(MODEL, recipe(fine_tune_from=CHOSEN, validation=0.2)) == {
        "train.fine_tune_from": CLIP_ART if fits else SCRATCH
    }
    found.save(Path("model"))
    assert load_model("model").card.from_clip_art == fits
    assert (b"from_clip_art" in Path("model").read_bytes()) == fits, "other models keep their bytes"


def test_the_model_file_has_the_best_weights_and_the_guides(tmp_path: Path) -> None:
    training = of_fruits(batch_size=10, guide_share=0.5, label_dropout=0.1)
    list(training.run())
    training.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert_equal(loaded.network.state_dict(), training.kept_model().state_dict())
    assert_equal(dict(loaded.guide.state_dict()), dict(training.guide or {}))
    assert (loaded.card.guides, loaded.card.class_counts) == (("autoguidance", "classifier_free"), (30, 30, 30))
    assert training.summary() == {
        "train_loss": pytest.approx(sum(told(training, "loss_by_timestep")) / 10, abs=1e-6),
        "validation_loss": pytest.approx(training.curves.rows["validation"][-1][1], abs=1e-6),
        "images_seen": training.total_steps * training.params.batch_size,
        "parameters": sum(weight.numel() for weight in loaded.network.parameters()),
        "steps": training.total_steps,
        "kept_step": training.total_steps,
        "guide_step": round(training.total_steps / 2),
        "trail": [f"{step} {found}" for step, found in training.trail.items()],
    }


@pytest.mark.parametrize(
    ("counts", "faint"),
    [
        ([100_000, 100, 100, 50_000], 2),  # log 1000 is above 2^2 / 4.5, log 2 is not above 3^2 / 4.5
        ([500, 450, 300, 400], 0),
        ([100_000], 7),  # black and white: log 100000 is above 7^2 / 4.5
    ],
)
def test_levels_that_are_rare_beside_black_are_faint(counts: list[int], faint: int) -> None:
    levels = torch.arange(len(counts), dtype=torch.uint8).repeat_interleave(torch.tensor(counts))
    assert highest_black_level(torch.cat([levels, torch.full((1000,), 255, dtype=torch.uint8)])) == faint


def test_a_loss_that_is_not_finite_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.full(shape, torch.nan))
    with pytest.raises(UserError, match=r"^train\.lr: "):
        finished()


def run_stage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sampled: object, channels: object = (4,), **changes: Any
) -> None:
    """Run it in a folder of its own, on 40 images of five classes; classes 3 and 4 have two test images each."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)  # it would outlive the test
    for name, value in {"DDPM_DEVICE": "cpu", "DDPM_PRECISION": "float32"}.items():
        monkeypatch.setenv(name, value)
    card = DIGITS.model_copy(update={"classes": tuple("01234")})
    labels = torch.arange(40) % 5
    Path("data/processed").mkdir(parents=True)
    save_split(stage.TRAIN, card, labels, torch.arange(40), (6, 6, 6, 2, 2), [images(40)])
    sections = "params: [model, schedule, train]"
    Path("dvc.yaml").write_text(
        f"stages: {{train: {{cmd: python -m stages.train, deps: [code/train.txt], {sections}}}}}"
    )
    link_code()
    model, schedule = unet_params(channels=channels).model_dump(mode="json"), LINEAR.model_dump()
    params = {"schedule": schedule, "model": model, "train": {**RECIPE, **changes}, "sample": {"classes": sampled}}
    Path("params.yaml").write_text(json.dumps(params))  # JSON is YAML
    Path("pyproject.toml").write_text("[project]\ndependencies = []\n")
    Path("constraints.txt").touch()
    write()
    stage.main(Stage("train"))


def test_the_stage_writes_model_curves_summary_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(tmp_path, monkeypatch, "all", None, validation=0.2, log_every=3)
    folder = Path("metrics/train")
    summary, environment = (json.loads((folder / f"{each}.json").read_text()) for each in ("summary", "environment"))
    steps = summary["steps"]
    assert f"{steps} steps are few" in capsys.readouterr().out
    assert environment == CPU.describe()
    assert summary["chosen"] == {"model.channels": "[128]"}, "DVC shows no lists"
    assert load_model("models/ddpm.safetensors").card.images_seen == summary["images_seen"] == 4 * steps
    assert (folder / "samples.png").is_file()
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    assert {name: list(table.columns) for name, table in tables.items()} == COLUMNS


@pytest.mark.parametrize(("trained", "sampled", "key"), [([3], "all", "train"), ("all", [3, 4], "sample")])
def test_classes_with_too_few_test_images_are_refused_by_their_key(
    trained: object, sampled: object, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=rf"^{key}\.classes: .* test images"):
        run_stage(tmp_path, monkeypatch, sampled, classes=trained)
