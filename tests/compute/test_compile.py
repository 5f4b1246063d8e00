"""DDPM_COMPILE: compiled networks give what plain ones give; `eager` and `aot_eager` need no compiler."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from ddpm.compute.device import compiled
from ddpm.model import load_model, save_model
from ddpm.sample import sample_batch
from exact_stages.console import UserError
from tests.test_distill import new_distillation
from tests.small import randomised
from tests.reverse import sampler
from tests.small import CPU, DIGITS
from tests.training.trainings import SCHEDULE, finished, network


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
    torch.testing.assert_close(found.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


def test_compiled_samples_are_the_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = randomised(network(prediction="v"), 1).state_dict()
    save_model(tmp_path / "model", randomised(network(prediction="v")), DIGITS, SCHEDULE, (9,) * 10, guide=guide)
    loaded = load_model(tmp_path / "model")

    def sampled() -> Tensor:
        batches = [[*sample_batch(loaded, sampler(guidance=2.0, clip=True), 0, [*each], CPU)] for each in ("01", "23")]
        return torch.cat([steps[-1].x_prev for steps in batches])

    plain = sampled()
    monkeypatch.setenv("DDPM_COMPILE", "eager")
    torch.testing.assert_close(sampled(), plain, rtol=1e-4, atol=1e-4)
    assert graphs() == 1, "the second batch and the guide take the same"


def test_a_compiled_distillation_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = new_distillation(images=16)
    assert len(list(plain.run())) == 2
    monkeypatch.setenv("DDPM_COMPILE", "eager")
    found = new_distillation(images=16)
    list(found.run())
    assert graphs() > 0
    torch.testing.assert_close(found.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


def test_what_a_result_is_bound_to_names_the_backend_and_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CPU.describe()
    for value, expected in (("0", {}), ("", {}), ("1", {"compile": "inductor"}), ("eager", {"compile": "eager"})):
        monkeypatch.setenv("DDPM_COMPILE", value)
        assert CPU.describe() == plain | expected
    monkeypatch.setenv("DDPM_COMPILE", "gcc")
    for refuses in (CPU.describe, lambda: compiled(network())):
        with pytest.raises(UserError, match=r"^DDPM_COMPILE=gcc: .*$"):
            refuses()
