"""One-line errors and progress bars for all command lines of the project."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from ddpm.pipeline.process import rank


class UserError(Exception):
    """A mistake that the user can fix; the message names the parameter or file and says what to do."""


def shown(text: str, limit: int = 300) -> str:
    """Shorten `text` to about `limit` characters on one line, and escape unprintable characters."""
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]}...{text[-limit // 4 :]}"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def run(main: Callable[[], None]) -> None:
    """Call `main`; on a UserError or OSError, exit with one message and code 1, without a traceback."""
    try:
        main()
    except UserError as error:
        first = rank() == 0 or os.environ.get("LOCAL_RANK") == "0"  # under torchrun, once on each machine
        sys.exit(f"error: {error}" if first else 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror or error}")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # by name, since not every command imports torch
            raise
        sys.exit("error: out of GPU memory; see docs/how-to/gpu.md for what to set, or set DDPM_DEVICE=cpu")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """Return a tqdm bar on standard error, updated every ten seconds where that is not a terminal."""
    return tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 10.0, dynamic_ncols=True, **options)
