"""Where it runs: device, precision, threads and determinism, from the machine and the environment, never from params.

Environment:
    DDPM_DEVICE     cpu, cuda or mps; by default the best there is.
    DDPM_PRECISION  float32 or bfloat16; by default bfloat16 where the processor computes it natively.
    DDPM_THREADS    threads on the CPU; by default what torch chooses: the physical cores, or 1 under torchrun.
    DDPM_COMPILE    1 compiles the networks by torch.compile, or the name of one of its backends; by default 0.
"""

import contextlib
import ctypes
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ddpm.compute.environment import number
from ddpm.pipeline.console import UserError

Module = TypeVar("Module", bound=nn.Module)
SAMPLED_ON_CPU, SAMPLED_ON_GPU = 100_352, 1_960_000  # pixels in a batch
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, GREATEST_MMAP_THRESHOLD = -1, -3, 32 << 20  # malloc.h
MOST_THREADS = 256  # with a hundred thousand, libraries below die without a word


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of the matrix products on it."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision inside the block, where `precision` is bfloat16; weights and sums stay float32."""
        enabled = self.precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=enabled)

    def sample_batch(self, pixels: int, bytes_each: int) -> int:
        """Images of so many pixels sampled side by side: what fills a GPU, and what keeps a CPU's caches warm.

        Args:
            bytes_each: what an image takes on its way through the network, of which a GPU's free memory holds twice as
                many.
        """
        if self.device.type == "cpu":
            return max(1, min(128, SAMPLED_ON_CPU // pixels))
        batch = SAMPLED_ON_GPU // pixels
        if self.device.type == "cuda":
            batch = min(batch, torch.cuda.mem_get_info(self.device)[0] // (2 * bytes_each))
        return max(1, batch)

    def describe(self) -> dict[str, str | int]:
        """What the bit-exactness of a result is bound to; equal on machines of one kind."""
        compiled: dict[str, str | int] = {"compile": backend} if (backend := _compiler()) else {}
        return compiled | {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type,
            "cpu": _processor(),
            "precision": str(self.precision).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }


def start() -> Runtime:
    """Choose device and precision, and make torch deterministic; call it once, first.

    Of the processes that torch's launcher has started on a machine each takes a GPU of its own.

    Raises:
        UserError: an environment variable names what this machine does not have.
    """
    device = _choose("DDPM_DEVICE", {"cuda": torch.cuda.is_available(), "mps": _has_mps(), "cpu": True})
    if device == "cuda" and dist.is_torchelastic_launched():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    native = _has_native_bfloat16(device)
    precision = _choose("DDPM_PRECISION", {"bfloat16": native, "float32": True})
    torch.set_num_threads(number("DDPM_THREADS", torch.get_num_threads(), 1, MOST_THREADS, "threads"))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")  # some operations have no such version there
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # slow, for debugging
    _keep_memory()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # where float32 is asked for, it is meant
    return Runtime(torch.device(device), getattr(torch, precision))


def to_device(module: Module, device: torch.device) -> Module:
    """Move a network there, its weights in the memory format in which convolutions are fastest."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def compiled(module: Module) -> Module:
    """Compile a network where DDPM_COMPILE asks for it; the result shares its weights.

    Raises:
        UserError: DDPM_COMPILE names no backend of torch.compile.
    """
    backend = _compiler()
    return cast(Module, torch.compile(module, backend=backend)) if backend else module


def _compiler() -> str:
    """Return the backend of torch.compile that the environment asks for, or nothing."""
    given = os.environ.get("DDPM_COMPILE") or "0"
    backend = {"0": "", "1": "inductor"}.get(given, given)
    if backend and backend not in (known := torch.compiler.list_backends(exclude_tags=())):
        raise UserError(f"DDPM_COMPILE={given[:40]}: give 1, 0, or one of {', '.join(known)}")
    return backend


def sent(values: Tensor, device: torch.device) -> Tensor:
    """What the host has, on the device; nobody waits until a GPU has it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _keep_memory() -> None:
    """Let the allocator keep what a step frees for the next one, where it is glibc's.

    It would give large pieces back to the kernel, which clears each page of them when it is asked for anew: a quarter
    of a training step's time.
    """
    with contextlib.suppress(OSError, AttributeError):  # macOS, musl
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_THRESHOLD, GREATEST_MMAP_THRESHOLD)


def _processor() -> str:
    """Its vendor, and the instructions that torch uses: what decides in which order products are summed."""
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _choose(variable: str, available: dict[str, bool]) -> str:
    """The choice that the environment names, or the first that is available."""
    choices = [name for name, there in available.items() if there]
    name = os.environ.get(variable) or choices[0]
    if name not in choices:
        raise UserError(f"{variable}={name}: not available here; choose from {', '.join(choices)}")
    return name


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _has_native_bfloat16(device: str) -> bool:
    """Whether bfloat16 has instructions of its own: emulated, it is slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
