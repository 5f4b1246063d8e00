"""Compute as every x86-64 processor with AVX2 does, if DDPM_PRECISION is portable.

Libraries choose instructions when they are imported, so this module imports none before it has said which.
"""

import math
import os
import platform
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

PORTABLE = "portable"
DISABLED = ("X86_V4", "AVX512_ICL", "AVX512_SPR")  # by numpy 2.4 and later, which calls them so
LIMITED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": " ".join(DISABLED),
}
CHOOSING = (  # variables by which libraries choose other instructions, and so another rounding
    *(*LIMITED, "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("MKL_ENABLE_INSTRUCTIONS", "NPY_ENABLE_CPU_FEATURES"),
)
_held: list[Any] = []  # what replaces operations of torch, as long as this process lives


def asked() -> bool:
    """Tell whether the environment asks for portable results."""
    return os.environ.get("DDPM_PRECISION") == PORTABLE


def limit() -> None:
    """Limit the instructions of torch and numpy, if the environment asks for it; then import them, and check.

    Call this before anything imports one of them. Workers and other children inherit what it sets. A machine, a process
    or a variable that does not allow it ends in one line.
    """
    if not asked() or _held:
        return
    wanted = {**dict.fromkeys(CHOOSING), **LIMITED, "DDPM_DEVICE": "cpu"}
    for name, value in os.environ.items():
        if value and value != wanted.get(name, value):
            _refuse(f"{name}={value} is of other arithmetic; unset it")
    if fault := lacking():
        _refuse(f"{fault}; unset DDPM_PRECISION")
    if {"torch", "numpy"} & sys.modules.keys() and not LIMITED.items() <= os.environ.items():
        _refuse("torch or numpy is imported already; call ddpm.processes.portable.limit() first")
    os.environ |= LIMITED
    import numpy as np
    import torch

    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        _refuse("this build of torch has no MKL or no oneDNN; install that of pytorch.org")
    features = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    if torch.backends.cpu.get_cpu_capability() != "AVX2" or any(map(features.get, DISABLED)):
        _refuse("torch or numpy chose other instructions than it was told; install those of constraints.txt")
    _hold(torch, np)


def lacking() -> str:
    """Say what portable results need and this machine lacks; nothing if all is there."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"this is {sys.platform} on {platform.machine()}, not Linux on x86-64"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\nflags")[2].partition("\n")[0].split()
    return "" if {"avx2", "fma"} <= {*flags} else "this processor has no AVX2 or no FMA"


def _hold(torch: Any, np: Any) -> None:
    """Replace the operations of torch for which MKL uses RSQRTPS or RCPPS, in all that this project calls.

    These instructions estimate a root or a quotient; of the result, only the first 11 bits are the same on Intel and
    AMD. MKL begins with it, and what it ends with differs by a rounding. It does so in tan and acos, too.
    """

    def sqrt(x: Any) -> Any:
        wide = x if x.is_complex() or x.dtype is torch.float64 else x.float()
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(np.asarray(np.sqrt(wide.detach().numpy())))  # by the processor, rounded once

    def atan(x: Any) -> Any:
        return torch.atan2(x, torch.ones_like(x))

    def asin(x: Any) -> Any:
        return torch.atan2(x, ((1 - x) * (1 + x)).sqrt())

    def log(x: Any, base: float = math.e) -> Any:
        wide = x if x.is_floating_point() else x.float()
        return torch.xlogy(torch.full_like(wide, 1 / math.log(base)), wide)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced
        logs = {"log": log, "log2": partial(log, base=2), "log10": partial(log, base=10)}
        for name, compute in {"sqrt": sqrt, "atan": atan, "asin": asin, **logs}.items():

            def into(x: Any, compute: Any = compute, *, out: Any = None) -> Any:
                return (x if out is None else out.resize_(x.shape)).copy_(compute(x))

            for kind, kernel in (("", compute), ("_", into), (".out", into)):
                library.impl(name + kind, kernel, "CPU")
    _held.append(library)


def _refuse(why: str) -> None:
    sys.exit(f"error: DDPM_PRECISION=portable: {why}")
