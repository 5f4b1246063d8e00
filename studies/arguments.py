"""Parse the command lines of the studies."""

import argparse
from collections.abc import Callable


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is this text, in its own lines."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def at_least(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a whole number from {least} on")
        return int(text)

    return number
