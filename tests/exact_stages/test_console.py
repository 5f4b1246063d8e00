"""A user's mistake ends a command in one line, and a bug in a traceback."""

import pytest

from exact_stages import console
from exact_stages.console import UserError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("train.lr: too high"), "error: train.lr: too high"),
        (FileNotFoundError(2, "No such file or directory", "data/x"), "error: data/x: No such file or directory"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_run_makes_one_line_of_an_expected_error(error: BaseException, message: str) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        console.run(main)
    assert caught.value.code == message


def test_run_lets_a_bug_through() -> None:
    with pytest.raises(ZeroDivisionError):
        console.run(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
