"""Filling the classes of an imbalanced set: drawing until enough images are no copies, and taken for their class."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ddpm.balancing.copies import threshold
from ddpm.balancing.drawing import SPAN, Candidates, draw_class
from ddpm.classifier.model import Classifier
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.networks.checkpoint import LoadedModel
from ddpm.parallel.group import ALONE, Group
from ddpm.sampling.drawing import batches, sample_batch
from ddpm.sampling.samplers import SamplerParams
from ddpm.scoring.copying import nearest_neighbours

HOPELESS = 500  # candidates after which a class may be given up; fewer where fewer images are wanted


class Source(NamedTuple):
    """What candidates are drawn with, and judged by.

    least: the probability that the filter's classifier must give the class. tries: candidates for each that is kept,
    on which a class is given up.
    """

    loaded: LoadedModel
    classifier: Classifier
    params: SamplerParams
    seed: int
    runtime: Runtime
    train: Split
    fresh: Split
    least: float
    tries: int


class Tally(NamedTuple):
    """What became of the candidates of a class, in order of their numbers."""

    candidates: int = 0
    copies: int = 0
    filtered: int = 0
    kept: int = 0

    def done(self, wanted: int, tries: int) -> bool:
        """Whether there are as many as wanted, or so few that the class is given up."""
        enough = self.candidates >= min(HOPELESS, tries * wanted)
        hopeless = enough and self.candidates > tries * self.kept
        return self.kept >= wanted or hopeless or self.candidates >= SPAN

    def next_count(self, wanted: int, most: int) -> int:
        """How many candidates are drawn next: as many as it may take at the rate so far."""
        left = (wanted - self.kept) * max(1, self.candidates)
        return min(most, -(-left // max(1, self.kept)), SPAN - self.candidates)

    def next_batches(self, wanted: int, tries: int, most: int) -> Iterator[range]:
        """The candidates that are drawn next, as far as the rate so far tells; of the batches the first is sure.

        The others are whole: how large the last is to be hangs on what those before it give.
        """
        if self.done(wanted, tries):
            return iter(())
        count = self.next_count(wanted, SPAN)
        return batches(self.candidates, count if count < most else count - count % most, most)


class Kept(NamedTuple):
    """Drawn images that are kept, those of each class in order of their numbers.

    images: uint8 (N, C, H, W). numbers: of each, see `drawing.SPAN` (N,). probability: that the filter gives its class
    (N,). nearest: the index of the nearest training image of its class (N,). distance: to it (N,).
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    nearest: Tensor
    distance: Tensor

    @property
    def labels(self) -> Tensor:
        """Their classes (N,)."""
        return self.numbers // SPAN

    def take(self, index: Tensor) -> Self:
        """Some of them."""
        return self._replace(**{name: value[index] for name, value in self._asdict().items()})

    def joined(self, others: "Kept") -> "Kept":
        """These, and others behind them."""
        return Kept(*(torch.cat(pair) for pair in zip(self, others, strict=True)))


