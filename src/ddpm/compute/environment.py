"""Read numbers from environment variables."""

import os
from typing import TypeVar

from ddpm.pipeline.console import UserError

Number = TypeVar("Number", int, float)


def number(variable: str, default: Number, least: Number, most: Number, unit: str) -> Number:
    """Return a variable's number of `unit`, or the default if it is not set.

    Raises:
        UserError: it is not a number from `least` to `most`, or not an integer although the default is one.
    """
    given = os.environ.get(variable)
    if not given:
        return default
    try:
        found = type(default)(given)
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise UserError(f"{variable}={given[:40]}: set a number of {unit}, {least} to {most}")
    return found
