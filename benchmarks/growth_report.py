"""What `benchmarks.growth` has measured, as tables and as a plot, with the lines where memory is full.

Only what draws imports what takes memory: see `benchmarks.synthetic`.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ddpm.pipeline.files import write_whole

Row = dict[str, Any]
MACHINE = 24 * 1024  # megabytes
CARD = 80e9 / (1 << 20)  # megabytes, of which the images may have half, see `ddpm.images.splits.Split.to`
WORDS = ("made_of", "shape", "what")  # columns that are no numbers
DRAWN = ("dvc add", "preprocess", "train, one step", "evaluate")
HELD = ("preprocess", "train, one step", "evaluate")  # whose memory may grow with the images


def write_row(path: Path, setting: Row, cost: Row) -> None:
    """Put a row into a csv file, in the place of one of the same setting."""
    rows = read_rows(path)
    same = [index for index, each in enumerate(rows) if all(each[key] == value for key, value in setting.items())]
    place = same[0] if same else len(rows)
    rows[place : place + len(same)] = [{**setting, **cost}]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*setting, *cost], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def read_rows(path: Path) -> list[Row]:
    """The rows of such a file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    return [{key: text if key in WORDS else number(text) for key, text in each.items()} for each in rows]


def number(text: str) -> float:
    """A whole one where it is written as one."""
    return int(text) if text.isdecimal() else float(text)


def full_at(points: Sequence[tuple[float, float]], most: float) -> float:
    """Where the line through the last two points (x, y), by x, reaches `most`; infinite where it does not rise."""
    (left, low), (right, high) = sorted(points)[-2:]
    slope = (high - low) / (right - left)
    return right + (most - high) / slope if slope > 0 else math.inf


def report(folder: Path) -> None:
    """Print tables of what lies in the folder, and draw it there."""
    images, processes, sizes = (read_rows(folder / f"{name}.csv") for name in ("images", "processes", "sizes"))
    for line in [*images_tables(images), *processes_table(processes), *sizes_tables(sizes)]:
        print(line)
    if images and sizes:
        write_whole(folder / "growth.png", plot(images, sizes))


