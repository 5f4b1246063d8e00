"""Stages of DVC that record only what they ran on; README.md beside this file tells how to use them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from exact_stages.console import UserError, progress
from exact_stages.files import SavedState, write_whole

if TYPE_CHECKING:
    from exact_stages.params import Section, Sections
    from exact_stages.stage import Stage, begin, run_stage

__all__ = ["SavedState", "Section", "Sections", "Stage", "UserError", "begin", "progress", "run_stage", "write_whole"]


def __getattr__(name: str) -> Any:
    """Import what needs pydantic, psutil and filelock once a stage asks for it: the check runs without them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'params' if name in ('Section', 'Sections') else 'stage'}"), name)
