"""Group near-duplicate images, so that a split never separates them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.images.splits import to_float

SIDE = 8  # pixels of the thumbnails that are compared
NEAR = 0.02  # largest RMS difference of near-duplicates' thumbnails, over the RMS of all about their mean
MOST_SEARCHED = 1_000_000  # images; the time grows with the square
CHUNK = 200


def thumbnails(images: Tensor) -> Tensor:
    """Shrink uint8 images (N, C, H, W) to float32 (N, D), D at most C SIDE^2."""
    height, width = images.shape[2:]
    return F.adaptive_avg_pool2d(to_float(images), (min(SIDE, height), min(SIDE, width))).flatten(1)


def near_duplicate_groups(thumbnails: Tensor, places: Tensor) -> Tensor:
    """Group near-duplicates by their thumbnails (N, D).

    Return the index of each image's representative (N,): the image of its group with the smallest of `places` (N,).
    Each image, in order of mean brightness, joins the nearest earlier one if that is near enough. Only images of
    similar brightness are compared. Equal images are always grouped, chains of near-duplicates mostly.
    """
    means, order = thumbnails.mean(1).sort()
    table = thumbnails[order] - thumbnails.mean(0)  # centred, so that differences of squares do not cancel
    norms, width = table.square().sum(1), table.shape[1]
    near = NEAR * float(table.square().mean().sqrt())
    leader = torch.arange(len(order))  # for each in this order, an earlier image or itself
    for start in range(0, len(order), CHUNK):
        rows = table[start : start + CHUNK]
        end = start + len(rows)
        first = int(torch.searchsorted(means, means[start] - near))
        distances = torch.addmm(norms[first:end], rows, table[first:end].T, alpha=-2)  # squared, without the row's norm
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
