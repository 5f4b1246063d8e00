"""Stages of DVC that record only what they ran on; README.md beside this file tells how to use them."""

from exact_stages.console import UserError, progress
from exact_stages.files import SavedState, write_whole
from exact_stages.params import Section, Sections
from exact_stages.stage import Stage, begin, run_stage

__all__ = [
    "SavedState",
    "Section",
    "Sections",
    "Stage",
    "UserError",
    "begin",
    "progress",
    "run_stage",
    "write_whole",
]
