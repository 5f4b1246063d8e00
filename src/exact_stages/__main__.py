"""Run `python -m exact_stages check`."""

from exact_stages.check import main
from exact_stages.console import run

run(main)
