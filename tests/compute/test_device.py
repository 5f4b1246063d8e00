"""Where it runs: the choices of the environment, and the refusal of what is not there."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from ddpm.compute import device
from ddpm.compute.device import Runtime, start, to_device
from ddpm.pipeline.console import UserError

VARIABLES = ("DDPM_DEVICE", "DDPM_PRECISION", "DDPM_THREADS", "CUBLAS_WORKSPACE_CONFIG")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine with nothing but a CPU that has no bfloat16; afterwards all that `start` sets is as it was."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # so that it is restored, also where it was not set
        monkeypatch.delenv(variable)
    has(monkeypatch)
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, tf32 = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    yield monkeypatch
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.allow_tf32 = tf32


def has(monkeypatch: pytest.MonkeyPatch, *, cuda: bool = False, mps: bool = False, bfloat16: bool = False) -> None:
    """What this machine is made to look like."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16 or including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.mark.parametrize(
    ("machine_has", "expected"),
    [
        ({}, "cpu"),
        ({"mps": True}, "mps"),
        ({"cuda": True}, "cuda"),
        ({"cuda": True, "mps": True}, "cuda"),
    ],
)
def test_the_best_device_is_the_default(
    monkeypatch: pytest.MonkeyPatch, machine_has: dict[str, bool], expected: str
) -> None:
    has(monkeypatch, **machine_has)
    assert start().device == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda", "mps", "cpu"])
def test_a_device_that_is_there_can_be_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    has(monkeypatch, cuda=True, mps=True)
    monkeypatch.setenv("DDPM_DEVICE", name)
    assert start().device == torch.device(name)


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu", "CPU", "cpu:0", " "])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DDPM_DEVICE", name)
    with pytest.raises(UserError, match=f"^DDPM_DEVICE={name}: not available here; choose from cpu$"):
        start()


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES[:3]:
        monkeypatch.setenv(variable, "")
    threads = torch.get_num_threads()
    assert start() == Runtime(torch.device("cpu"), torch.float32)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["cpu", "cuda"])
@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_the_default_where_it_is_native(monkeypatch: pytest.MonkeyPatch, name: str, native: bool) -> None:
    has(monkeypatch, cuda=name == "cuda", bfloat16=native)
    assert start() == Runtime(torch.device(name), torch.bfloat16 if native else torch.float32)


def test_amx_alone_is_native_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert start().precision is torch.bfloat16


def test_the_devices_own_bfloat16_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU without it beside a CPU with it.
    has(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert start().precision is torch.float32
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    assert start().precision is torch.bfloat16


def test_mps_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, mps=True, bfloat16=True)
    assert start() == Runtime(torch.device("mps"), torch.float32)


def test_float32_can_be_named_where_bfloat16_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, bfloat16=True)
    monkeypatch.setenv("DDPM_PRECISION", "float32")
    assert start().precision is torch.float32
    monkeypatch.setenv("DDPM_PRECISION", "bfloat16")
    assert start().precision is torch.bfloat16


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float64", "half"])
def test_a_precision_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DDPM_PRECISION", name)
    with pytest.raises(UserError, match=f"^DDPM_PRECISION={name}: not available here; choose from float32$"):
        start()


def test_the_refusal_lists_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, cuda=True, bfloat16=True)
    monkeypatch.setenv("DDPM_PRECISION", "float16")
    with pytest.raises(UserError, match=r"choose from bfloat16, float32$"):
        start()
    monkeypatch.setenv("DDPM_DEVICE", "mps")
    with pytest.raises(UserError, match=r"choose from cuda, cpu$"):
        start()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_are_as_many_as_named(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setenv("DDPM_THREADS", str(count))
    start()
    assert torch.get_num_threads() == count


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1e3", " ", "²"])
def test_threads_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("DDPM_THREADS", text)
    with pytest.raises(UserError, match=f"^DDPM_THREADS={text}: give a number of threads, 1 to 256$"):
        start()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("cuda", "warn_only"), [(False, False), (True, True)])
def test_torch_is_made_deterministic(monkeypatch: pytest.MonkeyPatch, cuda: bool, warn_only: bool) -> None:
    has(monkeypatch, cuda=cuda)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    start()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() is warn_only
    assert torch.backends.cudnn.benchmark is False
    assert torch.backends.cudnn.allow_tf32 is False
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_the_users_cublas_workspace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    start()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_autocast_computes_products_in_the_precision() -> None:
    cpu = torch.device("cpu")
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for precision in (torch.float32, torch.bfloat16):
        with Runtime(cpu, precision).autocast():
            assert layer(x).dtype is precision
            assert torch.is_autocast_enabled("cpu") is (precision is torch.bfloat16)
        assert layer(x).dtype is torch.float32
    assert layer.weight.dtype is torch.float32


def test_what_a_result_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_THREADS", "2")
    described = start().describe()
    assert described == {
        "torch": torch.__version__,
        "device": "cpu",
        "cpu": f"{torch.cpu.get_capabilities()['cpu_name']}, {torch.backends.cpu.get_cpu_capability()}",
        "precision": "float32",
        "threads": 2,
    }
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A kind of GPU")
    described = Runtime(torch.device("cuda"), torch.bfloat16).describe()
    assert described["device"] == "A kind of GPU"
    assert described["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("height", "width", "on_cpu", "on_gpu"),
    [(28, 28, 128, 2500), (16, 8, 128, 15312), (56, 56, 32, 625), (1024, 1024, 1, 1)],
)
def test_images_sampled_side_by_side(height: int, width: int, on_cpu: int, on_gpu: int) -> None:
    pixels = height * width
    assert Runtime(torch.device("cpu"), torch.float32).sample_batch(pixels, 10**12) == on_cpu
    assert Runtime(torch.device("mps"), torch.float32).sample_batch(pixels, 10**12) == on_gpu


@pytest.mark.parametrize(("free", "expected"), [(10**12, 2500), (2_000_000, 100), (19_999, 1), (0, 1)])
def test_a_gpu_samples_no_more_than_its_free_memory_holds_twice(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10**12))
    assert Runtime(torch.device("cuda"), torch.float32).sample_batch(28 * 28, 10_000) == expected


def test_to_device_lays_out_weights_channels_last_and_keeps_their_values() -> None:
    conv = nn.Conv2d(3, 5, 3)
    before = conv.weight.detach().clone()
    moved = to_device(conv, torch.device("cpu"))
    assert moved is conv
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.weight, before)


@pytest.mark.parametrize("launched", [True, False])
def test_each_process_of_a_launcher_takes_a_gpu_of_its_own_before_all_else(
    monkeypatch: pytest.MonkeyPatch, launched: bool
) -> None:
    chosen: list[int] = []
    has(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(chosen))  # as of that GPU
    monkeypatch.setattr(device.dist, "is_torchelastic_launched", lambda: launched)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert start().precision is (torch.bfloat16 if launched else torch.float32)
    assert chosen == [3] * launched


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is another")
def test_what_is_freed_is_kept_for_the_next_step() -> None:
    """In a process of its own: the allocator is the process's. Each piece has 16 MiB, which is 4096 pages."""
    program = """
import resource, torch
from ddpm.compute.device import start
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
start()
faults()
print(faults())
"""
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    before, after = map(int, printed.split())
    assert after < 4096 / 2
    assert after < before / 4


def test_nothing_is_chosen_at_import() -> None:
    # A choice at import would precede the environment that a stage or a test sets.
    assert not [name for name, value in vars(device).items() if isinstance(value, Runtime | torch.device)]
