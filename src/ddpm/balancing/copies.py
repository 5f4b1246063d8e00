"""Detect samples that copy training images: they are nearer than fresh images of the class come by chance.

Images are uint8 (N, C, H, W) of one class. Distances are root mean squares of differences in [-1, 1].
"""

import numpy as np
import torch
from torch import Tensor

from ddpm.images.splits import to_float
from ddpm.scoring.copying import CHUNK, LEAST, NEAR, near_duplicates, nearest_neighbours


def threshold(fresh: Tensor, train: Tensor) -> float:
    """Return the distance to the nearest training image (M, ...) below which an image is a copy.

    All but a share NEAR of the fresh images (N, ...) exceed it. With fewer than LEAST, it is their smallest distance.
    Near-duplicates of training images do not count. Without fresh images, it uses the distances of each training image
    to the others. It is 0 if there is no reference.
    """
    for distance in (_to_nearest(fresh, train), _to_each_other(train)):
        labels = torch.zeros(len(distance), dtype=torch.long)
        single = distance[~near_duplicates(distance, labels)].double().numpy()
        if len(single) >= LEAST:
            return float(np.quantile(single, NEAR, method="weibull"))
        if len(single):
            return float(single.min())
    return 0.0


def _to_nearest(fresh: Tensor, train: Tensor) -> Tensor:
    """Return the distance of each fresh image to the nearest training image (N,)."""
    return nearest_neighbours(fresh, train).distance if len(fresh) else torch.empty(0)


def _to_each_other(train: Tensor) -> Tensor:
    """Return the distance of each training image to the nearest other one (M,); empty for a single image."""
    if len(train) < 2:
        return torch.empty(0)
    table = to_float(train).flatten(1)
    nearest = []
    for rows in torch.arange(len(table)).split(CHUNK):
        distances = torch.cdist(table[rows], table)
        distances[torch.arange(len(rows)), rows] = torch.inf
        others = table[distances.argmin(1)]
        # Recompute: differences of large squares lose the digits of a small distance.
        nearest.append((table[rows] - others).square().mean(1).sqrt())
    return torch.cat(nearest)
