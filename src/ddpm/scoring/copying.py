"""Whether samples are copies of training images, told from the distances to them, beside those of fresh real images.

Images are uint8 (N, C, H, W), compared in [-1, 1], or they are features (N, D) in float32; distances are root mean
squares of differences. They are computed where the queries are, to which references come by parts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.pixels import to_float

NEAR = 0.01
LEAST = 100  # fresh images: of fewer, no one is nearer than all but NEAR
NEXT = 10
TWIN = 0.2
CHUNK = 500
WIDTH = 2000  # references beside as many queries: their distances stay in a processor's caches
TABLE = 47_040_000  # numbers of references at once
PAIRS = 1 << 25  # numbers of queries beside their nearest references at once
WORK = 4 * 10**12  # products of two numbers in one search, some minutes on a few cores


def some_queries(count: int, products: int, seed: int) -> Tensor | slice:
    """Choose which of `count` queries to search for: all, or a random subset (n,) that takes WORK products.

    Args:
        products: how many the search takes for all of them.
    """
    if products <= WORK:
        return slice(None)
    return torch.randperm(count, generator=generator(seed, "copying"))[: max(1, count * WORK // products)]


class Neighbours(NamedTuple):
    """For each query its nearest reference: its index (N,), and its distance (N,)."""

    nearest: Tensor
    distance: Tensor


def nearest_neighbours(queries: Tensor, references: Tensor) -> Neighbours:
    """The nearest reference of each query."""
    nearest = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    least = torch.full((len(queries),), torch.inf, device=queries.device)
    for first, table in _tables(references, queries.device):
        norms = table.square().sum(1)
        for part, index, distance in zip(*(each.split(CHUNK) for each in (queries, nearest, least)), strict=True):
            flat = _flat(part)
            for start in range(0, len(table), WIDTH):
                columns = slice(start, start + WIDTH)
                found = torch.addmm(norms[columns], flat, table[columns].T, alpha=-2).min(1)
                nearer = found.values < distance
                index.copy_(torch.where(nearer, first + start + found.indices, index))
                distance.copy_(torch.where(nearer, found.values, distance))
    pairs = zip(queries.split(CHUNK), nearest.split(CHUNK), strict=True)
    # Anew, since differences of large squares have no digits left for a small distance.
    distances = [(_flat(part) - _flat(_taken(references, index))).square().mean(1).sqrt() for part, index in pairs]
    return Neighbours(nearest, torch.cat(distances))


def copying_z(samples: Tensor, fresh: Tensor) -> float:
    """The Mann-Whitney statistic of distances to the nearest training image, (N,) of samples and (M,) of fresh images.

    It is standard normal where they agree (Meehan et al. 2020, arXiv:2004.05675, with one cell), and far below 0 where
    samples are nearer, as copies are, but smooth or average images as well; bad images push it up.
    """
    samples, fresh = samples.double(), fresh.double().sort().values
    below, up_to = (torch.searchsorted(fresh, samples, right=right) for right in (False, True))
    wins = (below + up_to).double().sum() / 2  # pairs in which the sample is farther; a tie is half a win
    pairs = len(samples) * len(fresh)
    deviation = (pairs * (len(samples) + len(fresh) + 1) / 12) ** 0.5
    return float(wins - pairs / 2) / deviation


class Nearness(NamedTuple):
    """How near images of these classes, (N,), are to training images of their own.

    distance: to the nearest (N,). ratio: that, over the mean distance of the NEXT nearest (N,); it has no scale.
    """

    distance: Tensor
    ratio: Tensor
    labels: Tensor


def nearness(images: Tensor, labels: Tensor, train: Tensor, train_labels: Tensor) -> Nearness:
    """Of images (N, ...) with labels (N,), to training images (M, ...) with theirs (M,).

    Where there are too few of a class for a distance or a ratio, they are infinite.
    """
    distances, ratios = torch.full((2, len(images)), torch.inf, device=images.device)
    for label in labels.unique():
        chosen = (labels == label).nonzero().squeeze(1)
        near = [torch.empty(len(chosen), 0, device=images.device)]
        for _, table in _tables(train, images.device, (train_labels == label).nonzero().squeeze(1)):
            size = max(1, min(CHUNK, PAIRS // ((1 + NEXT) * table.shape[1])))
            near.append(torch.cat([_nearest(_flat(images[rows]), table) for rows in chosen.split(size)]))
        for rows, distance in zip(
            chosen.split(CHUNK), torch.cat(near, dim=1).sort(1).values[:, : 1 + NEXT].split(CHUNK), strict=True
        ):
            if distance.shape[1]:
                distances[rows] = distance[:, 0]
            if distance.shape[1] > 1:
                ratios[rows] = (distance[:, 0] / distance[:, 1:].mean(1)).nan_to_num(0)  # 0 / 0: copies of copies
    return Nearness(distances.cpu(), ratios.cpu(), labels)


def _nearest(queries: Tensor, table: Tensor) -> Tensor:
    """Distances of queries (N, D) to the 1 + NEXT nearest rows, in no order."""
    norms = table.square().sum(1)
    near = (norms - 2 * queries @ table.T).topk(min(1 + NEXT, len(table)), largest=False).indices
    # Anew, since differences of large squares have no digits left for a small distance.
    return (queries[:, None] - table[near]).square().mean(2).sqrt()


def _tables(references: Tensor, device: torch.device, index: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
    """The references, flat and in float on the device, in parts that memory is sure to hold, with where each begins.

    Args:
        index: which of them (N,); by default all.
    """
    rows = max(1, TABLE // max(1, references[:1].numel()))
    for first in range(0, len(references) if index is None else len(index), rows):
        part = slice(first, first + rows)
        yield first, _flat(references[part if index is None else index[part].to(references.device)].to(device))


def _taken(references: Tensor, index: Tensor) -> Tensor:
    return references[index.to(references.device)].to(index.device)


def _flat(values: Tensor) -> Tensor:
    return (to_float(values) if values.dtype == torch.uint8 else values).flatten(1)


class NearCopies(NamedTuple):
    """Shares of the samples that are nearer to training images than all but NEAR of the fresh images; NEAR is expected.

    distance: by the distance, within each class, since the scales of the classes differ: of all distances together,
    the smallest NEAR would be those of the tightest class, and copies of all others would pass. ratio: by the ratio.
    judged: share of the samples of whose class there are LEAST fresh images; the others do not count in `distance`.
    twins: share of the fresh images that are near copies themselves, as data sets have them: equal to a training image,
    or nearer than TWIN times the median of their class. They say nothing of how near an image comes by chance, and
    thresholds are made of the others.

    A share is None where there is nothing to tell it from.
    """

    distance: float | None
    ratio: float | None
    judged: float
    twins: float


def near_copies(samples: Nearness, fresh: Nearness) -> NearCopies:
    """Count them among samples (N,), by fresh images (M,)."""
    single = ~twins(fresh)
    thresholds = torch.full((len(samples.labels),), torch.nan, dtype=torch.float64)
    for label in samples.labels.unique():
        thresholds[samples.labels == label] = _threshold(fresh.distance[single & (fresh.labels == label)])
    judged = ~thresholds.isnan()
    threshold = _threshold(fresh.ratio[single])
    return NearCopies(
        distance=_share((samples.distance < thresholds)[judged]),
        ratio=None if np.isnan(threshold) else _share(samples.ratio < threshold),
        judged=float(judged.double().mean()),
        twins=float((~single).double().mean()),
    )


def twins(fresh: Nearness) -> Tensor:
    """Which of the images (M,) are near copies of training images, see `NearCopies`."""
    found = fresh.distance == 0
    for label in fresh.labels.unique():
        chosen = (fresh.labels == label) & ~found
        distance = fresh.distance[chosen]
        if len(distance):
            found[chosen] = distance < TWIN * distance.median()
    return found


def _threshold(values: Tensor) -> float:
    """Below it lies NEAR of the distribution that gave these values, in expectation; NaN for fewer than LEAST."""
    values = values[values.isfinite()].double()
    return float(np.quantile(values.numpy(), NEAR, method="weibull")) if len(values) >= LEAST else np.nan


def _share(among: Tensor) -> float | None:
    return float(among.double().mean()) if len(among) else None
