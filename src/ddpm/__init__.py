"""Sample in a Python program: `ddpm.sample(ddpm.load_pretrained("mnist"), count=100, classes=["7"])`."""

from typing import Any

__all__ = ["load_model", "load_pretrained", "sample"]


def __getattr__(name: str) -> Any:
    """Import each of these once it is asked for: the code of a stage is not that of all three."""
    if name == "load_model":
        from ddpm.diffusion import model

        return model.load_model
    if name == "load_pretrained":
        from ddpm.pretrained import models

        return models.load_pretrained
    if name == "sample":
        from ddpm.diffusion import sets

        return sets.sample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
