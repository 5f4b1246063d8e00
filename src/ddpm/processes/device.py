"""Choose device, precision and determinism from the machine and the environment, never from params.

Environment:
    DDPM_DEVICE     cpu or cuda; by default cuda, if there is a GPU.
    DDPM_PRECISION  float32 or bfloat16; by default the faster one, where the hardware has both. portable: float32 with
                    the instructions of every x86-64 processor with AVX2, see `portable`.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ddpm.processes.portable import CHOOSING, PORTABLE, asked, limit
from ddpm.processes.workers import MOST_WORKERS, cores, set_workers
from exact_stages.console import EXPLAINED, UserError, shown

Module = TypeVar("Module", bound=nn.Module)
Number = TypeVar("Number", int, float)
MAX_HEADER = 1 << 20  # bytes of names, shapes and metadata in a file of weights; the default model has 6,000
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, GREATEST_MMAP_THRESHOLD = -1, -3, 32 << 20  # malloc.h
NARROW = 8  # pixels
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
ARITHMETIC = (*CHOOSING, "NVIDIA_TF32_OVERRIDE")  # variables by which libraries round otherwise
FLAGS = ("avx2", "fma3", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16")
EXPLAINED[torch.OutOfMemoryError] = "out of GPU memory; see docs/how-to/gpu.md for what to set, or set DDPM_DEVICE=cpu"


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of matrix products on it."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context of mixed precision if `precision` is bfloat16; weights and sums stay float32."""
        enabled = self.precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=enabled)

    @property
    def name(self) -> str:
        """Return the precision as DDPM_PRECISION names it; every stage that computes records it as `made_in`."""
        return PORTABLE if asked() else str(self.precision).removeprefix("torch.")

    def of(self, images: Tensor) -> "Runtime":
        """Return this runtime, with float32 for images (N, C, H, W) that are narrow and taller.

        On CPUs with AMX, torch's bfloat16 convolutions of such images read memory that nobody wrote (torch 2.13).
        """
        height, width = images.shape[2:]
        return replace(self, precision=torch.float32) if width <= NARROW and width < height else self

    def describe(self) -> dict[str, str | int]:
        """Return the hardware and software facts that fix the bits of a result; equal on machines of one kind."""
        if asked():
            return portable_facts()
        found = torch.cpu.get_capabilities()
        name = found.get("cpu_name", platform.machine())
        maker = next((each for each in ("AMD", "Intel") if each in name), name)  # MKL asks for it, too
        return {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type,
            "cpu": " ".join([maker, *filter(found.get, FLAGS)]),  # the instructions fix the order of sums
            "precision": self.name,
            **{name: value for name in ARITHMETIC if (value := os.environ.get(name))},
        }


def portable_facts() -> dict[str, str | int]:
    """Return the facts that fix the bits of a portable result: neither the processor nor the build of torch does."""
    return {"torch": torch.__version__.partition("+")[0], "device": "cpu", "precision": PORTABLE}


def start(alone: bool = False) -> Runtime:
    """Choose device and precision, and make torch deterministic; call this once, before any computation.

    On a CPU, each process computes with one thread, and shards of work go to workers. Under torchrun, each process is a
    worker, and takes its own GPU. All this is for the whole process: stages and commands do it, and no library code.

    Args:
        alone: whether to compute in this process only.

    Raises:
        UserError: an environment variable asks for something that this machine does not have.
    """
    cuda = _device() == "cuda"
    if cuda and dist.is_torchelastic_launched():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    workers = number("DDPM_WORKERS", cores(), 1, MOST_WORKERS, "processes")
    set_workers(1 if alone or cuda or dist.is_torchelastic_launched() else workers)
    runtime = fastest()
    _be_exact(runtime.device)
    _keep_memory()
    return runtime


