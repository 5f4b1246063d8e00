"""When a drawn image of a class is a copy of a training image: nearer than fresh images of the class come by chance.

Images are uint8 (N, C, H, W) of one class; distances are root mean squares of differences in [-1, 1].
"""

import numpy as np
import torch
from torch import Tensor

from ddpm.images.pixels import to_float
from ddpm.scoring.copying import CHUNK, LEAST, NEAR, Nearness, nearest_neighbours, twins


def threshold(fresh: Tensor, train: Tensor) -> float:
    """The distance to the nearest of the training images (M, ...) below which an image is a copy.

    It is the distance that all but NEAR of the fresh images (N, ...) exceed; of fewer than LEAST, the least. Those that
    are twins of training images do not count. Where no fresh image is left, training images stand in for them, each
    beside all others; and where there are none of these either it is 0.
    """
    for distance in (_to_nearest(fresh, train), _to_each_other(train)):
        labels = torch.zeros(len(distance), dtype=torch.long)
        single = distance[~twins(Nearness(distance, distance, labels))].double().numpy()
        if len(single) >= LEAST:
            return float(np.quantile(single, NEAR, method="weibull"))
        if len(single):
            return float(single.min())
    return 0.0


def _to_nearest(fresh: Tensor, train: Tensor) -> Tensor:
    """Of each fresh image (N,)."""
    return nearest_neighbours(fresh, train).distance if len(fresh) else torch.empty(0)


def _to_each_other(train: Tensor) -> Tensor:
    """Of each training image to the nearest of the others (M,); of one alone there is none."""
    if len(train) < 2:
        return torch.empty(0)
    table = to_float(train).flatten(1)
    nearest = []
    for rows in torch.arange(len(table)).split(CHUNK):
        distances = torch.cdist(table[rows], table)
        distances[torch.arange(len(rows)), rows] = torch.inf
        others = table[distances.argmin(1)]
        # Anew, since differences of large squares have no digits left for a small distance.
        nearest.append((table[rows] - others).square().mean(1).sqrt())
    return torch.cat(nearest)
