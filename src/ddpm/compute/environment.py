"""Numbers from environment variables."""

import os
from typing import TypeVar

from ddpm.pipeline.console import UserError

Number = TypeVar("Number", int, float)


def number(variable: str, default: Number, least: Number, most: Number, unit: str) -> Number:
    """The value of the variable, a number of `unit` in a range, or the default where it is not set.

    Raises:
        UserError: it is no such number; whole ones are asked for where the default is whole.
    """
    given = os.environ.get(variable)
    if not given:
        return default
    try:
        found = type(default)(given)
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise UserError(f"{variable}={given[:40]}: give a number of {unit}, {least} to {most}")
    return found
