"""The state of work that was cut off: found by its fingerprint alone, whole or not at all, one process at a time."""

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from ddpm.parallel.resume import OTHERS_KEPT, State, stopping
from torch import Tensor

from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError

KEY = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def in_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DDPM_SAVE_SECONDS", raising=False)


def arrays(value: float) -> dict[str, Tensor]:
    return {"weights": torch.full((3, 4), value), "count": torch.tensor(7), "none": torch.empty(0, 2)}


def reopened(state: State, key: str = KEY) -> State:
    """As the next process finds it."""
    state._lock.close()
    return State("train", key)


def loaded_value(state: State) -> float | None:
    saved = state.load()
    return None if saved is None else saved.arrays["weights"][0, 0].item()


def test_what_was_saved_last_comes_back() -> None:
    state = State("train", KEY)
    assert state.load() is None
    for value in (1.0, 2.0, 3.0):
        state.save(arrays(value), {"rows": [value, "text"], "nothing": None})
        saved = reopened(state).load()
        assert saved is not None
        torch.testing.assert_close(saved.arrays, arrays(value), rtol=0, atol=0)
        assert saved.facts["rows"] == [value, "text"]
        assert saved.facts["nothing"] is None
    assert len(list(state.folder.glob("*.safetensors"))) == 2


def test_generations_go_on_after_a_resumption() -> None:
    state = State("train", KEY)
    state.save(arrays(1), {})
    state.save(arrays(2), {})
    state = reopened(state)
    assert loaded_value(state) == 2
    state.save(arrays(3), {})
    state = reopened(state)
    assert loaded_value(state) == 3
    state.save(arrays(4), {})
    assert loaded_value(reopened(state)) == 4


def test_another_fingerprint_finds_nothing() -> None:
    state = State("train", KEY)
    state.save(arrays(1), {})
    assert loaded_value(reopened(state, KEY[::-1])) is None
    # Even where the folder's name, a part of the fingerprint, is the same.
    assert loaded_value(reopened(state, KEY[:16] + KEY[::-1][16:])) is None


def test_another_stage_finds_nothing() -> None:
    State("train", KEY).save(arrays(1), {})
    assert State("sample-gallery", KEY).load() is None


def test_a_state_cut_at_any_byte_gives_the_one_before() -> None:
    state = State("train", KEY)
    state.save(arrays(1), {})
    state.save(arrays(2), {})
    newest = state.folder / "1.safetensors"
    whole = newest.read_bytes()
    for length in range(len(whole)):
        newest.write_bytes(whole[:length])
        assert loaded_value(state) == 1, length
    newest.write_bytes(whole)
    assert loaded_value(state) == 2


def test_a_state_with_any_bit_flipped_gives_the_one_before() -> None:
    state = State("train", KEY)
    state.save(arrays(1), {})
    state.save(arrays(2), {})
    newest = state.folder / "1.safetensors"
    whole = newest.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        newest.write_bytes(flipped)
        saved = state.load()
        assert saved is not None
        # A flip in the file's own padding changes nothing; any other is seen.
        value = saved.arrays["weights"]
        assert torch.equal(value, arrays(1)["weights"]) or torch.equal(value, arrays(2)["weights"]), position


def test_two_damaged_generations_are_no_state() -> None:
    state = State("train", KEY)
    state.save(arrays(1), {})
    state.save(arrays(2), {})
    for file in state.folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    assert state.load() is None


def test_an_alien_file_is_no_state() -> None:
    state = State("train", KEY)
    save_arrays(state.folder / "0.safetensors", arrays(1), {"key": KEY, "generation": 5, "sha256": "0" * 64})
    assert state.load() is None
    save_arrays(state.folder / "0.safetensors", arrays(1), {})
    assert state.load() is None


def test_a_full_disk_keeps_what_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State("train", KEY)
    state.save(arrays(1), {})

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            state.save(arrays(2), {})
    assert loaded_value(reopened(state)) == 1
    assert sorted(path.name for path in state.folder.iterdir()) == ["0.safetensors", "lock"]


def test_a_finished_state_stays_until_dvc_has_recorded_its_outputs(tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.write_bytes(b"weights")
    state = State("train", KEY)
    state.finish(arrays(5), {}, [output])
    assert loaded_value(state) == 5
    (tmp_path / "dvc.lock").write_text("md5: 00000000000000000000000000000000")
    assert loaded_value(state) == 5
    (tmp_path / "dvc.lock").write_text("stages:\n  train:\n    outs:\n    - md5: 4def4c0b5f2a8f2d0b0a2d9f4ba8fe9e")
    assert loaded_value(state) == 5
    (tmp_path / "dvc.lock").write_text(f"    - md5: {hashlib.md5(b'weights').hexdigest()}")
    assert state.load() is None
    assert not list(state.folder.glob("*.safetensors"))
    (tmp_path / "dvc.lock").unlink()
    assert state.load() is None


def test_states_live_below_the_repository_even_in_a_temporary_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    monkeypatch.setenv("DVC_ROOT", str(root))
    State("train", KEY).save(arrays(1), {})
    assert (root / ".resume" / f"train-{KEY[:16]}" / "0.safetensors").exists()


def test_old_states_are_few() -> None:
    for number in range(OTHERS_KEPT + 4):
        state = State("train", f"{number:064x}"[::-1])
        state.save(arrays(number), {})
        os.utime(state.folder, (number, number))
        state._lock.close()
    other = State("sample-gallery", KEY)
    other.save(arrays(1), {})
    assert len(list(Path(".resume").glob("train-*"))) == OTHERS_KEPT + 1
    assert other.load() is not None


def test_a_state_at_work_is_not_removed() -> None:
    working = State("train", KEY)
    working.save(arrays(1), {})
    for number in range(OTHERS_KEPT + 4):
        os.utime(working.folder, (0, 0))
        State("train", f"{number:064x}"[::-1])._lock.close()
    assert loaded_value(working) == 1


def hold(ready: "multiprocessing.synchronize.Event") -> None:
    state = State("train", KEY)
    ready.set()
    time.sleep(600)
    state.drop()


def test_a_second_process_is_told_the_pid_of_the_first() -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(ready,))
    process.start()
    try:
        assert ready.wait(120)
        with pytest.raises(
            UserError, match=f"^train, this very run: process {process.pid} is at it already; wait for it"
        ):
            State("train", KEY)
        State("train", KEY[::-1])
    finally:
        process.kill()
        process.join()
    assert State("train", KEY).load() is None  # what was killed holds nothing


def test_saving_is_due_after_the_seconds_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not State("train", KEY).due()
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "0")
    assert State("train", KEY[::-1]).due()


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf", "1e400", "9" * 5000])
def test_seconds_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DDPM_SAVE_SECONDS", given)
    with pytest.raises(
        UserError, match=f"^DDPM_SAVE_SECONDS={given[:40]}: give a number of seconds, 0.0 to 1000000.0$"
    ):
        State("train", KEY)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_until_the_block_ends(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopping() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.requested
        # A second Ctrl-C ends it at once; SIGTERM comes twice when a whole process group is told to end.
        assert (signal.getsignal(number) is signal.SIG_DFL) == (number == signal.SIGINT)
    assert signal.getsignal(number) is before