def fastest() -> Runtime:
    """Choose device and precision, and set nothing.

    Raises:
        UserError: an environment variable asks for something that this machine does not have.
    """
    device = _device()
    precision = _choose("DDPM_PRECISION", [*_precisions(device), PORTABLE])
    limit()  # which has worked already, or refuses
    return Runtime(torch.device(device), torch.float32 if precision == PORTABLE else getattr(torch, precision))


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute as after `start` within the context; then the caller's settings hold again, also after an error."""
    cudnn, memory = torch.backends.cudnn, cast(Any, torch.utils.deterministic)
    threads, mode, cublas = torch.get_num_threads(), torch.get_deterministic_debug_mode(), os.environ.get(CUBLAS)
    flags = cudnn.benchmark, cudnn.allow_tf32, memory.fill_uninitialized_memory
    try:
        _be_exact(device)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
        cudnn.benchmark, cudnn.allow_tf32, memory.fill_uninitialized_memory = flags
        if cublas is None:
            os.environ.pop(CUBLAS, None)


def _be_exact(device: torch.device) -> None:
    """Make torch compute with one thread, deterministic algorithms and full float32."""
    torch.set_num_threads(1)
    os.environ.setdefault(CUBLAS, ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")  # some have no such version on GPUs
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # slow, for debugging
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means full float32


def number(variable: str, default: Number, least: Number, most: Number, unit: str) -> Number:
    """Return a variable's number of `unit`, or the default if it is not set.

    Raises:
        UserError: it is not a number from `least` to `most`, or not an integer although the default is one.
    """
    given = os.environ.get(variable)
    if not given:
        return default
    try:
        found = type(default)(given)
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise UserError(f"{variable}={given[:40]}: set a number of {unit}, {least} to {most}")
    return found


def rebuild(path: Path, build: Callable[[], Module], weights: dict[str, Tensor]) -> Module:
    """Build a network and load its weights; names, shapes and types are compared before memory is allocated.

    Raises:
        UserError: weights have other names, shapes or types than the network, or are NaN or infinite.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        wanted, given = _described(expected.get(name)), _described(weights.get(name))
        if wanted != given:
            raise UserError(
                f"{path}: the weights do not fit the network that the file describes: "
                f"{shown(name, 100)} is {given}, not {wanted}; fetch or train the model again"
            )
        if not weights[name].isfinite().all():
            raise UserError(f"{path}: {name} is not finite everywhere; fetch or train the model again")
    network = build()
    network.load_state_dict(weights)
    return network


def to_device(module: Module, device: torch.device) -> Module:
    """Move a network to a device, in channels-last format, the fastest for convolutions."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _described(weight: Tensor | None) -> str:
    return "absent" if weight is None else f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"


def _keep_memory() -> None:
    """Make glibc's malloc keep freed memory for the next step.

    By default it returns large blocks to the kernel, which zeroes each page at the next allocation. That takes a
    quarter of a training step.
    """
    with contextlib.suppress(OSError, AttributeError):  # macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_THRESHOLD, GREATEST_MMAP_THRESHOLD)


def _choose(variable: str, choices: Sequence[str]) -> str:
    """Return the choice named by an environment variable, or the first one."""
    name = os.environ.get(variable) or choices[0]
    if name not in choices:
        raise UserError(f"{variable}={name}: not available on this machine; choose from {', '.join(choices)}")
    return name


def _device() -> str:
    return _choose("DDPM_DEVICE", ["cuda", "cpu"] if torch.cuda.is_available() and not asked() else ["cpu"])


def _precisions(device: str) -> list[str]:
    """List the precisions of a device, the fastest first; emulated, bfloat16 is always slower than float32.

    CPUs of Intel multiply fast in bfloat16 by AMX, but slower than in float32 by AVX512.
    """
    cpu, name = torch.cpu, torch.cpu.get_capabilities().get("cpu_name", "")
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return ["bfloat16", "float32"]
    if device == "cpu" and (cpu._is_amx_tile_supported() or (cpu._is_avx512_bf16_supported() and "AMD" in name)):
        return ["bfloat16", "float32"]
    return ["float32", "bfloat16"] if device == "cpu" and cpu._is_avx512_bf16_supported() else ["float32"]
