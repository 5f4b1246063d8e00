"""Detect samples that copy training images: compare their distances to training images with held-out real images.

Images are uint8 (N, C, H, W), compared in [-1, 1]; features are float32 (N, D). Distances are root mean squares of
differences. They are computed on the device of the queries, where references arrive in parts.
"""

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.images.splits import to_float
from ddpm.processes.workers import map_shards
from ddpm.scores.distances import NONE, Estimate

NEAR = 0.01
LEAST = 100  # held-out images: fewer cannot estimate the quantile NEAR
NEXT = 10
NEAR_DUPLICATE = 0.2
CHUNK = 500  # queries at a time
TABLE = 47_040_000  # numbers of references in memory at once
PAIRS = 1 << 25  # numbers of queries and their nearest references in memory at once
SHIFT = 1  # pixels: copies that are shifted by up to this are found


class Neighbours(NamedTuple):
    """The nearest reference of each query: its index (N,) and its distance (N,)."""

    nearest: Tensor
    distance: Tensor


def nearest_neighbours(queries: Tensor, references: Tensor) -> Neighbours:
    """Find the nearest reference of each query."""
    parts = queries.split(CHUNK)
    found = map_shards(lambda shard: _nearest_reference(parts[shard], references), range(len(parts)))
    return Neighbours(*map(torch.cat, zip(*found, strict=True)))


def _nearest_reference(queries: Tensor, references: Tensor) -> Neighbours:
    flat = _flat(queries)
    nearest = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    least = torch.full((len(queries),), torch.inf, device=queries.device)
    for first, table in _tables(references, queries.device):
        found = torch.cdist(flat, table).min(1)
        nearest = torch.where(found.values < least, first + found.indices, nearest)
        least = torch.minimum(found.values, least)
    chosen = references[nearest.to(references.device)].to(queries.device)
    # Recompute: differences of large squares lose the digits of a small distance.
    return Neighbours(nearest, (flat - _flat(chosen)).square().mean(1).sqrt())


class Nearness(NamedTuple):
    """How near images with these labels (N,) are to training images of their own class.

    distance: to the nearest (N,). ratio: this distance over the mean distance of the NEXT nearest (N,); it has no
    scale.
    """

    distance: Tensor
    ratio: Tensor
    labels: Tensor


def shifted(images: Tensor) -> list[Tensor]:
    """View images (N, C, H, W) without a margin of SHIFT pixels, shifted by up to SHIFT in all directions."""
    height, width = (side - 2 * SHIFT for side in images.shape[2:])
    places = range(2 * SHIFT + 1)
    return [images[..., y : y + height, x : x + width] for y in places for x in places]


def middle(images: Tensor) -> Tensor:
    """View images (N, C, H, W) without a margin of SHIFT pixels."""
    return images[..., SHIFT:-SHIFT, SHIFT:-SHIFT]


def nearness(
    versions: Sequence[Tensor], labels: Tensor, train: Tensor, train_labels: Tensor, trained: bool = False
) -> Nearness:
    """Measure how near images with labels (N,) are to training images (M, ...) of the same class, labels (M,).

    A distance or ratio is infinite if its class has too few training images.

    Args:
        versions: one or more versions of the images, each (N, ...); of an image's versions, the nearest counts.
        trained: whether these are training images, so that the nearest of each is the image itself, which is left out.
    """
    rows = max(1, min(CHUNK, PAIRS // ((1 + NEXT) * versions[0][:1].numel())))
    of_class = {label: (labels == label).nonzero().squeeze(1).split(rows) for label in labels.unique().tolist()}
    shards = [(label, part) for label, parts in of_class.items() for part in range(len(parts))]

    def measured(shard: tuple[int, int]) -> tuple[Tensor, Tensor]:
        label, part = shard
        queries = [each[of_class[label][part]] for each in versions]
        same_class = (train_labels == label).nonzero().squeeze(1)
        near = [
            _nearest(queries, table, 1 + NEXT + trained) for _, table in _tables(train, queries[0].device, same_class)
        ]
        distance, ratio = torch.full((2, len(queries[0])), torch.inf, device=queries[0].device)
        if len(same_class) > trained:
            found = torch.cat(near, dim=1).sort(1).values[:, trained : 1 + NEXT + trained]
            distance = found[:, 0]
            if found.shape[1] > 1:
                ratio = (distance / found[:, 1:].mean(1)).nan_to_num(0)  # 0 / 0: copies of copies
        return distance.cpu(), ratio.cpu()

    distances, ratios = torch.empty(2, len(labels))
    for (label, part), found in zip(shards, map_shards(measured, shards), strict=True):
        chosen = of_class[label][part]
        distances[chosen], ratios[chosen] = found
    return Nearness(distances, ratios, labels)


def _nearest(versions: Sequence[Tensor], table: Tensor, count: int) -> Tensor:
    """Return the distances from queries (N, ...), in some versions, to the `count` nearest rows, unordered."""
    queries = [_flat(each) for each in versions]
    distances = reduce(torch.minimum, (torch.cdist(each, table) for each in queries))
    near = table[distances.topk(min(count, len(table)), largest=False).indices]
    # Recompute: differences of large squares lose the digits of a small distance.
    return torch.stack([(each[:, None] - near).square().mean(2) for each in queries]).amin(0).sqrt()


def _tables(references: Tensor, device: torch.device, chosen: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
    """Yield the references, or only the `chosen`, in parts that fit in memory: the first's place, and flat floats."""
    rows = max(1, TABLE // max(1, references[:1].numel()))
    for first in range(0, len(references if chosen is None else chosen), rows):
        part = slice(first, first + rows)
        yield first, _flat(references[part if chosen is None else chosen[part].to(references.device)].to(device))


def _flat(values: Tensor) -> Tensor:
    return (to_float(values) if values.dtype == torch.uint8 else values).flatten(1)


def near_copies(ratios: Sequence[Tensor], held_out: Nearness) -> list[Estimate]:
    """Estimate the share of near copies in sets of these ratios (N,), and last, by held-out images, what to expect.

    A near copy is nearer to training images, by the ratio, than all but a share NEAR of the held-out images. The
    threshold is that of held-out images without near-duplicates, which would hide copies. The shares count them, in
    the sets as among held-out images. Of fewer than LEAST held-out images there is no share.
    """
    duplicates = near_duplicates(held_out.distance, held_out.labels)
    values = held_out.ratio[~duplicates & held_out.ratio.isfinite()].double()
    if len(values) < LEAST:
        return [NONE] * (1 + len(ratios))
    # Below it lies a share NEAR of the distribution, in expectation.
    threshold = float(np.quantile(values.numpy(), NEAR, method="weibull"))
    *copies, found = ((each.double() < threshold).double() for each in (*ratios, held_out.ratio))
    return [*map(_share, copies), _share(torch.where(duplicates, found, NEAR))]


def near_duplicates(distance: Tensor, labels: Tensor) -> Tensor:
    """Tell which images (M,) are near-duplicates of training images, by `distance` to the nearest.

    They are identical, or nearer than NEAR_DUPLICATE times the median of their class, so not by chance.
    """
    found = distance == 0
    for label in labels.unique():
        chosen = (labels == label) & ~found
        if chosen.any():
            found[chosen] = distance[chosen] < NEAR_DUPLICATE * distance[chosen].median()
    return found


def _share(near: Tensor) -> Estimate:
    """Estimate a share from flags (N,), float64; its error is at least that of the share NEAR."""
    share = float(near.mean())
    return Estimate(share, math.sqrt(max(share * (1 - share), NEAR * (1 - NEAR)) / len(near)))
