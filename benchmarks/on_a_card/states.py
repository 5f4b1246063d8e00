"""Whether runs are equal by the hash of their state: in two processes, gone on with, and captured beside eager."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.on_a_card.setting import Row, Setting, networks, take
from benchmarks.trainings import gradient_steps, on_noise
from ddpm.compute.device import Runtime, start
from ddpm.training.loop import Training
from stages.train import Params

Digests = dict[str, str]  # of each tensor of a state, by its name


def repeats(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Two processes, and a run that goes on from the state of another."""
    for name, params in networks(setting).items():
        first = straight(params, setting.hashed_steps, runtime)
        yield compared(f"two runs of {name}", first, apart("straight", params, setting.hashed_steps))
        yield compared(f"a resumed run of {name}", first, resumed(params, setting.hashed_steps, runtime))


def capture(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """A captured run beside an eager one, in processes of their own, and a captured one that is gone on with."""
    for name, params in networks(setting).items():
        eager = apart("straight", params, setting.hashed_steps, captured=False)
        captured = apart("straight", params, setting.hashed_steps, captured=True)
        gone_on = apart("resumed", params, setting.hashed_steps, captured=True)
        yield compared(f"captured against eager, {name}", eager, captured)
        yield compared(f"a resumed captured run of {name}", captured, gone_on)


def compared(what: str, first: Digests, second: Digests) -> Row:
    """A row that says whether all tensors of two states are equal."""
    names = sorted(first.keys() | second.keys())
    other = [name for name in names if first.get(name) != second.get(name)]
    if other:
        value = f"{len(other)} of {len(names)} tensors differ, the first of them `{other[0]}`"
    else:
        value = f"equal ({hashlib.sha256(''.join(first[name] for name in names).encode()).hexdigest()[:8]})"
    return Row(f"{what}, by the hash of the state", value, "equal", not other)


def straight(params: Params, steps: int, runtime: Runtime) -> Digests:
    """The state after so many steps."""
    training = _training(params, steps, runtime)
    take(gradient_steps(training), steps)
    return digests(training.state())


def resumed(params: Params, steps: int, runtime: Runtime) -> Digests:
    """The state after so many steps, the second half of them in another run, given the first's by way of the CPU."""
    first = _training(params, steps, runtime)
    take(gradient_steps(first), steps // 2)
    state = {name: value.detach().cpu().clone() for name, value in first.state().items()}
    second = _training(params, steps, runtime)
    second.load_state(state)
    take(gradient_steps(second), steps - steps // 2)
    return digests(second.state())


def digests(state: dict[str, Tensor]) -> Digests:
    """A hash of the type, the shape and the bytes of each tensor."""
    found = {}
    for name, value in state.items():
        array = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found[name] = hashlib.sha256(f"{value.dtype} {[*value.shape]}".encode() + array.numpy().tobytes()).hexdigest()
    return found


def apart(run: str, params: Params, steps: int, captured: bool | None = None) -> Digests:
    """What `straight` or `resumed` gives in a process of its own, captured or eager where that is said."""
    before = os.environ.get("DDPM_CAPTURE")
    if captured is not None:
        os.environ["DDPM_CAPTURE"] = "1" if captured else ""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as processes:
            return processes.submit(_in_a_process, run, params, steps).result()
    finally:
        os.environ.pop("DDPM_CAPTURE", None)
        if before is not None:
            os.environ["DDPM_CAPTURE"] = before


def _in_a_process(run: str, params: Params, steps: int) -> Digests:
    return {"straight": straight, "resumed": resumed}[run](params, steps, start())


def _training(params: Params, steps: int, runtime: Runtime) -> Training:
    """On as many images as make the steps end in an epoch's midst."""
    torch.manual_seed(0)
    return on_noise(params, params.train.batch_size * (2 * steps // 3), runtime)