def images_tables(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each shape: what each number of images takes, and the number that fills the memory."""
    for (shape,), found in grouped(rows, "shape"):
        counts = sorted({each["images"] for each in found})
        yield f"\n{shape}: CPU seconds, megabytes\n"
        yield from head("", *(f"{count:,.0f}" for count in counts), "24 GiB at")
        for what in dict.fromkeys(map(title, found)):
            costs = {each["images"]: each for each in found if title(each) == what}
            cells = [f"{costs[n]['cpu']:.3g}, {costs[n]['own']:,.0f}" if n in costs else "" for n in counts]
            points = [(count, cost["own"]) for count, cost in costs.items()]
            full = full_at(points, MACHINE) if len(points) > 1 and what.startswith(HELD) else math.inf
            yield f"| {what} | {' | '.join(cells)} | {'' if full == math.inf else f'{full:.1e}'} |"


def title(each: Row) -> str:
    """What was measured, and of what it began with where that matters."""
    begun = each["what"].startswith(("dvc", "preprocess")) and "archive" not in each["what"]
    return f"{each['what']}, {each['made_of']}" if begun else each["what"]


def processes_table(rows: Sequence[Row]) -> Iterator[str]:
    """The steps of each shape by so many processes and threads."""
    yield ""
    yield from head("", "processes", "threads of all", "seconds", "CPU seconds", "megabytes of all", "of the largest")
    for each in rows:
        if each["what"].startswith("a step"):
            numbers = (f"{each[key]:.3g}" for key in ("processes", "threads", "seconds", "cpu"))
            yield f"| {each['what']}, {each['shape']} | {' | '.join(numbers)} | {each['own']} | {each['peak']} |"


def sizes_tables(rows: Sequence[Row]) -> Iterator[str]:
    """Of each shape the rate and the memory of an image, and what fits; then of each batch and width."""
    yield ""
    yield from head(
        "",
        "images per CPU second",
        "MB an image in a batch",
        "batch in 24 GiB",
        "batch in 80 GB",
        "images on a card of 80 GB",
    )
    for (channels, side), found in grouped(rows, "channels", "side"):
        points = [(each["batch"], each["peak"]) for each in found if each["batch"] in (16, 64) and not each["width"]]
        if len(points) < 2:
            continue
        rate = next(each["images_per_cpu_second"] for each in found if each["batch"] == 64 and not each["width"])
        megabytes = 1e9 / (full_at(points, 1e9) - full_at(points, 0))
        held = CARD / 2 * (1 << 20) / (channels * side * side)
        yield (
            f"| {side:.0f} x {side:.0f}, {'colour' if channels == 3 else 'grey'} | {rate:.0f} | {megabytes:.2f} | "
            f"{full_at(points, MACHINE):,.0f} | {full_at(points, CARD):,.0f} | {held / 1e6:.1f} million |"
        )
    yield ""
    yield from head("", "", "images per CPU second", "peak in MB")
    for what, others in (("batch", "width"), ("width", "batch")):
        for each in sorted(rows, key=lambda each: each[what]):
            default = each["side"] == 28 and each["channels"] == 1 and each[others] == (64 if what == "width" else 0)
            if default and each[what]:
                yield f"| {what} | {each[what]:.0f} | {each['images_per_cpu_second']:.0f} | {each['peak']:.0f} |"


def head(*titles: str) -> Iterator[str]:
    """The two lines above a table's rows."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"


def grouped(rows: Sequence[Row], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """The rows that agree in these columns, in order of them."""

    def values(each: Row) -> tuple[Any, ...]:
        return tuple(each[key] for key in keys)

    for found, alike in groupby(sorted(rows, key=values), values):
        yield found, [*alike]


def plot(images: Sequence[Row], sizes: Sequence[Row]) -> bytes:
    """CPU seconds and memory by the number of images, above; rate and memory of an image by its size, below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    from ddpm.pictures.figures import to_png

    figure = Figure(figsize=(13, 8), layout="constrained")
    (seconds, memory), (rates, batches) = figure.subplots(2, 2)
    drawn = [{**each, "title": title(each)} for each in images if each["what"] in DRAWN]
    for (what, shape), found in grouped(drawn, "title", "shape"):
        found.sort(key=lambda each: each["images"])
        for axis, key in ((seconds, "cpu"), (memory, "own")):
            axis.loglog(
                [each["images"] for each in found], [each[key] for each in found], "o-", label=f"{what}, {shape}"
            )
    for channels, found in grouped(sizes, "channels"):
        name = "colour" if channels[0] == 3 else "grey"
        by_side = [
            (side, {each["batch"]: each for each in alike if not each["width"]})
            for (side,), alike in grouped(found, "side")
        ]
        both = [(side, each) for side, each in by_side if {16, 64} <= each.keys()]
        rates.loglog(
            [side for side, _ in both], [each[64]["images_per_cpu_second"] for _, each in both], "o-", label=name
        )
        each_takes = [(each[64]["peak"] - each[16]["peak"]) / 48 for _, each in both]
        batches.loglog([side for side, _ in both], each_takes, "o-", label=name)
    memory.axhline(MACHINE, color="grey", linestyle="--", label="24 GiB")
    for most, name in ((MACHINE, "a batch of 512 fills 24 GiB"), (CARD, "a batch of 512 fills 80 GB")):
        batches.axhline(most / 512, color="grey", linestyle="--" if most == MACHINE else ":", label=name)
    for axis, heading, label in (
        (seconds, "CPU seconds", "images"),
        (memory, "Megabytes, mapped files apart", "images"),
        (rates, "Images per CPU second in training", "pixels a side"),
        (batches, "Megabytes of an image in a batch", "pixels a side"),
    ):
        axis.set(title=heading, xlabel=label)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        if axis is not seconds:  # whose lines the panel beside it names
            axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
        axis.grid(alpha=0.3)
    for axis in (rates, batches):
        axis.set_xticks(ticks := sorted({each["side"] for each in sizes}), [f"{tick:.0f}" for tick in ticks])
        axis.minorticks_off()
    return to_png(figure)
