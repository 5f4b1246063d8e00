"""Sampling from a model: what fits it, labels, guidance, whole sets; an image depends on its seed and number alone."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import NotFiniteError
from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.randomness import ImageNoise
from ddpm.diffusion.sets import Sampling, sample, sample_batch, sample_batch_size, sample_images, sample_labels
from ddpm.diffusion.unet import NO_LABEL
from ddpm.images.splits import Samples, to_uint8
from ddpm.params.sample import SamplerParams, SetParams, SharedParams, fitted, fitted_set
from ddpm.processes import device, workers
from ddpm.processes.workers import run_in_processes
from ddpm.processes.world import ALONE, World
from exact_stages.console import UserError
from tests.cli.generating import ENVIRONMENT, call
from tests.reverse import OF_REFERENCE, TEN, model_card, reverse, sampled, sampler, tiny_model
from tests.small import CPU, DIGITS, FRUITS, resaved
from tests.trainings import assert_equal

COUNTS = (0, 600, 0, 300, 0, 0, 0, 99, 1, 0)  # of the images that models were trained on
DISTILLED = {"timesteps": (999, 600, 20)}
SOME_FRUITS = {"data": FRUITS, "counts": (5, 0, 7)}
GUIDED = {"guides": ("autoguidance",)}
FREE = {"guides": ("classifier_free",)}


@pytest.mark.parametrize(
    ("side", "memory", "on_cpu", "on_gpu"),
    [(28, 10**12, 32, 2500), (56, 10**12, 8, 625), (1024, 10**12, 1, 1), (28, 20_800_000, 32, 100), (8, 0, 32, 1)],
)
def test_images_sampled_side_by_side_fit_caches_and_memory(
    monkeypatch: pytest.MonkeyPatch, side: int, memory: int, on_cpu: int, on_gpu: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, memory))  # the free memory has no say
    card = model_card(DIGITS.model_copy(update={"shape": (1, side, side)}))
    found = [sample_batch_size(card, device.Runtime(torch.device(each), torch.float32)) for each in ("cpu", "cuda")]
    assert found == [on_cpu, on_gpu]


def test_three_lines_of_python_sample_what_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_model(tmp_path)
    words = ["--model", tmp_path / "model.safetensors", "--classes", 7, "--count", 40, "--steps", 4]
    call("generate", *words, "--format", "npz", "--out", tmp_path / "sevens")
    for name, value in {**ENVIRONMENT, "DDPM_WORKERS": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(workers, "_forked", None)  # a program that imports it is not forked
    images, labels = sample(loaded, 40, classes=[7], steps=4)
    assert labels.tolist() == [7] * 40
    np.testing.assert_array_equal(images.squeeze(1), np.load(tmp_path / "sevens/images.npz")["images"])
    assert sample(tiny_model(tmp_path, class_conditional=False), 2, steps=2).labels.tolist() == [NO_LABEL] * 2
    with pytest.raises(UserError, match=r"^count: "):
        sample(loaded, 0)


def test_a_program_that_samples_by_import_ddpm_loads_no_dvc() -> None:
    script = """
import sys
import ddpm
assert not {"torch", "pydantic"} & {*sys.modules}
images, labels = ddpm.sample(ddpm.load_pretrained("mnist"), count=2, classes=["7"], steps=2)
print(*images.shape, *labels.tolist(), ddpm.load_model.__name__, *{name for name in sys.modules if "dvc" in name})
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout.split() == [*["2", "1", "28", "28", "7", "7"], "load_model"], ran.stderr