class Progress(NamedTuple):
    """How far it is: what is kept, and the tally of each class that was begun."""

    kept: Kept
    tallies: dict[int, Tally]

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As a state has it."""
        return self.kept._asdict(), {"tallies": [[label, *tally] for label, tally in self.tallies.items()]}


def begun(shape: tuple[int, int, int], arrays: dict[str, Tensor], facts: dict[str, Any]) -> Progress:
    """What `Progress.saved` gave; of nothing saved, the beginning."""
    none = torch.empty(0, dtype=torch.int64)
    empty = Kept(torch.empty(0, *shape, dtype=torch.uint8), none, torch.empty(0), none, torch.empty(0))
    tallies = {label: Tally(*counts) for label, *counts in facts.get("tallies", [])}
    return Progress(Kept(**{**empty._asdict(), **arrays}), tallies)


class Judged(NamedTuple):
    """Candidates of one class, and which are copies of training images (N,); nearest and distance: see `Kept`."""

    drawn: Candidates
    copies: Tensor
    nearest: Tensor
    distance: Tensor


def fill(
    source: Source,
    wanted: dict[int, int],
    progress: Progress,
    after_step: Callable[[int], None] = lambda images: None,
    group: Group = ALONE,
) -> Iterator[Progress]:
    """Draw for each class, in turn, as many images as wanted; yields how far it is after each batch.

    Equal arguments give equal images, wherever `progress` was cut off. Several processes draw the batches that one
    process is likely to draw next, and leave out those that it would not have drawn.

    Args:
        wanted: images by label.
        after_step: see `draw_class`.
        group: the processes that draw together. All of them yield the same.

    Raises:
        UserError: the model cannot draw a class, or not so. In another process than the first: SystemExit.
    """
    most = min(group.gather(sample_batch(source.loaded, source.runtime)))
    of_class = cache(lambda label: _of_class(source, label))

    def next_batches(label: int) -> Iterator[range]:
        tally = progress.tallies.get(label, Tally())
        return tally.next_batches(wanted[label], source.tries, most)

    def judged(task: tuple[int, range]) -> Judged:
        return _judged(source, *task, *of_class(task[0]), after_step)

    while tasks := [*islice(((label, batch) for label in wanted for batch in next_batches(label)), group.size)]:
        for (label, batch), (drawn, copies, nearest, distance) in zip(tasks, group.each(judged, tasks), strict=True):
            if batch != next(next_batches(label), None):
                continue
            known = progress.kept.images[progress.kept.labels == label]
            tally = progress.tallies.get(label, Tally())
            taken = drawn.taken(label, source.least)
            rows, tally = chosen(drawn, known, copies, taken, tally, wanted[label], source.tries)
            kept = Kept(drawn.images, drawn.numbers, drawn.probability, nearest, distance).take(rows)
            progress = Progress(progress.kept.joined(kept), {**progress.tallies, label: tally})
            yield progress


def _of_class(source: Source, label: int) -> tuple[Tensor, float]:
    """The indices of a class's training images, and the distance below which an image is a copy of one."""
    own = (source.train.labels == label).nonzero().squeeze(1)
    return own, threshold(source.fresh.images[source.fresh.labels == label], source.train.images[own])


def _judged(
    source: Source, label: int, batch: range, own: Tensor, limit: float, after_step: Callable[[int], None]
) -> Judged:
    """Draw a batch of a class, whose training images are `own`, and look for copies of these."""
    loaded, classifier, params, seed, runtime = source[:5]
    drawn = draw_class(loaded, classifier, params, label, seed, batch.start, len(batch), runtime, after_step)
    near = nearest_neighbours(drawn.images, source.train.images[own])
    copies = (near.distance < limit) | (near.distance == 0)
    return Judged(drawn, copies, own[near.nearest], near.distance)


def chosen(
    drawn: Candidates, known: Tensor, copies: Tensor, taken: Tensor, tally: Tally, wanted: int, tries: int
) -> tuple[Tensor, Tally]:
    """The rows of the candidates that are kept, and the tally with those that were looked at: as many as it takes.

    So the batches in which they come decide nothing. One that equals an image that is kept is a copy of it.

    Args:
        known: those of the class that are kept already (M, C, H, W).
        copies, taken: which are copies of training images, and which the filter takes for the class (N,).
    """
    seen = {image.numpy().tobytes() for image in known}
    rows = []
    for row, image in enumerate(drawn.images):
        if tally.done(wanted, tries):
            break
        content = image.numpy().tobytes()
        copy = bool(copies[row]) or content in seen
        keep = not copy and bool(taken[row])
        tally = Tally(
            tally.candidates + 1, tally.copies + copy, tally.filtered + (not copy and not keep), tally.kept + keep
        )
        if keep:
            rows.append(row)
            seen.add(content)
    return torch.tensor(rows, dtype=torch.int64), tally
