"""CUDA graphs: the kernels of a function, recorded once and then launched together, for a GPU outruns their launches.

Environment:
    DDPM_CAPTURE  1 records gradient steps and evaluations of the network on a GPU; by default 0: no card has proved it.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddpm.pipeline.console import UserError

PLAIN_CALLS = 3  # before the recording, in which libraries choose their kernels and set up their memory

Function = Callable[..., Any]  # of tensors; to one, or nothing


def captured(function: Function, device: torch.device) -> Function:
    """The function, on a GPU replayed as a CUDA graph where DDPM_CAPTURE asks for it; elsewhere as it is.

    Replayed, it does to the same memory what it did when it was recorded. So it must be given tensors of the same
    shapes in every call, decide nothing by their values, and draw no random numbers; tensors that it changes beside
    must stay where they are. What it returns is overwritten by its next call.
    """
    return Captured(function) if wanted_capture() and device.type == "cuda" else function


def wanted_capture() -> bool:
    """What DDPM_CAPTURE says.

    Raises:
        UserError: it is neither 0 nor 1.
    """
    given = os.environ.get("DDPM_CAPTURE") or "0"
    if given not in {"0", "1"}:
        raise UserError(f"DDPM_CAPTURE={given[:40]}: give 1, or 0 for none")
    return given == "1"


class Captured:
    """A function of tensors on the current GPU that becomes a CUDA graph in its fourth call."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.calls = 0
        self.stream = torch.cuda.Stream()  # of plain calls and recording alike: gradients remember their stream
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        """As the function."""
        if self.calls < PLAIN_CALLS:
            self.calls += 1
            return self._plain(inputs)
        if not self.graph:
            self._record(inputs)
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given)
        assert self.graph
        self.graph.replay()
        return self.output

    def _plain(self, inputs: tuple[Tensor, ...]) -> Any:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            output = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return output

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Nothing is computed meanwhile. Other threads may go on preparing noise, hence the mode."""
        self.inputs = [given.clone() for given in inputs]
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.output = self.function(*self.inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # a recording that cannot be ended hides why, and leaves its stream
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise error.__context__ from None
            raise
        self.graph = graph
