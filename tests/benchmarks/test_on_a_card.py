import inspect
import os
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.on_a_card import states
from benchmarks.on_a_card.pipeline import MNIST_COUNTS, dvc, folder_of_mnist
from benchmarks.on_a_card.setting import FULL, SMALL, networks
from benchmarks.on_a_card.states import apart, compared, digests, resumed, straight
from benchmarks.on_a_card.synchronisations import MESSAGE, counted, place, written
from benchmarks.synthetic import ROOT, TINY, copy_stages, set_params, write_mnist_files
from ddpm.compute.device import Runtime
from ddpm.ingest.mnist import is_mnist, read_mnist
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import read_yaml
from ddpm.training.loop import Training

CPU = Runtime(torch.device("cpu"), torch.float32)
AS_TORCH_GIVES_IT = f"{MESSAGE} (Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:147.)"
STEPS = 6


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def item() -> int:
    """As `item` on a card does in debug mode; the number of the line."""
    warnings.warn(AS_TORCH_GIVES_IT, UserWarning)  # noqa: B028 # its own line, as torch has it
    return inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]


def test_synchronisations_are_counted_by_line() -> None:
    with counted(CPU.device) as places:
        lines = {item() for _ in range(3)}
    (line,) = lines
    assert places == {f"tests/benchmarks/test_on_a_card.py:{line}": 3}


def test_a_synchronisation_inside_a_library_is_that_of_the_line_that_calls_it() -> None:
    with counted(CPU.device) as places:
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
        warnings.warn_explicit(MESSAGE, UserWarning, "/usr/lib/site-packages/torch/optim/adam.py", 7)
    assert places == {f"tests/benchmarks/test_on_a_card.py:{line}, in torch/optim/adam.py:7": 1}


def test_other_warnings_are_shown_as_ever() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with counted(CPU.device) as places:
            warnings.warn("something else", UserWarning, stacklevel=1)
        item()
    assert not places
    assert [str(each.message) for each in shown] == ["something else", AS_TORCH_GIVES_IT]


def test_places_in_a_line() -> None:
    assert written(Counter()) == "none"
    assert written(Counter({"b.py:2": 1, "a.py:1": 2})) == "3: `a.py:1` 2 times; `b.py:2` 1 times"
    assert place("/usr/lib/torch/nn/x.py", 3).endswith("in torch/nn/x.py:3")


def test_equal_states_are_equal_and_others_are_not() -> None:
    state = {"a": torch.ones(2, 3), "b": torch.tensor(0)}
    nearly = state | {"a": torch.nextafter(state["a"], torch.tensor(2.0))}
    first = digests(state)
    assert compared("runs", first, digests({name: each.clone() for name, each in state.items()})).kept
    for other in (nearly, state | {"a": torch.ones(3, 2)}, state | {"a": torch.ones(2, 3).int()}, {"b": state["b"]}):
        row = compared("runs", first, digests(other))
        assert not row.kept
        assert row.value == "1 of 2 tensors differ, the first of them `a`"


@pytest.mark.parametrize("name", ["the default", "the article's network"])
def test_a_resumed_run_has_the_state_of_one_that_went_through(name: str) -> None:
    params = networks(SMALL)[name]
    through = straight(params, STEPS, CPU)
    assert resumed(params, STEPS, CPU) == through
    other = params.model_copy(update={"train": params.train.model_copy(update={"seed": 1})})
    assert straight(other, STEPS, CPU) != through


def test_a_resumption_that_forgets_something_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    params = networks(SMALL)["the article's network"]
    load = Training.load_state

    def forgetful(self: Training, state: dict[str, torch.Tensor]) -> None:
        load(self, {name: torch.zeros_like(each) if "exp_avg" in name else each for name, each in state.items()})

    monkeypatch.setattr(Training, "load_state", forgetful)
    row = compared("a resumed run", straight(params, STEPS, CPU), resumed(params, STEPS, CPU))
    assert not row.kept
    assert "tensors differ, the first of them `module.0." in row.value


def test_another_process_gives_the_same_state_and_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DDPM_PRECISION": "float32", "DDPM_DEVICE": "cpu", "DDPM_CAPTURE": "0"}.items():
        monkeypatch.setenv(name, value)
    params = networks(SMALL)["the default"]
    assert apart("straight", params, STEPS, captured=True) == straight(params, STEPS, CPU)
    assert os.environ["DDPM_CAPTURE"] == "0"


def test_runs_are_captured_and_eager_where_they_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(run: str, params: object, steps: int, captured: bool) -> dict[str, str]:
        return {"weight": f"{captured}"}

    monkeypatch.setattr(states, "apart", told)
    assert [row.kept for row in states.capture(SMALL, CPU)] == [False, True, False, True]


def test_the_copy_has_the_small_params_and_the_code(tmp_path: Path) -> None:
    copy_stages(tmp_path / "copy")
    set_params(tmp_path / "copy", TINY)
    assert read_yaml(tmp_path / "copy/params.yaml")["sample"]["population"]["count"] == 64
    for name in ("dvc.yaml", "stages/train.py", "src/ddpm/training/loop.py"):
        assert (tmp_path / "copy" / name).read_bytes() == (ROOT / name).read_bytes()


def test_noise_in_the_files_of_mnist(tmp_path: Path) -> None:
    write_mnist_files(tmp_path / "few", 20, 10)
    found = read_mnist(tmp_path / "few")
    assert [each.label for each in found.train] == [*range(10), *range(10)]
    assert len(found.test or []) == 10
    assert len({each.source.tobytes() for each in found.train}) == 20
    write_mnist_files(tmp_path / "many", *MNIST_COUNTS)
    assert is_mnist(tmp_path / "many")
    assert sum(path.stat().st_size for path in (tmp_path / "many").iterdir()) == 70_000 * 785 + 48


def test_the_images_are_those_that_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPM_DATA_DIR", str(tmp_path))
    assert folder_of_mnist(SMALL) == folder_of_mnist(FULL) == tmp_path
    monkeypatch.delenv("DDPM_DATA_DIR")
    assert folder_of_mnist(SMALL) is None


def test_a_dvc_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dvc repro: you are not inside of a DVC repository"):
        [*_] = dvc(tmp_path, None, "repro")