def settings() -> list[object]:
    cudnn = torch.backends.cudnn
    memory = torch.utils.deterministic.fill_uninitialized_memory
    flags = [torch.get_deterministic_debug_mode(), cudnn.benchmark, cudnn.allow_tf32, memory]
    return [torch.get_num_threads(), *flags, dict(os.environ)]


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_program_that_has_sampled_computes_as_before(
    spoilt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, threads = tiny_model(tmp_path), torch.get_num_threads()
    monkeypatch.setattr(device, "_keep_memory", None)  # malloc is the caller's
    monkeypatch.delenv(device.CUBLAS, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    deterministic = torch.are_deterministic_algorithms_enabled()  # by a test of a stage before
    torch.use_deterministic_algorithms(False)
    within: list[object] = []

    def look(*_: object) -> None:
        within.extend(settings()[:2])
        if spoilt:
            raise ZeroDivisionError

    loaded.network.register_forward_pre_hook(look)
    try:
        torch.set_num_threads(2)
        before = settings()
        with pytest.raises(ZeroDivisionError) if spoilt else contextlib.nullcontext():
            sample(loaded, 1, steps=1)
        assert settings() == before
        torch.zeros(5).put_(torch.tensor([1]), torch.ones(1))  # it has no deterministic version
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    assert within == [1, 2], "one thread, deterministic"


@pytest.mark.parametrize(
    ("facts", "params", "said"),
    [
        ({"counts": COUNTS}, {"classes": [7, 9, 0]}, "classes: .* 0; .* 1, 3, 7, 8"),
        ({"data": FRUITS}, {"classes": ["melon"]}, "classes: .*melon; .* apple, fig, pear"),
        (FREE, {"guidance": 0.0}, "guidance: .* train.guide_share"),
        (GUIDED, {"guide": "classifier_free"}, "guidance: .* train.label_dropout"),
        (DISTILLED, {"sampler": "dpmpp_2m"}, "sampler: .* ddpm or ddim"),
        (DISTILLED, {"sampler": "ddim", "eta": 0.5}, "eta: .* 1;"),
        (DISTILLED, {"steps": 4}, "steps: 4, .* null or 3"),
        (DISTILLED, {"guidance": 1.3}, "guidance: .* set guidance to 1$"),
    ],
    ids=str,
)
def test_params_that_do_not_fit_are_refused_by_key(facts: dict[str, Any], params: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        fitted(SamplerParams.model_validate(params), model_card(schedule=OF_REFERENCE, **facts))


@pytest.mark.parametrize(
    ("facts", "params", "chosen"),
    [
        ({}, {}, {"guidance": 1.0}),
        (GUIDED, {}, {"guidance": 1.3}),
        (GUIDED | {"images_seen": 107_000}, {}, {"guidance": 1.1}),
        (GUIDED | {"images_seen": 107_000, "from_clip_art": True}, {}, {"guidance": 1.5}),
        (GUIDED | {"images_seen": 640_000}, {}, {"guidance": 1.3}),
        (FREE, {"guide": "classifier_free"}, {"guidance": 1.1}),
        (DISTILLED, {}, {"sampler": "ddpm", "steps": None, "guidance": 1.0}),
        (DISTILLED, {"sampler": "ddim", "steps": 3}, {"guidance": 1.0}),
    ],
    ids=str,
)
def test_unset_params_follow_the_model(facts: dict[str, Any], params: dict[str, Any], chosen: dict[str, Any]) -> None:
    card, given = model_card(schedule=OF_REFERENCE, **facts), SamplerParams.model_validate(params)
    found = fitted(given, card)
    assert found.model_dump() == given.model_dump() | chosen
    assert fitted(found, card) == found


SET = SetParams(sampler="ddim", steps=10, count=7, keep_every=4, seed=3)


def test_a_set_has_its_own_params_and_what_is_chosen_is_told_by_key() -> None:
    params, chosen = fitted_set("preview", SharedParams(classes=(7,)), SET, model_card(schedule=OF_REFERENCE, **GUIDED))
    assert chosen == {"sample.guidance": 1.3}
    counts = (9_000, 900) + (0,) * 8
    few, many = (model_card(schedule=OF_REFERENCE, counts=each) for each in ((500, 92, *counts[2:]), counts))
    open_set = SET.model_copy(update={"count": None})
    found = [fitted_set("scored", SharedParams(guidance=1.0), open_set, card)[1] for card in (few, many)]
    assert found == [{"sample.scored.count": 616}, {"sample.scored.count": 10_296}]
    assert (params.sampler, params.steps, params.classes) == ("ddim", 10, (7,))


def test_a_label_is_that_of_seed_and_index_alone() -> None:
    card = model_card(counts=COUNTS)
    together = sample_labels(card, sampler(), 3, range(200))
    assert together.tolist() == [sample_labels(card, sampler(), 3, [index]).item() for index in range(200)]
    assert not torch.equal(sample_labels(card, sampler(), 4, range(200)), together)
    assert torch.equal(sample_labels(card, sampler("ddim", steps=3), 3, range(200)), together)
    in_order, turned = (sample_labels(card, sampler(classes=each), 3, range(200)) for each in ([3, 7], [7, 3]))
    assert torch.equal(turned, in_order)


@pytest.mark.parametrize(
    ("counts", "classes"), [(COUNTS, "all"), (COUNTS, [3, 7]), (COUNTS, [7, 7, 3]), ((1, *[0] * 8, 10**12), "all")]
)
def test_classes_are_as_frequent_as_in_training_in_every_run_of_indices(counts: tuple[int, ...], classes: Any) -> None:
    card = model_card(counts=counts)
    wanted = range(10) if classes == "all" else classes
    shares = torch.tensor([count if label in wanted else 0 for label, count in enumerate(counts)]).double()
    shares /= shares.sum()
    labels = sample_labels(card, sampler(classes=classes), 0, range(1000, 21_000))
    found = torch.nn.functional.one_hot(labels, 10).double().cumsum(0)
    assert found[-1][shares == 0].sum() == 0
    assert ((found - torch.arange(1, 20_001)[:, None] * shares).abs() <= 3).all()


@pytest.mark.parametrize(
    "facts", [{"block": "double_conv", "prediction": "noise"}, {"class_conditional": False}, SOME_FRUITS], ids=str
)
@pytest.mark.parametrize("params", [sampler(), sampler("ddim", eta=0.0, steps=4, clip=True)], ids=["ddpm", "ddim"])
def test_an_image_is_that_of_seed_and_index_alone(facts: dict[str, Any], params: Any, tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, **facts)
    together = sampled(loaded, [0, 1, 2, 3, 4], params)
    assert together.shape == (5, *loaded.card.data.shape)
    assert torch.equal(sampled(loaded, [0, 1, 2, 3, 4], params), together)
    # Convolutions add in another order for another batch size.
    atol = 1e-5 * max(1.0, together.abs().max().item())
    torch.testing.assert_close(sampled(loaded, [4, 3, 17], params)[:2], together[[4, 3]], rtol=0, atol=atol)
    assert (together[0] - together[1]).abs().max() > 0.1
    assert (sampled(loaded, [0, 1], params, seed=1) - together[:2]).abs().max() > 0.1


def test_faint_levels_are_black_in_samples_and_nowhere_before(tmp_path: Path) -> None:
    plain = tiny_model(tmp_path)
    dark = plain._replace(card=plain.card.model_copy(update={"faint": 200}))
    both = ([*sample_batch(each, sampler(), 0, range(4), CPU)] for each in (plain, dark))
    (*before, last), (*early, black) = both
    assert_equal(early, before)
    levels = to_uint8(last.x_prev)
    assert 0 < int((levels > 200).sum()) < levels.numel()
    assert_equal(to_uint8(black.x_prev), torch.where(levels > 200, levels, 0))


def test_a_distilled_model_samples_at_its_own_timesteps(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, timesteps=(9, 6, 2))
    steps = sample_batch(loaded, fitted(SamplerParams(), loaded.card), 0, [4, 7], CPU)
    assert [step.t for step in steps] == [9, 6, 2]


INTERVAL = (-2.0, 1.5)
INSIDE = [t for t in range(10) if INTERVAL[0] <= TEN.alphas_cumprod[t].logit() <= INTERVAL[1]]


@pytest.mark.parametrize("scale", [0.0, 2.5])
@pytest.mark.parametrize("sampling", [{"name": "ddpm"}, {"name": "dpmpp_2m", "steps": 6, "clip": True}], ids=str)
@pytest.mark.parametrize(
    ("guide", "facts"),
    [
        ("autoguidance", {**GUIDED, "class_conditional": False}),
        ("autoguidance", {"guides": ("autoguidance", "classifier_free"), "data": FRUITS}),
        ("classifier_free", {**FREE, "block": "double_conv", "prediction": "noise"}),
    ],
    ids=str,
)
def test_guided_samples_are_those_of_the_written_out_combination(
    guide: str, facts: dict[str, Any], sampling: dict[str, Any], scale: float, tmp_path: Path
) -> None:
    assert 2 < len(INSIDE) < 8, "there are steps before and behind the interval"
    loaded, indices = tiny_model(tmp_path, **facts), [7, 2, 30]
    params = sampler(**sampling, guidance=scale, guide=guide, guidance_interval=INTERVAL)
    labels = sample_labels(loaded.card, params, 4, indices)
    other = (loaded.guide, labels) if guide == "autoguidance" else (loaded.network, torch.full_like(labels, NO_LABEL))

    def denoise(x_t: Tensor, t: int) -> Tensor:
        asked = ((loaded.network, labels), other)
        told, guiding = (loaded.denoiser(CPU, net)(x_t, torch.full((3,), t), each).x_start for net, each in asked)
        return scale * told + (1 - scale) * guiding if t in INSIDE else told

    noise = ImageNoise(4, indices, loaded.card.data.shape)
    with torch.inference_mode():
        *_, expected = reverse(denoise, params, TEN, noise)
    size = expected.x_prev.abs().max().item()
    found = sampled(loaded, indices, params, seed=4)
    torch.testing.assert_close(found, expected.x_prev, rtol=0, atol=1e-4 * size)
    assert (found - sampled(loaded, indices, sampler(**sampling), seed=4)).abs().max() > 1e-2 * size, "it is guided"


@pytest.mark.parametrize(("spoilt", "scale"), [("network", 1.0), ("network", 2.0), ("guide", 2.0)])
@pytest.mark.parametrize("clip", [False, True])
def test_predictions_that_are_not_finite_end_in_an_error_that_names_the_image(
    spoilt: str, scale: float, clip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny_model(tmp_path, **GUIDED)
    network = getattr(loaded, spoilt)
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda *given: forward(*given).index_fill(0, torch.tensor(1), torch.inf))
    with pytest.raises(NotFiniteError, match=r"^image 8: "):
        sampled(loaded, [7, 8, 9], sampler(guidance=scale, clip=clip))


class EveryState:
    """Stands for the checkpoints: keeps the state wherever it may be saved."""

    def __init__(self, found: Sampling, world: World) -> None:
        self.found = found
        self.world = world
        self.states: list[dict[str, Any]] = []

    def run_in_processes(self, shards: int, work: Callable[[World], None]) -> None:
        run_in_processes(self.world, shards, work)

    def save_if_due(self) -> None:
        self.states.append(resaved(self.found.state_dict()))


def whole_set(
    loaded: LoadedModel, keep_every: int = 4, state: dict[str, Any] | None = None, world: World = ALONE
) -> tuple[Samples, list[dict[str, Any]]]:
    """A set of seven in batches of two, which may continue from a state, and the states on the way."""
    found = Sampling("preview", loaded, sampler(steps=10), SET.model_copy(update={"keep_every": keep_every}))
    if state:
        found.load_state_dict(state)
    kept_states = EveryState(found, world)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ddpm.diffusion.sets.sample_batch_size", lambda *_: 2)
        found.run(CPU, world, kept_states)  # type: ignore[arg-type]
    return found.samples(), [*kept_states.states, resaved(found.state_dict())]


def assert_equal_sets(left: Samples, right: Samples) -> None:
    for ours, theirs in zip(left, right, strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs


def test_a_set_has_the_images_labels_and_frames_of_the_sampler(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    found, _ = whole_set(loaded)
    steps = [*sample_batch(loaded, sampler(steps=10), 3, range(7), CPU)]
    kept = [step for step in steps if step.t in (8, 4, 0)]
    assert (found.kept_t, found.classes) == ([8, 4, 0], [*range(10)])
    assert found.made == {"set": "preview", "sampler": "ddpm", "evaluations": 10, "guidance": 1.0}
    assert torch.equal(found.labels, sample_labels(loaded.card, sampler(), 3, range(7)))
    for ours, expected in (
        (found.images, to_uint8(steps[-1].x_prev)),
        (found.x_t, torch.stack([to_uint8(step.x_prev) for step in kept])),
        (found.pred_x_start, torch.stack([to_uint8(step.pred_x_start) for step in kept])),
    ):
        assert ours.shape == expected.shape
        # Convolutions add in another order for another batch size, which moves few pixels by one level.
        assert (ours.int() - expected.int()).abs().max() <= 1
    assert torch.equal(found.x_t[-1], found.images)


@pytest.mark.parametrize("keep_every", [0, 4, 100])
def test_a_set_that_is_cut_off_after_any_batch_has_the_same_bytes(keep_every: int, tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    whole, states = whole_set(loaded, keep_every)
    assert [len(state["images"]) for state in states] == [*([0] * 10), *([2] * 10), *([4] * 10), *([6] * 10), 7]
    for state in states[::10]:
        again, after = whole_set(loaded, keep_every, state)
        assert_equal_sets(again, whole)
        assert len(after) == 1 + 10 * -(-(7 - len(state["images"])) // 2), "the rest alone is sampled"


@pytest.mark.parametrize(("size", "steps"), [(2, 20), (3, 20), (9, 10)])
def test_workers_have_the_bytes_of_one(size: int, steps: int, tmp_path: Path, allowed: Callable[[int], None]) -> None:
    """One of the set, and of images one after another, also where a set is cut off."""
    loaded = tiny_model(tmp_path)
    numbers = range(3, 3 + 70)
    expected, states = whole_set(loaded)
    images = [*sample_images(loaded, sampler(steps=10), 3, numbers, CPU)]
    assert [*map(len, (batch for batch, _ in images))] == [32, 32, 6]
    allowed(size)
    found, after = whole_set(loaded)
    assert_equal_sets(found, expected)
    assert len(after) == 1 + steps, "this process samples its part"
    assert_equal_sets(whole_set(loaded, state=states[20])[0], expected)
    assert_equal([*sample_images(loaded, sampler(steps=10), 3, numbers, CPU)], images)


@pytest.mark.parametrize(("count", "size"), [(7, 2), (8, 2), (64, 16), (500, 64), (1, 1)])
def test_a_set_has_four_batches_or_more_where_it_has_so_many_images(count: int, size: int, tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path), sampler(steps=1)
    found = Sampling("preview", loaded, params, SET.model_copy(update={"count": count, "keep_every": 0}))
    found.run(CPU, ALONE, EveryState(found, ALONE))  # type: ignore[arg-type]
    assert found.batch_size == size
