"""A set of samples: images, labels and frames; cut off anywhere or in two processes, it has the same bytes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ddpm.sampling import samples
from torch import Tensor

from ddpm.images.arrays import load_arrays
from ddpm.images.splits import to_uint8
from ddpm.model import LoadedModel, load_model
from ddpm.parallel.world import ALONE, World
from ddpm.sample import SampleParams, Samples, model_facts, sample_batch, sample_labels
from exact_stages.console import UserError
from tests.ranks import in_two_ranks
from tests.sampling.reverse import sampler, tiny_model
from tests.small import CPU, resaved

COUNT, SIZE = 7, 2  # images, in batches of


def sample_params(**changes: object) -> SampleParams:
    given = {"count": COUNT, "keep_every": 4, "seed": 3, **changes}
    return SampleParams.model_validate(sampler(steps=10).model_dump() | {"classes": "all"} | given)


class StatesAtTicks:
    """Stands for the checkpoints: keeps the state at every tick."""

    def __init__(self, found: Samples) -> None:
        self.found = found
        self.states: list[dict[str, Any]] = []

    def tick(self) -> None:
        self.states.append(resaved(self.found.state_dict()))


def sampled(
    loaded: LoadedModel, params: SampleParams, state: dict[str, Any] | None = None, world: World = ALONE
) -> tuple[dict[str, Tensor], list[dict[str, Any]], Samples]:
    """The tensors of a whole set, which may continue from a state, and the states on the way."""
    found = Samples("gallery", loaded, params)
    if state:
        found.load_state_dict(state)
    ticks = StatesAtTicks(found)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(samples, "sample_batch_size", lambda *_: SIZE)
        found.run(CPU, world, ticks)  # type: ignore[arg-type]
    return found.tensors(), ticks.states, found


def test_images_labels_and_frames_are_those_of_the_sampler(tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path), sample_params()
    tensors, _, found = sampled(loaded, params)
    steps = list(sample_batch(loaded, params, 3, range(COUNT), CPU))
    kept = [step for step in steps if step.t in (8, 4, 0)]
    facts = found.facts()
    assert [step.t for step in kept] == facts["kept_t"]
    assert facts["classes"] == [*range(10)]
    assert facts["made"] == {"set": "gallery", "sampler": "ddpm", "evaluations": 10, "guidance": 1.0}
    assert torch.equal(tensors["labels"], sample_labels(loaded.card, params, 3, range(COUNT)))
    expected = {
        "images": to_uint8(steps[-1].x_prev),
        "x_t": torch.stack([to_uint8(step.x_prev) for step in kept]),
        "pred_x_start": torch.stack([to_uint8(step.pred_x_start) for step in kept]),
    }
    for name, values in expected.items():
        assert tensors[name].shape == values.shape
        # Convolutions add in another order for another batch size, which moves few pixels by one level.
        assert (tensors[name].int() - values.int()).abs().max() <= 1
    assert torch.equal(tensors["x_t"][-1], tensors["images"])


@pytest.mark.parametrize("keep_every", [0, 4, 100])
def test_a_set_that_is_cut_off_after_any_batch_has_the_same_bytes(keep_every: int, tmp_path: Path) -> None:
    loaded, params = tiny_model(tmp_path), sample_params(keep_every=keep_every)
    whole, states, found = sampled(loaded, params)
    assert len(states) == 4 * 10
    assert sorted({len(state["images"]) for state in states}) == [0, 2, 4, 6]
    for state in [*states[::10], resaved(found.state_dict())]:
        tensors, after, again = sampled(loaded, params, state)
        torch.testing.assert_close(tensors, whole, rtol=0, atol=0)
        assert again.facts() == found.facts()
        assert len(after) == 10 * -(-(COUNT - len(state["images"])) // SIZE), "the rest alone is sampled"


def in_a_world(model: Path, world: World) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """What one of the processes has, and how often it stepped."""
    tensors, states, found = sampled(load_model(model), sample_params(), world=world)
    return tensors, found.facts(), len(states)


def test_two_processes_have_the_bytes_of_one(tmp_path: Path) -> None:
    tiny_model(tmp_path)
    work = partial(in_a_world, tmp_path / "model.safetensors")
    tensors, facts, steps = work(ALONE)
    (of_first, its_facts, first), (_, _, second) = in_two_ranks(work, tmp_path)
    torch.testing.assert_close(of_first, tensors, rtol=0, atol=0)
    assert its_facts == facts
    assert (first, second, steps) == (20, 20, 40), "each samples every other of four batches"


def test_facts_of_a_model_are_those_of_its_file(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    card = loaded.card.model_copy(update={"class_counts": (3, 4, *[0] * 8), "images_seen": 99})
    weights = load_arrays(tmp_path / "model.safetensors")[0]
    assert model_facts(loaded._replace(card=card)) == {
        "data": card.data.name,
        "images": 7,
        "images_seen": 99,
        "class_conditional": True,
        "parameters": sum(weight.numel() for name, weight in weights.items() if not name.startswith("guide.")),
    }


def test_what_cannot_be_sampled_is_refused_by_key(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    for key, value in {"steps": 11, "guidance": 2.0, "classes": ["melon"], "count": 1001}.items():
        with pytest.raises(UserError, match=f"^sample.gallery.{key}"):
            Samples("gallery", loaded, sample_params(**{key: value}))
    assert Samples("gallery", loaded, sample_params(count=1001, keep_every=0)).done == 0
