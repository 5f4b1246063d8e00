"""Images that are equal, or nearly: one should not be held out while another is trained on."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.images.pixels import to_float

SIDE = 8  # of the thumbnails that are compared
NEAR = 0.02  # root mean square of the difference of twins' thumbnails, over that of a set's thumbnails from their mean
CHUNK = 200


def thumbnails(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as float32 (N, D), D at most C SIDE^2."""
    height, width = images.shape[2:]
    return F.adaptive_avg_pool2d(to_float(images), (min(SIDE, height), min(SIDE, width))).flatten(1)


def twin_groups(thumbnails: Tensor, places: Tensor) -> Tensor:
    """For each of thumbnails (N, D) the index of its twin of least `places` (N,), or of itself: which decides, (N,).

    An image joins the nearest of those before it, in order of mean brightness, if that is a twin: those whose means
    differ by more cannot be, and so few are compared. Equal images are always together, twins of several nearly so.
    """
    means, order = thumbnails.mean(1).sort()
    table = thumbnails[order] - thumbnails.mean(0)  # else squares would be large, and their differences rounded
    norms, width = table.square().sum(1), table.shape[1]
    near = NEAR * float(table.square().mean().sqrt())
    leader = torch.arange(len(order))  # of each, in that order, one before it or itself
    for start in range(0, len(order), CHUNK):
        rows = table[start : start + CHUNK]
        end = start + len(rows)
        first = int(torch.searchsorted(means, means[start] - near))
        distances = torch.addmm(norms[first:end], rows, table[first:end].T, alpha=-2)  # squared, less the row's norm
        distances[:, start - first :] += torch.full((len(rows), len(rows)), torch.inf).triu()
        nearest = distances.min(1)
        found = nearest.values + norms[start:end] <= near**2 * width
        leader[start:end][found] = first + nearest.indices[found]
    return _representatives(leader, order, places)


def _representatives(leader: Tensor, order: Tensor, places: Tensor) -> Tensor:
    roots, indices = leader.tolist(), order.tolist()
    best: dict[int, int] = {}
    for rank, before in enumerate(roots):
        roots[rank] = roots[before] if before != rank else rank
        index = indices[rank]
        if places[index] < places[best.setdefault(roots[rank], index)]:
            best[roots[rank]] = index
    groups = torch.empty_like(order)
    groups[order] = torch.tensor([best[root] for root in roots], dtype=order.dtype)
    return groups
