"""One-line errors and progress bars for all command lines of the project."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

SILENCE = 60  # seconds that a process which does not speak waits for the one that does
EXPLAINED: dict[type[BaseException], str] = {}  # messages for further exceptions, which the project adds


class UserError(Exception):
    """A mistake that the user can fix; the message names the parameter or file and says what to do."""


def shown(text: str, limit: int = 300) -> str:
    """Shorten `text` to about `limit` characters on one line, and escape unprintable characters."""
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]}...{text[-limit // 4 :]}"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def some(names: Sequence[str]) -> str:
    """Name the first few."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def run(main: Callable[[], None], speaks: bool = True) -> None:
    """Call `main`; on an error that a user can correct, exit with one message and code 1, without a traceback.

    Args:
        speaks: whether to print a UserError; of several processes that make the same mistake, one should.
    """
    try:
        main()
    except UserError as error:
        if not speaks:  # the launcher ends all when one ends, so the one that speaks must be the first
            time.sleep(SILENCE)
        sys.exit(f"error: {error}" if speaks else 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Exception as error:
        if type(error) not in EXPLAINED:
            raise
        sys.exit(f"error: {EXPLAINED[type(error)]}")


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a tqdm bar on standard error, updated every ten seconds where that is not a terminal."""
    from tqdm import tqdm  # `follow` runs without

    return tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 10.0, dynamic_ncols=True, **options)
