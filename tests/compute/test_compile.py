"""DDPM_COMPILE: compiled networks give what plain ones give; `eager` and `aot_eager` need no compiler."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from ddpm.compute.device import compiled
from ddpm.model import LoadedModel, ModelCard
from ddpm.sample import SamplerParams, sample_batch
from exact_stages.console import UserError
from tests.small import CPU, DIGITS, randomised
from tests.trainings import SCHEDULE, finished, network, state_of


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Nothing compiled is left from another test, nor to the next."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """How many graphs have been compiled since; each network is one, without a break."""
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(("backend", "block"), [("aot_eager", "residual"), ("eager", "double_conv")])
def test_a_compiled_training_is_the_plain_one(backend: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = finished(block=block, held_out=5)
    monkeypatch.setenv("DDPM_COMPILE", backend)
    found = finished(block=block, held_out=5)
    assert graphs() == 1, "of the network in training; validation is not compiled"
    torch.testing.assert_close(state_of(found), state_of(plain), rtol=1e-4, atol=1e-5)


def loaded() -> LoadedModel:
    """A model and its guide."""
    model, guide = (randomised(network(prediction="v"), seed).eval() for seed in (0, 1))
    card = ModelCard(
        data=DIGITS, model=model.params, schedule=SCHEDULE.params, class_counts=(9,) * 10, guides=("autoguidance",)
    )
    return LoadedModel(model, SCHEDULE, card, guide)


def test_compiled_samples_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = loaded(), SamplerParams(steps=8, spacing="trailing", guidance=2.0)

    def sampled() -> Tensor:
        batches = [[*sample_batch(model, params, 0, indices, CPU)] for indices in ([0, 1], [2, 3])]
        return torch.cat([steps[-1].x_prev for steps in batches])

    plain = sampled()
    monkeypatch.setenv("DDPM_COMPILE", "eager")
    torch.testing.assert_close(sampled(), plain, rtol=1e-4, atol=1e-4)
    assert graphs() == 1, "the second batch and the guide take the same"


def test_what_a_result_is_bound_to_names_the_backend_and_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CPU.describe()
    assert plain.keys() == {"torch", "device", "cpu", "precision", "threads"}
    for value, expected in (("0", {}), ("", {}), ("1", {"compile": "inductor"}), ("eager", {"compile": "eager"})):
        monkeypatch.setenv("DDPM_COMPILE", value)
        assert CPU.describe() == plain | expected
    monkeypatch.setenv("DDPM_COMPILE", "gcc")
    for refuses in (CPU.describe, lambda: compiled(network())):
        with pytest.raises(UserError, match=r"^DDPM_COMPILE=gcc: .*$"):
            refuses()
