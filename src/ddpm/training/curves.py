"""Loss curves of a training run, in csv files that are rewritten during the training."""

import math
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
from torch import Tensor

from ddpm.diffusion.timesteps import TIMESTEP_BUCKETS
from ddpm.training.loop import EpochEnd, LossPoint

SECONDS_BETWEEN_WRITES = 5
COLUMNS = {
    "loss": ["step", "train_loss"],
    "validation": ["step", "validation_loss"],
    "loss_by_timestep": ["t", "train_loss"],
    "validation_by_timestep": ["t", "validation_loss"],
}


class Curves:
    """Losses over the steps, and over t in the last epoch."""

    def __init__(self, timesteps: int, write: Callable[[str, bytes], None]) -> None:
        """Begin with empty curves.

        Args:
            write: called with the name and the content of each csv file.
        """
        width = timesteps / TIMESTEP_BUCKETS
        self._write = write
        self.middles = [
            f"{(bucket + 0.5) * width:g}" for bucket in range(TIMESTEP_BUCKETS)
        ]  # centres of the ranges of t
        self.rows: dict[str, list[list[Any]]] = {name: [] for name in COLUMNS}
        self.last: dict[str, float] = {}  # mean losses of the last epoch and of the last validation, for the summary
        self._written = time.monotonic()

    def add(self, event: LossPoint | EpochEnd) -> None:
        """Append the event to its curve; write the files if SECONDS_BETWEEN_WRITES have passed."""
        if isinstance(event, LossPoint):
            self.rows["loss"].append([event.step, event.loss])
        else:
            self.last["train_loss"] = round(event.training.nanmean().item(), 6)
            self.rows["loss_by_timestep"] = self._by_timestep(event.training)
            if event.validation is not None:
                mean = event.validation.nanmean().item()
                self.last["validation_loss"] = round(mean, 6)
                self.rows["validation"].append([event.step, mean])
                self.rows["validation_by_timestep"] = self._by_timestep(event.validation)
        if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write all csv files."""
        for name, columns in COLUMNS.items():
            table = pd.DataFrame(self.rows[name], columns=columns).to_csv(index=False, float_format="%.6f")
            self._write(f"{name}.csv", table.encode())
        self._written = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return all rows."""
        return {"rows": self.rows, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the curves of an interrupted run."""
        self.rows, self.last = state["rows"], state["last"]

    def _by_timestep(self, losses: Tensor) -> list[list[str | float]]:
        """Return a row for each range of t that has a loss."""
        pairs = zip(self.middles, losses.tolist(), strict=True)
        return [[middle, loss] for middle, loss in pairs if not math.isnan(loss)]
