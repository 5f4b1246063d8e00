"""What a CPU can tell of how code runs on a GPU.

It counts kernels and sees what waits for the device; and it plays CUDA graphs: the operations of a recording, done
again to the very same memory. Nothing of Python runs in a replay, no input is looked at and no result has a new place,
so what is wrong with a recording on a GPU is wrong with this one.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique_dim", "_unique2"}
HOST = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}


VIEWS = {"view", "t", "t_", "transpose", "expand", "slice", "select", "split", "split_with_sizes", "chunk", "unbind"}
VIEWS |= {"unsqueeze", "squeeze", "permute", "detach", "alias", "diagonal", "as_strided"}
VIEWS |= {"_unsafe_view", "_reshape_alias"}


class Kernels(TorchDispatchMode):
    """Counts the operations that are dispatched, by name and but for views: on a GPU each is a launch."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.counts.update([name] * (name not in VIEWS))
        return function(*args, **(kwargs or {}))


class Operations(Kernels):
    """Counts the kernels that are launched, and refuses those after which the host needs a value."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        if name in {"index", "index_put", "index_put_"}:
            assert all(each is None or each.dtype != torch.bool for each in args[1]), (
                "a mask as index waits for its sum"
            )
        return super().__torch_dispatch__(function, types, args, kwargs)


class HostCopies(TorchFunctionMode):
    """Refuses what copies between host and device, which on a CPU does nothing and is not dispatched."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        assert name not in HOST, f"{name} waits for the device"
        if name == "to" and not (kwargs or {}).get("non_blocking"):
            targets = [*args[1:], *(kwargs or {}).values()]
            assert not any(isinstance(each, torch.device | str) for each in targets), "a copy to a device"
        if name in {"tensor", "as_tensor", "from_numpy"}:
            raise AssertionError(f"{name} copies from pageable memory")
        return function(*args, **(kwargs or {}))


class Recording(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph, and records while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.replays = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        mutable = function._schema.is_mutable or "batch_norm" in function.__name__  # whose schema hides its statistics
        if mutable:
            for each in given:
                self.before.setdefault(_place(each), (each, each.detach().clone()))
        found = function(*args, **kwargs)
        outputs = [each for each in tree_leaves(found) if isinstance(each, Tensor)]
        fresh = [each for each in outputs if _place(each) not in map(_place, given)]
        if fresh or mutable:  # views are in their place already
            self.calls.append((function, args, kwargs, fresh))
        return found

    def __exit__(self, *error: Any) -> None:
        """A GPU computes nothing while it records: what was there is as it was."""
        super().__exit__(*error)
        with torch.no_grad():
            for tensor, value in self.before.values():
                tensor.copy_(value)

    def replay(self) -> None:
        """Do all of it again."""
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, fresh in self.calls:
                found = [each for each in tree_leaves(function(*args, **kwargs)) if isinstance(each, Tensor)]
                for place, value in zip(fresh, found[-len(fresh) :] if fresh else [], strict=True):
                    place.copy_(value)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Stream:
    """Stands for torch.cuda.Stream."""

    def wait_stream(self, other: "Stream") -> None:
        """On a CPU one thing is done after the other."""


@contextlib.contextmanager
def graphs_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recording]]:
    """Let `capture.Captured` record on the CPU; all recordings."""
    made: list[Recording] = []

    def begin() -> Recording:
        made.append(Recording())
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "Stream", Stream)
        patched.setattr(torch.cuda, "current_stream", Stream)
        patched.setattr(torch.cuda, "set_stream", lambda stream: None)
        patched.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        patched.setattr(torch.cuda, "CUDAGraph", begin)
        patched.setattr(torch.cuda, "graph", lambda graph, **options: graph)
        yield made
