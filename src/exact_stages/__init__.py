"""Stages of DVC that record only what they ran on; README.md beside this file tells how to use them."""

from typing import Any

from exact_stages.console import UserError, progress
from exact_stages.files import SavedState, write_whole

__all__ = ["SavedState", "Section", "Sections", "Stage", "UserError", "begin", "progress", "run_stage", "write_whole"]


def __getattr__(name: str) -> Any:
    """Import what needs pydantic, psutil and filelock once a stage asks for it: the commands run without them."""
    if name in ("Section", "Sections"):
        from exact_stages import params

        return getattr(params, name)
    if name in ("Stage", "begin", "run_stage"):
        from exact_stages import stage

        return getattr(stage, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
