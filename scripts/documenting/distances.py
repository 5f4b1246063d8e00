"""A plot of the configurations: the Frechet distance of each, as a multiple of that of real test images."""

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
        real = found["scores.b.test.frechet"]
        distance, spread = (found[f"scores.b.samples.{key}"] / real for key in ("frechet", "frechet_deviation"))
        axis.errorbar(distance, row, xerr=spread, fmt="o", color="C0")
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set(xscale="log", xlabel="Frechet distance, classifier b, divided by that of real test images")
    axis.set_xticks((1, 10, 100), ("1", "10", "100"))
    axis.set_yticks(range(len(CONFIGURATIONS)), CONFIGURATIONS)
    axis.invert_yaxis()
    return to_png(figure)
