"""Hash single operations at fixed inputs, at about the shapes of the default training; processors should agree."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def hashes() -> dict[str, str]:
    """Return the beginning of a hash of each operation's result, by its name."""
    torch.set_num_threads(1)
    return {name: hashed(found) for name, found in operations()}


def hashed(*values: Tensor) -> str:
    """Return the beginning of a hash of tensors."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:8]


def fixed(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers in [-1, 1), always the same, by integer arithmetic alone."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 2654435761 % 2**24).to(dtype) / 2**23 - 1).view(shape)


def operations() -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each operation, and its result."""
    x, double, positive = fixed(50_001), fixed(50_001, dtype=torch.float64), fixed(50_001).abs() + 2**-24
    matrix, images = fixed(200, 128), fixed(16, 32, 28, 28).contiguous(memory_format=torch.channels_last)
    weight = fixed(64, 32, 3, 3).contiguous(memory_format=torch.channels_last)
    for stride in (1, 2):
        given, kernel = images.clone().requires_grad_(), weight.clone().requires_grad_()
        out = F.conv2d(given, kernel, stride=stride, padding=1)
        gradients = torch.autograd.grad(out, (given, kernel), fixed(*out.shape))
        yield f"convolution, stride {stride}", out
        yield f"its input's gradient, stride {stride}", gradients[0]
        yield f"its weight's gradient, stride {stride}", gradients[1]
    yield "product", F.linear(matrix, fixed(64, 128), fixed(64))
    yield "product, transposed", matrix.T @ matrix
    yield "product, float64", matrix.double().T @ matrix.double()
    yield "products of a batch", torch.baddbmm(fixed(8, 64, 64), fixed(8, 64, 64), fixed(8, 64, 64), beta=0.5)
    yield "eigenvalues", torch.view_as_real(torch.linalg.eigvals(matrix.double().T @ matrix.double()).sqrt())
    yield "sum", torch.cat([x.sum()[None], matrix.sum(0), matrix.mean(1), images.mean((2, 3)).flatten()])
    yield "norm", torch.cat([x.norm()[None], matrix.norm(dim=1), matrix.std(0)])
    yield "batch norm", F.batch_norm(images, None, None, training=True)
    yield "group norm", F.group_norm(images, 8)
    yield "cumulative product", (1 - 0.02 * double.abs()[:1000]).cumprod(0)
    yield "softmax", torch.cat([matrix.softmax(1), matrix.log_softmax(1)])
    yield "distances", torch.cdist(matrix, matrix[:100])
    yield "upsampling", F.interpolate(images, scale_factor=2.0, mode="nearest")
    yield "normal numbers", torch.randn(50_001, generator=torch.Generator().manual_seed(0))
    unary = "exp log log2 log10 sqrt rsqrt cos tanh sigmoid erf atan asin logit"
    for name in unary.split():
        given = positive * 0.99 if name.startswith("log") or name.endswith("sqrt") else x
        yield name, getattr(torch, name)(given)
        yield f"{name}, float64", getattr(torch, name)(given.double())
    yield "silu", F.silu(x)
    yield "gelu", F.gelu(x)
    for name, optimizer in (("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)):
        weights = x.clone().requires_grad_()
        weights.grad = x.flip(0)
        optimizer([weights], lr=0.01, fused=name == "Adam").step()
        yield f"step of {name}", weights
    yield "exp and log of numpy", torch.from_numpy(np.exp(x.numpy()) + np.log(positive.numpy()))


def processor() -> dict[str, str]:
    """Return what a row says of this processor and this build of torch; caches in KiB."""
    found = torch.cpu.get_capabilities()
    names = ("avx2", "fma3", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16")
    return {
        "cpu": str(found.get("cpu_name", "")),
        "flags": " ".join(filter(found.get, names)),
        "l1d": str(found.get("l1d_cache_size", 0) // 1024),
        "l2": str(found.get("l2_cache_size", 0) // 1024),
        "torch": torch.__version__,
    }
