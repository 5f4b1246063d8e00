"""The loss curves of a training run, as tables."""

import math
from typing import Any

import pandas as pd
from torch import Tensor

from ddpm.diffusion.timesteps import TIMESTEP_BUCKETS
from ddpm.training.loop import EpochEnd, Logged

COLUMNS = {
    "loss": ["step", "train_loss"],
    "validation": ["step", "validation_loss"],
    "loss_by_timestep": ["t", "train_loss"],
    "validation_by_timestep": ["t", "validation_loss"],
}


class Curves:
    """Losses over the steps, and those of the last epoch over t: `facts` is all of it, JSON-compatible."""

    def __init__(self, timesteps: int, facts: dict[str, Any] | None = None) -> None:
        """Begin with nothing, or go on from the facts of others."""
        width = timesteps / TIMESTEP_BUCKETS
        self.middles = [f"{(bucket + 0.5) * width:g}" for bucket in range(TIMESTEP_BUCKETS)]  # label the ranges of t
        self.facts: dict[str, Any] = facts or {"rows": {name: [] for name in COLUMNS}, "last": {}}

    @property
    def last(self) -> dict[str, float]:
        """The end of each curve, for a summary."""
        return self.facts["last"]  # type: ignore[no-any-return]

    def add(self, event: Logged | EpochEnd) -> None:
        """Append the event to its curve."""
        rows = self.facts["rows"]
        if isinstance(event, Logged):
            self.last["train_loss"] = round(event.loss, 6)
            rows["loss"].append([event.step, event.loss])
            return
        rows["loss_by_timestep"] = self._by_timestep(event.training)
        if event.validation is not None:
            mean = event.validation.nanmean().item()
            self.last["validation_loss"] = round(mean, 6)
            rows["validation"].append([event.step, mean])
            rows["validation_by_timestep"] = self._by_timestep(event.validation)

    def tables(self) -> dict[str, str]:
        """Every curve as csv, by its name."""
        return {
            name: pd.DataFrame(self.facts["rows"][name], columns=columns).to_csv(index=False, float_format="%.6f")
            for name, columns in COLUMNS.items()
        }

    def _by_timestep(self, losses: Tensor) -> list[list[str | float]]:
        """A row for each range of t in which a t fell."""
        pairs = zip(self.middles, losses.tolist(), strict=True)
        return [[middle, loss] for middle, loss in pairs if not math.isnan(loss)]
