"""Stages of DVC that record only what they ran on; README.md beside this file tells how to use them."""

from typing import Any

from exact_stages.console import UserError, progress
from exact_stages.imports import follow

__all__ = ["SavedState", "Section", "Sections", "Stage", "UserError", "begin", "follow", "progress", "run_stage"]
__all__ += ["write_whole"]


def __getattr__(name: str) -> Any:
    """Import what needs more once it is asked for: `follow` runs without DVC, commands without pydantic and psutil."""
    if name in ("SavedState", "write_whole"):
        from exact_stages import files

        return getattr(files, name)
    if name in ("Section", "Sections"):
        from exact_stages import params

        return getattr(params, name)
    if name in ("Stage", "begin", "run_stage"):
        from exact_stages import stage

        return getattr(stage, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
