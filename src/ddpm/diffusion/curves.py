"""The curves of a training: losses over the steps, and over t."""

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

BUCKETS = 10  # of t
COLUMNS = {
    "loss": ["step", "train_loss"],
    "validation": ["step", "validation_loss"],
    "loss_by_timestep": ["t", "train_loss"],
    "validation_by_timestep": ["t", "validation_loss"],
}


class Buckets:
    """Sums of losses, and of their weights, over ten ranges of t."""

    def __init__(self, timesteps: int, device: torch.device) -> None:
        self.timesteps = timesteps
        self.sums = torch.zeros(2, BUCKETS, device=device)

    def add(self, t: Tensor, losses: Tensor, weights: Tensor | None = None) -> None:
        """Add losses (B,) at t (B,), times their weights (B,)."""
        weights = torch.ones_like(losses) if weights is None else weights
        self.sums.index_add_(1, t * BUCKETS // self.timesteps, torch.stack([losses * weights, weights]))

    def curve(self) -> tuple[float, list[list[Any]]]:
        """Return the mean over the ranges that have losses, and rows of the middle and the mean loss of each."""
        losses = (self.sums[0] / self.sums[1]).cpu()
        width = self.timesteps / BUCKETS
        rows = [[f"{(place + 0.5) * width:g}", loss] for place, loss in enumerate(losses.tolist())]
        return losses.nanmean().item(), [row for row in rows if not math.isnan(row[1])]


class Curves:
    """The rows of each curve of COLUMNS. All are means over uniform t, whatever density of t is trained."""

    def __init__(self, timesteps: int, density: Tensor) -> None:
        """Begin without rows; `density` is the trained one of t, relative to uniform t, (T,)."""
        self.density = density
        self.buckets = Buckets(timesteps, density.device)  # of the epoch
        self.loss_sum = torch.zeros((), device=density.device)
        self.since_log = 0  # steps whose losses are in loss_sum
        self.rows: dict[str, list[list[Any]]] = {name: [] for name in COLUMNS}
        self.last: dict[str, float] = {}  # mean losses of the last epoch and of the last validation

    def add(self, t: Tensor, losses: Tensor) -> None:
        """Add the losses of a step, (B,), at t (B,)."""
        importance = 1 / self.density[t]
        self.buckets.add(t, losses, importance)
        self.loss_sum += (losses * importance).mean()
        self.since_log += 1

    def log(self, step: int) -> float:
        """Add the mean loss since the last one, and return it."""
        loss = float(self.loss_sum) / self.since_log  # synchronises with the GPU
        self.rows["loss"].append([step, loss])
        self.loss_sum.zero_()
        self.since_log = 0
        return loss

    def end_epoch(self) -> None:
        """Replace the curve over t by that of the epoch."""
        self._replace("train_loss", "loss_by_timestep", self.buckets)
        self.buckets.sums.zero_()

    def validate(self, step: int, buckets: Buckets) -> None:
        """Add the loss on held-out images, and replace its curve over t."""
        self._replace("validation_loss", "validation_by_timestep", buckets)
        self.rows["validation"].append([step, buckets.curve()[0]])

    def csv(self) -> dict[str, bytes]:
        """Return the curves as csv, by the name of the file."""
        tables = {name: pd.DataFrame(self.rows[name], columns=columns) for name, columns in COLUMNS.items()}
        return {
            f"{name}.csv": table.to_csv(index=False, float_format="%.6f").encode() for name, table in tables.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes."""
        own = {"buckets": self.buckets.sums, "loss_sum": self.loss_sum, "since_log": self.since_log}
        return own | {"rows": self.rows, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of other curves."""
        self.buckets.sums.copy_(state["buckets"])
        self.loss_sum.copy_(state["loss_sum"])
        self.since_log, self.rows, self.last = state["since_log"], state["rows"], state["last"]

    def _replace(self, name: str, curve: str, buckets: Buckets) -> None:
        mean, self.rows[curve] = buckets.curve()
        self.last[name] = round(mean, 6)
