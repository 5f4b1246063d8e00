"""Drawing images as it runs on a GPU, as far as a CPU can tell: no step waits, and replayed networks give the same."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.compute import capture
from ddpm.compute.randomness import Ahead, generator
from ddpm.sampling import drawing as sampling
from ddpm.sampling.samplers import SamplerParams
from tests.like_a_gpu import HostCopies, Operations, graphs_of_a_cpu
from tests.sampling.test_guided_sampling import CPU, guidance, tiny_model

WAYS = [
    guidance("early", sampler="dpmpp_2m"),
    guidance("unlabelled", sampler="ddim", clip=True),
    guidance("early", strength=1, variance="beta"),
]


def ahead(seed: int, indices: Iterable[int], shape: tuple[int, ...], device: torch.device) -> Callable[[], Tensor]:
    noise = Ahead([generator(seed, "image", index) for index in indices], shape, device)
    return lambda: next(noise)


@pytest.mark.parametrize("params", WAYS, ids=lambda each: f"{each.sampler}-{each.guide}-{each.guidance}")
def test_no_step_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: SamplerParams) -> None:
    monkeypatch.setattr(sampling, "ImageNoise", ahead)  # as for a GPU
    steps = sampling.draw_batch(tiny_model(tmp_path), params, 0, range(3), CPU)
    next(steps)
    with Operations() as operations, HostCopies():
        found = [next(steps) for _ in range(6)]
    assert len({step.t for step in found}) == 6
    assert sum(operations.counts.values()) > 6 * 20, "it sees what the network does"


@pytest.mark.parametrize("params", WAYS, ids=lambda each: f"{each.sampler}-{each.guide}-{each.guidance}")
def test_replayed_networks_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: SamplerParams
) -> None:
    loaded = tiny_model(tmp_path)
    wanted = [step.x_prev for step in sampling.draw_batch(loaded, params, 0, range(3), CPU)]
    monkeypatch.setattr(sampling, "captured", lambda function, device: capture.Captured(function))
    with graphs_of_a_cpu(monkeypatch) as graphs:
        found = [step.x_prev for step in sampling.draw_batch(loaded, params, 0, range(3), CPU)]
    assert sum(graph.replays for graph in graphs) > 0
    assert len(found) == len(wanted) == 10
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
