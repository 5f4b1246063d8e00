"""A user's mistake ends a command in one line, and a bug in a traceback."""

from collections.abc import Callable

import pytest

from exact_stages import console
from exact_stages.console import UserError


def failing(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("train.lr: too high"), "error: train.lr: too high"),
        (FileNotFoundError(2, "No such file or directory", "data/x"), "error: data/x: No such file or directory"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (MemoryError(), "error: buy more"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_an_expected_error_is_one_line(error: BaseException, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(console.EXPLAINED, MemoryError, "buy more")
    with pytest.raises(SystemExit) as caught:
        console.run(failing(error))
    assert caught.value.code == message


def test_a_bug_has_a_traceback_and_a_silent_process_fails_last(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(console.time, "sleep", waited.append)
    with pytest.raises(ZeroDivisionError):
        console.run(failing(ZeroDivisionError()))
    with pytest.raises(SystemExit) as caught:
        console.run(failing(UserError("said by another process")), speaks=False)
    assert (caught.value.code, waited) == (1, [console.SILENCE])
