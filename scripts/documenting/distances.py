"""A plot of the configurations: the Frechet distance of each, as a multiple of that of real test images."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from ddpm.pictures.figures import to_png
from scripts.results import CONFIGURATIONS, recorded


def distance_plot() -> bytes:
    """Return the plot as PNG: a dot for each configuration, with its deviation, on a logarithmic axis."""
    figure = Figure(figsize=(8, 0.4 * len(CONFIGURATIONS) + 0.8), layout="constrained")
    axis = figure.subplots()
    for row, (folder, _) in enumerate(CONFIGURATIONS.values()):
        found = recorded(Path(folder))
        keys = ("test.frechet", "samples.frechet", "samples.frechet_deviation")
        real, distance, spread = (found.get(f"scores.b.{key}", math.nan) for key in keys)  # a null has no dot
        axis.errorbar(distance / real, row, xerr=spread / real, fmt="o", color="C0")
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set(xscale="log", xlabel="Frechet distance, classifier b, divided by that of real test images")
    axis.set_xticks((1, 10, 100), ("1", "10", "100"))
    axis.set_yticks(range(len(CONFIGURATIONS)), CONFIGURATIONS)
    axis.invert_yaxis()
    return to_png(figure)
