"""Compare sets that differ in one thing: equal label counts, one reference, and equal counts but for the test images.

The reference is the training images, without those that a judge learned. Real images to compare with are drawn from
them, with the label counts of the samples, and left out of it: SETS times, since one set may be near by chance. Every
row is compared with each of these references. Subsets of real images are random, because files are ordered and a prefix
would be biased. Features have shape (N, D).

Errors are those of the sets, with these references: they do not make them differ.
"""

import math
import statistics

import torch
from torch import Tensor

from ddpm.diffusion.randomness import generator
from ddpm.scores.distances import Estimate, FrechetDistance, jackknife, moments
from ddpm.scores.manifold import precision_and_recall

SETS = 5  # of training images
MOST_COMPARED = 10_000  # images in each row: more take long, as precision and recall compare every pair

Rows = dict[str, dict[str, float | None]]
Places = dict[str, list[Tensor]]  # of the images of each row, in one set or in SETS


def counts_of(wanted: Tensor, available: Tensor) -> Tensor:
    """Return how many images of each class to take: as many as wanted, or as many in this mix as are available.

    If the mix leaves fewer than half of them, rare classes have what is available.
    """
    most = torch.minimum(wanted, available)
    ratio = (available.double() / wanted).nan_to_num(1).amin().clamp(max=1)
    even = (wanted * ratio).round().long()
    return even if 2 * even.sum() >= most.sum() else most


def first_of_each(labels: Tensor, counts: Tensor) -> Tensor:
    """Return the places of the first `counts[label]` images of each label (N,), with all labels spread evenly.

    So the tenths of the jackknife have one mix of labels, as other such sets have.
    """
    order, sizes = labels.argsort(stable=True), labels.bincount(minlength=len(counts))
    rank = torch.empty_like(order)  # of each image in its class
    rank[order] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    chosen = (rank < counts[labels]).nonzero().squeeze(1)
    return chosen[((rank[chosen] + 0.5) / counts[labels[chosen]]).argsort(stable=True)]


def draw_places(
    samples: Tensor,
    test: Tensor,
    train: Tensor,
    kept: Tensor,
    passing: Tensor,
    seed: int,
    reference: Tensor | None = None,
) -> Places:
    """Choose the images of each row, by the labels of samples (N,), test (M,) and training images (K,).

    samples and, before the filter, unfiltered: places among the samples; test: among the test images; real, and
    through the filter, real_filtered: among the training images, SETS times. fewer: real ones, as many as test images.
    no reference: training images that are not in `reference`, SETS times.

    Args:
        kept: the samples that the filter kept (N,); if it kept all, there are no rows of the filter.
        passing: the training images that it would keep (K,).
        reference: those that may be drawn or referred to (K,); by default all.
    """
    classes = 1 + int(torch.cat([samples, test, train]).max())
    ours = kept.nonzero().squeeze(1)[:MOST_COMPARED]
    free = torch.ones_like(passing) if reference is None else reference
    wanted, others, real = (each.bincount(minlength=classes) for each in (samples[ours], test, train[passing & free]))
    counts = counts_of(wanted, real // 2)
    fewer = counts_of(counts, others)
    of_test = torch.randperm(len(test), generator=generator(seed, "test", 0))
    every = (torch.randperm(len(train), generator=generator(seed, "real", index)) for index in range(SETS))
    orders = [each[free[each]] for each in every]

    def first(labels: Tensor, order: Tensor, counts: Tensor = counts) -> Tensor:
        return order[first_of_each(labels[order], counts)]

    places = {"unfiltered": [first(samples, torch.arange(len(samples)))], "samples": [first(samples, ours)]}
    places["real"] = [first(train, each) for each in orders]
    places["real_filtered"] = [first(train, each[passing[each]]) for each in orders]
    places["test"] = [first(test, of_test, fewer)]
    places["fewer"] = [first(train, each, fewer) for each in orders]
    if not free.all():
        places["no reference"] = [(~free).nonzero().squeeze(1)] * SETS
    if kept.all():
        del places["unfiltered"], places["real_filtered"]
    return places


def left_out(places: Places, index: int, names: tuple[str, ...] = ("real", "real_filtered", "no reference")) -> Tensor:
    """Return the training images that are not in a reference, or those of some rows."""
    return torch.cat([places[name][index] for name in names if name in places]).unique()


def compare(samples: Tensor, test: Tensor, train: Tensor, places: Places) -> Rows:
    """Compute the Frechet distance of each row, its mean over the references, and its excess over real images.

    The error is of one set, that of the excess counts SETS of real images. These share most images with those that the
    filter keeps, so there the differences themselves tell their error.
    """
    every = moments(train)
    references = [FrechetDistance(every.without(moments(train[left_out(places, index)]))) for index in range(SETS)]
    source = {"samples": samples, "unfiltered": samples, "test": test}

    def found(name: str) -> tuple[list[float], float]:
        sets = [source.get(name, train)[each] for each in places[name]] * (SETS // len(places[name]))
        values = [distance(moments(each)) for distance, each in zip(references, sets, strict=True)]
        errors = [jackknife(distance, each) for distance, each in zip(references, sets, strict=True)]
        return values, math.hypot(*errors) / SETS**0.5

    distances, rows = {name: found(name) for name in places if name != "no reference"}, {}
    for name, (values, error) in distances.items():
        real, of_real = distances["fewer" if name == "test" else "real"]
        excess = [value - other for value, other in zip(values, real, strict=True)]
        of_mean = (statistics.stdev(excess) if name == "real_filtered" else of_real) / SETS**0.5
        of_excess = of_mean if name == "real_filtered" else math.hypot(error, of_mean)
        rows[name] = Estimate(statistics.mean(values), error).row("frechet")
        if name != "real":
            rows[name] |= Estimate(statistics.mean(excess), of_excess).row("frechet_excess")
    del rows["fewer"]
    return rows


def variety(samples: Tensor, test: Tensor, train: Tensor, places: Places) -> Rows:
    """Compute precision and recall beside as many other training images."""
    sets = {name: values[places[name][0]] for name, values in (("samples", samples), ("test", test), ("real", train))}
    rest = torch.ones(len(train), dtype=torch.bool).index_fill(0, left_out(places, 0), False).nonzero().squeeze(1)
    order = torch.randperm(len(rest), generator=generator(0, "variety"))
    real = train[rest[order[: len(sets["samples"])]]]
    found = {name: precision_and_recall(real, each) for name, each in sets.items()}
    return {name: precision.row("precision") | recall.row("recall") for name, (precision, recall) in found.items()}
