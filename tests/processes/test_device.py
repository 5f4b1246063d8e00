"""Where it runs: the choices of the environment, and the refusal of what is not there."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ddpm.processes import device, workers
from ddpm.processes.device import ARITHMETIC, Runtime, start
from ddpm.processes.workers import set_workers
from exact_stages.console import UserError
from tests.small import CPU

VARIABLES = ("DDPM_DEVICE", "DDPM_PRECISION", "DDPM_WORKERS", "CUBLAS_WORKSPACE_CONFIG", "TORCHELASTIC_RUN_ID")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with nothing but a CPU that has no bfloat16; afterwards all that `start` sets is as it was."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # so that it is restored, also where it was not set
        monkeypatch.delenv(variable)
    has(monkeypatch)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark, tf32 = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    yield
    set_workers(1)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, tf32


def has(monkeypatch: pytest.MonkeyPatch, cuda: bool = False, bfloat16: str = "") -> None:
    """What this machine is made to look like; `bfloat16` says what computes it: cuda, amx, or the maker of the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16 == "cuda")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16 in ("AMD", "Intel"))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bfloat16 == "amx")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": f"{bfloat16} CPU"})


@pytest.mark.parametrize(
    ("machine_has", "environment", "chosen"),
    [
        ({}, {}, ("cpu", torch.float32)),
        ({"cuda": True, "bfloat16": "cuda"}, {}, ("cuda", torch.bfloat16)),
        ({"cuda": True, "bfloat16": "AMD"}, {"DDPM_DEVICE": "cpu"}, ("cpu", torch.bfloat16)),
        ({"bfloat16": "amx"}, {}, ("cpu", torch.bfloat16)),
        ({"bfloat16": "Intel"}, {}, ("cpu", torch.float32)),
        ({"bfloat16": "Intel"}, {"DDPM_PRECISION": "bfloat16"}, ("cpu", torch.bfloat16)),
    ],
)
def test_the_environment_chooses_among_what_is_there_and_the_best_is_the_default(
    monkeypatch: pytest.MonkeyPatch, machine_has: dict[str, Any], environment: dict[str, str], chosen: tuple[str, Any]
) -> None:
    has(monkeypatch, **machine_has)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert start() == Runtime(torch.device(chosen[0]), chosen[1])


@pytest.mark.parametrize("given", ["DEVICE=cuda", "PRECISION=bfloat16", "WORKERS=0", "WORKERS=1.5", "WORKERS=100000"])
def test_what_is_not_there_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(*f"DDPM_{given}".split("="))
    with pytest.raises(UserError, match=f"^DDPM_{given.partition('=')[0]}\\b"):
        start()


@pytest.mark.parametrize(
    ("environment", "cuda", "alone", "expected"),
    [
        ({}, False, False, 5),
        ({"DDPM_WORKERS": "3"}, False, False, 3),
        ({"DDPM_WORKERS": "3"}, False, True, 1),
        ({"DDPM_WORKERS": "3"}, True, False, 1),
        ({"DDPM_WORKERS": "3", "TORCHELASTIC_RUN_ID": "1"}, False, False, 1),
    ],
)
def test_a_process_has_one_thread_and_on_a_cpu_as_many_workers_as_there_are_cores(
    environment: dict[str, str], cuda: bool, alone: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, cuda=cuda)
    monkeypatch.setattr(device, "cores", lambda: 5)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    torch.set_num_threads(2)
    start(alone)
    assert torch.get_num_threads() == 1
    assert workers._Process.workers == expected


@pytest.mark.parametrize("cuda", [False, True])
def test_torch_is_made_deterministic(monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    has(monkeypatch, cuda=cuda)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    start()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() is cuda
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_result_is_bound_to_what_chooses_instructions_and_not_to_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A kind of GPU")
    assert Runtime(torch.device("cuda"), torch.float32).describe()["device"] == "A kind of GPU"
    for variable in ARITHMETIC:
        monkeypatch.delenv(variable, raising=False)
    plain = CPU.describe()
    torch.set_num_threads(2)
    monkeypatch.setenv("DDPM_WORKERS", "2")
    assert CPU.describe() == plain
    for variable in ARITHMETIC:
        monkeypatch.setenv(variable, "x")
        assert CPU.describe() == plain | {variable: "x"}
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("launched", [True, False])
def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, launched: bool) -> None:
    chosen: list[int] = []
    has(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(chosen))  # as of that GPU
    monkeypatch.setattr(device.dist, "is_torchelastic_launched", lambda: launched)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert start().precision is (torch.bfloat16 if launched else torch.float32)
    assert chosen == [3] * launched
